"""Opens files as root in folders where other users may write, and finds places where a user could exchange a file.

Used by the master, the command and the embedding program. It keeps no state. For a process that is not root nothing
here is stricter than the kernel.

A user with the right to write in a folder can put a symbolic link where root is about to open a log or a pidfile, and
root would write into any file of the system; the descriptor of a log is even passed on to workers of that user. So root
follows the links that root made, and those of folders where only root may write (`/dev/stdout`, a `/var/log` on another
disk); a link that another user made is followed with that user's rights. This needs Linux's O_PATH: each step is made
from a descriptor, so nothing can be exchanged between the look and the step.
"""

import errno
import os
import pwd
import re
import stat
import sys
from dataclasses import dataclass
from typing import Self

_LINUX = sys.platform == "linux"
_MOST_LINKS = 40  # as the kernel (path_resolution(7))
_OCTAL = re.compile(r"\\([0-7]{3})")  # how proc(5) writes a space, a tab, a newline and a backslash
_READ, _WRITE, _SEARCH = 4, 2, 1  # of each three bits of a mode


@dataclass(frozen=True, slots=True)
class Account:
    """A user, and all groups of that user."""

    uid: int
    gids: tuple[int, ...]

    @classmethod
    def of(cls, uid: int) -> Self:
        """The account of a uid; without groups if the system has none of that number."""
        try:
            found = pwd.getpwuid(uid)
        except KeyError:
            return cls(uid, ())
        return cls(uid, tuple(os.getgrouplist(found.pw_name, found.pw_gid)))

    def may(self, status: os.stat_result, wanted: int) -> bool:
        """Whether the mode gives this user the rights `wanted` (inode(7)); access control lists are not looked at."""
        if self.uid in (0, status.st_uid):
            return self.uid == 0 or status.st_mode >> 6 & wanted == wanted
        shift = 3 if status.st_gid in self.gids else 0
        return status.st_mode >> shift & wanted == wanted

    def may_rename(self, directory: os.stat_result, entry: os.stat_result | None) -> bool:
        """Whether this user may put something else in the place of `entry`, or where nothing is, in `directory`."""
        if self.uid in (0, directory.st_uid):
            return True  # an owner can change the mode
        if not self.may(directory, _WRITE | _SEARCH):
            return False
        return not directory.st_mode & stat.S_ISVTX or entry is None or entry.st_uid == self.uid


def open_file(path: str, flags: int, mode: int = 0o644) -> int:
    """Open `path` as open(2) does, but as root follow other users' links with their rights. Close-on-exec.

    Raises OSError; its text names the owner of a link that leads too far.
    """
    flags |= os.O_CLOEXEC
    if not _LINUX or os.geteuid() != 0:
        return os.open(path, flags, mode)
    walk = _Walk(path)
    try:
        return walk.open(flags, mode)
    finally:
        os.close(walk.here)


def place_to_change(path: str, account: Account) -> str | None:
    """The first place on the absolute `path` where `account` could exchange or change the file; None without such a
    place.

    The look goes from the root down, so that the user cannot exchange a part that has been looked at. Nothing below a
    read-only mount can be changed, although the modes say so: the modes of a Kubernetes ConfigMap are 0777.
    """
    parts = [part for part in reversed(path.split("/")) if part]
    here, links = "/", 0
    while parts:
        name = parts.pop()
        step = os.path.join(here, name)
        try:
            entry: os.stat_result | None = os.lstat(step)
        except OSError:
            entry = None
        renames = name not in (".", "..") and account.may_rename(os.lstat(here), entry)
        if renames and not (_is_read_only(here) or _is_mount_point(step)):
            return here
        if entry is None:
            return None
        if stat.S_ISLNK(entry.st_mode):
            links += 1
            if links > _MOST_LINKS:
                return None  # it cannot be opened, either
            target = os.readlink(step)
            here = "/" if target.startswith("/") else here
            parts.extend(part for part in reversed(target.split("/")) if part)
        else:
            here = os.path.normpath(step)  # of links nothing is left in it, so that `..` is what it says
    final = os.lstat(here)
    changes = account.uid == final.st_uid or account.may(final, _WRITE)
    return here if changes and not _is_read_only(here) else None


def _is_mount_point(path: str) -> bool:
    """Whether a file system is mounted there: a mount point cannot be renamed or removed (EBUSY in rename(2)).

    st_dev would not tell: it differs among the files of an overlayfs.
    """
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            points = [line.split(" ")[4] for line in lines]
    except OSError:
        return False
    return path in {_OCTAL.sub(lambda match: chr(int(match[1], 8)), point) for point in points}


def _is_read_only(path: str) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


class _Walk:
    """From directory to directory along a path, as root."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.here = os.open("/" if path.startswith("/") else ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        #: The user who opens the files from here on; None is root.
        self.account: Account | None = None
        self._parts = _parts(path)
        self._links = 0

    def open(self, flags: int, mode: int) -> int:
        """Go to the end and open the file that is there."""
        if not self._parts or self.path.endswith("/"):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        while self._parts:
            name = self._parts.pop()
            last = not self._parts
            try:
                entry = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.here)
            except FileNotFoundError:
                if last and flags & os.O_CREAT:
                    return self._create(name, flags, mode)
                raise
            status = os.fstat(entry)
            if stat.S_ISLNK(status.st_mode):
                if last and flags & os.O_NOFOLLOW:
                    os.close(entry)
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                if last and _is_of_proc(status):  # such as /proc/self/fd/1, which leads to no path
                    os.close(entry)
                    return self._open_existing(name, flags, mode)
                self._follow(entry, status)
            elif last:
                os.close(entry)
                return self._open_existing(name, flags | os.O_NOFOLLOW, mode)
            else:
                self._enter(entry, status)
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))  # a link that leads to the root directory

    def _enter(self, entry: int, status: os.stat_result) -> None:
        os.close(self.here)
        self.here = entry
        if not stat.S_ISDIR(status.st_mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        self._require(status, _SEARCH)

    def _follow(self, link: int, status: os.stat_result) -> None:
        try:
            self._links += 1
            if self._links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            if self.account is None and status.st_uid != 0 and not _only_roots(os.fstat(self.here)):
                self.account = Account.of(status.st_uid)
            target = os.readlink("", dir_fd=link)
        finally:
            os.close(link)
        if target.startswith("/"):
            os.close(self.here)
            self.here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._parts.extend(_parts(target))

    def _open_existing(self, name: str, flags: int, mode: int) -> int:
        fd = os.open(name, flags, mode, dir_fd=self.here)
        try:
            status, directory = os.fstat(fd), os.fstat(self.here)
            writes = flags & (os.O_WRONLY | os.O_RDWR)
            self._require(status, (_WRITE if writes else 0) | (0 if writes == os.O_WRONLY else _READ))
            # A hard link of root's file, where the system lets others make one (fs.protected_hardlinks = 0).
            linked = stat.S_ISREG(status.st_mode) and status.st_nlink > 1
            if writes and linked and not _only_roots(directory) and not (0 != directory.st_uid == status.st_uid):
                raise PermissionError(
                    errno.EPERM,
                    f"it has {status.st_nlink} names (hard links), and stands where others than root may write",
                )
        except OSError:
            os.close(fd)
            raise
        return fd

    def _create(self, name: str, flags: int, mode: int) -> int:
        self._require(os.fstat(self.here), _WRITE | _SEARCH)
        if self.account is None:
            return os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=self.here)
        fd = os.open(name, flags | os.O_NOFOLLOW | os.O_EXCL, mode, dir_fd=self.here)
        os.fchown(fd, self.account.uid, self.account.gids[0] if self.account.gids else -1)
        return fd

    def _require(self, status: os.stat_result, wanted: int) -> None:
        if self.account is not None and not self.account.may(status, wanted):
            raise PermissionError(
                errno.EACCES,
                f"a symbolic link on the way was made by uid {self.account.uid}, who has no right to what it leads to",
            )


def _is_of_proc(status: os.stat_result) -> bool:
    try:
        return status.st_dev == os.stat("/proc").st_dev
    except OSError:
        return False


def _parts(path: str) -> list[str]:
    """The steps of a path, the last first."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _only_roots(directory: os.stat_result) -> bool:
    """Whether only root may make a link here."""
    others = stat.S_IWOTH if directory.st_gid == 0 else stat.S_IWOTH | stat.S_IWGRP
    return directory.st_uid == 0 and not directory.st_mode & others

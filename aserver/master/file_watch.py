"""Tells which files of the user's project were saved, within milliseconds and without work while nothing happens.

Runs in the master's loop (`reload`). On Linux it is inotify(7), called directly: the package watchfiles would bring a
thread into the master, and 50 ms. Elsewhere, or where inotify has no watch left, it looks at modification times twice
a second. It reads no file and decides nothing.
"""

import asyncio
import contextlib
import ctypes
import errno
import fnmatch
import logging
import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from aserver import unix
from aserver.log.access.escape import printable

log = logging.getLogger("aserver.master")

#: Besides `reload_include`: the user's code, and the sources of pages.
INCLUDED = ("*.py", "*.html", "*.jinja", "*.jinja2", "*.j2", "*.css", "*.js")
#: Besides `reload_exclude`, for files and directories: hidden names, and the temporary files of editors.
EXCLUDED = (".*", "*~", "__pycache__", "node_modules", "site-packages", "dist-packages")
#: Changes of the environment that the code runs in, wherever they are in the project.
ENVIRONMENT = ("pyproject.toml", "*.lock", "requirements*.txt", "aserver.toml", "gunicorn.conf.py")
#: Seconds of quiet that mean that an installation is over.
INSTALL_DELAY = 0.5
#: Seconds between two looks without inotify.
POLL_PERIOD = 0.5
#: linux/inotify.h. A file counts when it was closed after writing or moved here, not while it is written.
IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x8, 0x40, 0x80, 0x100, 0x200
IN_Q_OVERFLOW, IN_ISDIR = 0x4000, 0x40000000
_SAVED = IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE
_HEAD = struct.Struct("iIII")
_INSTALLED = re.compile(r"(.*/(?:site|dist)-packages)/")


class Patterns:
    """Which files count by `reload_include` and `reload_exclude`, and which directories are entered."""

    def __init__(self, include: Iterable[str], exclude: Iterable[str], environment: Iterable[str]) -> None:
        """`environment` are files by their whole paths, such as the env file."""
        self._include = (*INCLUDED, *include)
        exclude = list(exclude)
        self._exclude = (*EXCLUDED, *exclude)
        self._excluded_places = {os.path.abspath(each) for each in exclude}
        self._environment = frozenset(environment)

    def counts(self, path: str) -> bool:
        """Whether a change of this file calls for a reload."""
        if self.is_environment(path):
            return True
        return self._matches(path, self._include) and not self._matches(path, self._exclude)

    def is_environment(self, path: str) -> bool:
        """Whether the file decides which packages or settings there are: then nothing loaded before is kept."""
        return path in self._environment or self._matches(path, ENVIRONMENT)

    def enters(self, path: str) -> bool:
        """Whether this directory is part of the project."""
        excluded = self._matches(path, self._exclude) or path in self._excluded_places
        return not excluded and not os.path.exists(os.path.join(path, "pyvenv.cfg"))

    @staticmethod
    def _matches(path: str, patterns: Iterable[str]) -> bool:
        name = os.path.basename(path)
        return any(fnmatch.fnmatch(name, each) or ("/" in each and fnmatch.fnmatch(path, each)) for each in patterns)


class FileWatch:
    """Calls `saved` with the files that were saved, when none has been for `delay` seconds.

    `places` are watched with all directories below them, `also` (see `look_at`) without. Call `close` at the end.
    """

    def __init__(
        self, places: Iterable[str], patterns: Patterns, delay: float, saved: Callable[[frozenset[str]], None]
    ) -> None:
        self._patterns = patterns
        self._delay = delay
        self._saved = saved
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._changed: set[str] = set()
        self._places = [os.path.abspath(place) for place in places]
        self._others: set[str] = set()  # directories of loaded files elsewhere
        self._watched: dict[int, str] = {}
        self._times: dict[str, int] = {}
        self._poll: asyncio.TimerHandle | None = None
        self._fd = _open_inotify()
        if self._fd is not None:
            self._loop.add_reader(self._fd, self._on_events)
            for place in self._places:
                self._enter(place)
        else:
            self._begin_polling()

    def look_at(self, files: Iterable[str]) -> None:
        """Watch the directories of these files, too: a package that is edited in place lies outside the project."""
        places = {os.path.dirname(file) for file in files}
        places |= {root for file in files if (root := installed_in(file))}  # where pip makes its directories
        for place in places - self._others:
            self._others.add(place)
            if self._fd is not None:
                self._watch(place)

    def close(self) -> None:
        """Watch no more."""
        for timer in (self._timer, self._poll):
            if timer is not None:
                timer.cancel()
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None

    def _note(self, path: str) -> None:
        self._changed.add(path)
        if self._timer is not None:
            self._timer.cancel()
        delay = max(self._delay, INSTALL_DELAY) if installed_in(path) else self._delay
        self._timer = self._loop.call_later(delay, self._tell)

    def _tell(self) -> None:
        changed, self._changed = frozenset(self._changed), set()
        self._saved(changed)

    # ── inotify ──────────────────────────────────────────────────────────────────────────────

    def _enter(self, place: str, *, new: bool = False) -> None:
        """Watch a directory and those below it; in a `new` directory, every file was saved just now."""
        self._watch(place)
        for entry in _entries(place):
            if entry.is_dir(follow_symlinks=False):
                if self._patterns.enters(entry.path):
                    self._enter(entry.path, new=new)
            elif new and self._patterns.counts(entry.path):
                self._note(entry.path)

    def _watch(self, place: str) -> None:
        if self._fd is None:
            return
        mask = _SAVED | IN_CREATE
        watch = _libc.inotify_add_watch(self._fd, os.fsencode(place), ctypes.c_uint32(mask))
        if watch >= 0:
            self._watched[watch] = place
        elif ctypes.get_errno() == errno.ENOSPC:
            log.warning(
                "the system has no more inotify watches (sysctl fs.inotify.max_user_watches); "
                "files are looked at every %g s instead",
                POLL_PERIOD,
            )
            self.close()
            self._begin_polling()

    def _on_events(self) -> None:
        assert self._fd is not None
        data = b""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._fd, 1 << 16)
        while data and self._fd is not None:
            watch, mask, _, size = _HEAD.unpack_from(data)
            name = os.fsdecode(data[_HEAD.size : _HEAD.size + size].rstrip(b"\0"))
            data = data[_HEAD.size + size :]
            if mask & IN_Q_OVERFLOW:
                self._note(self._places[0])
            elif name and watch in self._watched:
                self._on_event(os.path.join(self._watched[watch], name), mask)

    def _on_event(self, path: str, mask: int) -> None:
        place = os.path.dirname(path)
        if mask & IN_ISDIR:
            if mask & (IN_CREATE | IN_MOVED_TO) and self._is_project(place) and self._patterns.enters(path):
                self._enter(path, new=True)
            # pip makes or removes this directory last, for every package.
            elif path.endswith(".dist-info") and place in self._others:
                self._note(path)
        elif mask & _SAVED and self._patterns.counts(path):
            self._note(path)
        elif mask & _SAVED:
            log.debug("%s was saved, and is not watched: see reload_include and reload_exclude", printable(path))

    def _is_project(self, place: str) -> bool:
        return any(place == each or place.startswith(each.rstrip("/") + "/") for each in self._places)

    # ── without inotify ──────────────────────────────────────────────────────────────────────

    def _begin_polling(self) -> None:
        self._times = dict(self._look())
        self._poll = self._loop.call_later(POLL_PERIOD, self._poll_once)

    def _poll_once(self) -> None:
        now = dict(self._look())
        for path, _ in self._times.items() ^ now.items():
            self._note(path)
        self._times = now
        self._poll = self._loop.call_later(POLL_PERIOD, self._poll_once)

    def _look(self) -> Iterator[tuple[str, int]]:
        waiting = [*self._places, *(place for place in self._others if not self._is_project(place))]
        while waiting:
            place = waiting.pop()
            for entry in _entries(place):
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        if self._is_project(place) and self._patterns.enters(entry.path):
                            waiting.append(entry.path)
                    elif self._patterns.counts(entry.path):
                        yield entry.path, entry.stat().st_mtime_ns


_libc = ctypes.CDLL(None, use_errno=True)


def _open_inotify() -> int | None:
    if not unix.LINUX:
        return None
    fd = int(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    return fd if fd >= 0 else None


def _entries(place: str) -> Iterator[os.DirEntry[str]]:
    with contextlib.suppress(OSError), os.scandir(place) as found:
        yield from found


def installed_in(path: str) -> str | None:
    """The directory of installed packages that a file is below, if any."""
    match = _INSTALLED.match(path)
    return match[1] if match else None


def in_words(files: Iterable[str], base: str) -> str:
    """`app/main.py was saved`, by the names that the user knows, which are relative to `base`."""
    names = sorted(os.path.relpath(each, base) if Path(each).is_relative_to(base) else each for each in files)
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{printable(names[0])}{more} {'were' if more else 'was'} saved"

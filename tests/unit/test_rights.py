"""What root opens in folders of others. The tests with users need root; the rest holds for all."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from aserver import rights
from aserver.errors import ConfigError
from aserver.log.opening import open_log
from aserver.master.pidfile import PidFile
from aserver.rights import Account, place_to_change
from tests.harness.disks import tmpfs

NOBODY, DAEMON = 65534, 1
LOG = os.O_WRONLY | os.O_APPEND | os.O_CREAT

as_root = pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root has rights that matter")


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder of nobody's, as a service's /var/log/app."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    return folder


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    """A folder of root's with a file of root's, such as /etc."""
    folder = tmp_path / "roots"
    folder.mkdir(mode=0o755)
    (folder / "passwd").write_text("root\n")
    return folder


def link(path: Path, target: Path | str, owner: int = NOBODY) -> Path:
    path.symlink_to(target)
    os.lchown(path, owner, owner)
    return path


def write(path: Path | str, flags: int = LOG) -> None:
    fd = rights.open_file(str(path), flags)
    try:
        assert not os.get_inheritable(fd)
        os.write(fd, b"line\n")
    finally:
        os.close(fd)


# ── as anybody ───────────────────────────────────────────────────────────────────────────────


def test_a_plain_file_is_made_and_opened(theirs: Path) -> None:
    path = theirs / "a.log"
    write(path)
    write(path)
    assert path.read_text() == "line\nline\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644 & ~_umask()


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


@pytest.mark.parametrize("spelling", ["{}/./a.log", "{}/../theirs/a.log", "{}//a.log"])
def test_odd_paths(theirs: Path, spelling: str) -> None:
    write(spelling.format(theirs))
    assert (theirs / "a.log").read_text() == "line\n"


def test_a_relative_path(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(theirs)
    write("a.log")
    assert (theirs / "a.log").read_text() == "line\n"


@pytest.mark.parametrize(
    ("path", "number"),
    [("none/a", errno.ENOENT), ("", errno.EISDIR), ("file/a", errno.ENOTDIR), ("loop", errno.ELOOP)],
)
def test_what_cannot_be_opened_says_what_the_system_says(theirs: Path, path: str, number: int) -> None:
    (theirs / "file").touch()
    (theirs / "loop").symlink_to("loop")
    with pytest.raises(OSError, match=r"\[Errno") as caught:
        rights.open_file(f"{theirs}/{path}", LOG)
    assert caught.value.errno == number


def test_links_of_our_own_are_followed(theirs: Path, roots: Path) -> None:
    """Also to a folder, relative, and to what is not there yet."""
    (theirs / "folder").symlink_to("../roots")
    (theirs / "a.log").symlink_to("folder/new.log")
    write(theirs / "a.log")
    assert (roots / "new.log").read_text() == "line\n"


@pytest.mark.parametrize("which", ["stdout", "stderr"])
def test_the_links_of_container_images_lead_to_the_standard_streams(theirs: Path, which: str) -> None:
    """`/var/log/nginx/access.log -> /dev/stdout` of the nginx image; a pipe, a file or a terminal is behind it.

    Fails where the kernel's own links in /proc are read as paths.
    """
    reader, writer = os.pipe()
    number = {"stdout": 1, "stderr": 2}[which]
    saved = os.dup(number)
    try:
        os.dup2(writer, number)
        (theirs / "a.log").symlink_to(f"/dev/{which}")
        write(theirs / "a.log")
        assert os.read(reader, 100) == b"line\n"
    finally:
        os.dup2(saved, number)
        for fd in (reader, writer, saved):
            os.close(fd)


def test_devices(theirs: Path) -> None:
    write("/dev/null")
    (theirs / "a.log").symlink_to("/dev/null")
    write(theirs / "a.log")


def test_without_root_s_rights_nothing_is_stricter(theirs: Path, roots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel decides alone."""
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    (theirs / "a.log").symlink_to(roots / "passwd")
    write(theirs / "a.log")
    assert (roots / "passwd").read_text() == "root\nline\n"


# ── as root, in folders of others ────────────────────────────────────────────────────────────


@as_root
@pytest.mark.parametrize("target", ["../roots/passwd", "../roots/new", "{roots}/passwd", "second", "folder/passwd"])
def test_another_s_link_gives_no_more_than_his_rights(theirs: Path, roots: Path, target: str) -> None:
    """To a file, to none yet, through other links. Fails with os.open()."""
    link(theirs / "second", roots / "passwd")
    link(theirs / "folder", roots)
    path = link(theirs / "a.log", target.format(roots=roots))
    with pytest.raises(PermissionError, match=f"made by uid {NOBODY}, who has no right"):
        write(path)
    with pytest.raises(ConfigError, match=f"errorlog {path} cannot be opened: a symbolic link on the way was made by"):
        open_log(str(path), which="error")
    assert {each.name: each.read_text() for each in roots.iterdir()} == {"passwd": "root\n"}


@as_root
def test_another_s_link_among_the_folders(theirs: Path, roots: Path) -> None:
    link(theirs / "folder", roots)
    for name in ("passwd", "new"):
        with pytest.raises(PermissionError, match="made by uid"):
            write(theirs / "folder" / name)
    assert {each.name: each.read_text() for each in roots.iterdir()} == {"passwd": "root\n"}


@as_root
def test_another_s_link_does_not_lead_past_a_folder_that_is_closed_to_him(theirs: Path, roots: Path) -> None:
    """A file that everybody may write, behind a door. Fails with a look at the file alone."""
    (roots / "passwd").chmod(0o666)
    roots.chmod(0o700)
    with pytest.raises(PermissionError, match="made by uid"):
        write(link(theirs / "a.log", roots / "passwd"))
    assert (roots / "passwd").read_text() == "root\n"


@as_root
def test_another_s_link_to_what_is_his(theirs: Path, tmp_path: Path) -> None:
    """Deploys that switch a link are no attack; the file is made his. Fails if all links of others are refused."""
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(0o755)
    release = theirs / "releases" / "1"
    release.mkdir(parents=True)
    for each in (release.parent, release):
        os.chown(each, NOBODY, NOBODY)
    link(theirs / "current", "releases/1")
    write(theirs / "current" / "a.log")
    write(theirs / "current" / "a.log")
    assert (release / "a.log").read_text() == "line\nline\n"
    assert (release / "a.log").stat().st_uid == NOBODY


@as_root
def test_root_s_own_descriptors_are_out_of_reach(theirs: Path, tmp_path: Path) -> None:
    """A link to /proc/self/fd/N would be root's descriptor N."""
    secret = os.open(tmp_path / "secret", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with pytest.raises(PermissionError, match="made by uid"):
            write(link(theirs / "a.log", f"/proc/self/fd/{secret}"))
    finally:
        os.close(secret)
    assert (tmp_path / "secret").read_text() == ""


@as_root
def test_a_sticky_folder(tmp_path: Path, roots: Path) -> None:
    """/tmp: root's link holds, another's does not, and neither does a hard link."""
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    write(link(shared / "root.log", roots / "passwd", owner=0))
    assert (roots / "passwd").read_text() == "root\nline\n"
    with pytest.raises(PermissionError, match="made by uid"):
        write(link(shared / "their.log", roots / "passwd"))
    (shared / "hard.log").hardlink_to(roots / "passwd")
    with pytest.raises(PermissionError, match=r"it has 2 names \(hard links\)"):
        write(shared / "hard.log")


@as_root
def test_another_s_link_that_only_root_can_have_put_there(roots: Path, theirs: Path) -> None:
    """`cp -a` and tar keep owners. Fails if the link's owner alone is looked at."""
    write(link(roots / "a.log", "passwd", owner=DAEMON))
    assert (roots / "passwd").read_text() == "root\nline\n"


@as_root
def test_hard_links_of_the_folder_s_owner_and_of_root(theirs: Path, roots: Path) -> None:
    """Copies by `cp -al` are no attack."""
    (theirs / "a.log").touch()
    os.chown(theirs / "a.log", NOBODY, NOBODY)
    (theirs / "copy").hardlink_to(theirs / "a.log")
    write(theirs / "a.log")
    (roots / "copy").hardlink_to(roots / "passwd")
    write(roots / "passwd")


@as_root
def test_a_link_that_is_exchanged_while_we_look(theirs: Path, roots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file when it is looked at, a link when it is opened. Fails without O_NOFOLLOW at the last step."""
    path = theirs / "a.log"
    path.touch()
    real = os.fstat

    def fstat(fd: int) -> os.stat_result:
        found = real(fd)
        if not path.is_symlink() and stat.S_ISREG(found.st_mode):
            path.unlink()
            link(path, roots / "passwd")
        return found

    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(OSError, match="symbolic"):
        write(path)
    assert (roots / "passwd").read_text() == "root\n"


@as_root
@pytest.mark.parametrize("name", ["passwd", "new"])
def test_a_pidfile_through_another_s_link(theirs: Path, roots: Path, name: str) -> None:
    """Fails with os.open(): the file is emptied, and removed at the stop."""
    (roots / "passwd").write_text("4711\n")
    path = link(theirs / "app.pid", roots / name)
    with pytest.raises(ConfigError, match=f"pidfile {path} cannot be written: a symbolic link on the way was made by"):
        PidFile(str(path))
    assert {each.name: each.read_text() for each in roots.iterdir()} == {"passwd": "4711\n"}
    assert list(theirs.iterdir()) == [path]


@as_root
def test_a_pidfile_s_lock_through_another_s_link(theirs: Path, roots: Path) -> None:
    link(theirs / ".app.pid~", roots / "new")
    with pytest.raises(ConfigError, match="cannot be written: Too many levels of symbolic links"):
        PidFile(str(theirs / "app.pid"))
    assert not (roots / "new").exists()


@as_root
def test_what_is_mounted_cannot_be_exchanged(theirs: Path, account: Account) -> None:
    """Settings that a container runtime mounts into a folder of the application's: a folder, or a single file."""
    with tmpfs(theirs / "mounted here", "mode=755") as mounted:
        (mounted / "file").touch()
        assert place_to_change(str(mounted / "file"), account) is None
        (mounted / "file").chmod(0o666)
        assert place_to_change(str(mounted / "file"), account) == str(mounted / "file")
        (theirs / "file").touch()
        assert place_to_change(str(theirs / "file"), account) == str(theirs)
        subprocess.run(["mount", "--bind", theirs / "file", theirs / "file"], check=True)
        try:
            assert place_to_change(str(theirs / "file"), account) is None
        finally:
            subprocess.run(["umount", "--lazy", theirs / "file"], check=True)


@as_root
def test_what_is_mounted_read_only_cannot_be_changed(theirs: Path, account: Account) -> None:
    """A Kubernetes ConfigMap: folders of mode 0777, and a link over a link. Fails with a look at modes alone."""
    with tmpfs(theirs / "map", "mode=777") as volume:
        (volume / "..1").mkdir()
        (volume / "..1").chmod(0o777)
        (volume / "..1/aserver.toml").touch()
        (volume / "..data").symlink_to("..1")
        (volume / "aserver.toml").symlink_to("..data/aserver.toml")
        assert place_to_change(str(volume / "aserver.toml"), account) == str(volume)
        subprocess.run(["mount", "-o", "remount,ro", volume], check=True)
        assert place_to_change(str(volume / "aserver.toml"), account) is None


@as_root
def test_check_says_what_run_would_say(theirs: Path, roots: Path) -> None:
    """Of logs and the pidfile. Fails with access(2) alone."""
    path = link(theirs / "a.log", roots / "passwd")
    for setting in ("errorlog", "accesslog", "pidfile"):
        command = [sys.executable, "-m", "aserver", "check", "no_such_app:x", f"--{setting}", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, "a symbolic link on the way was made by" in done.stderr) == (2, True), done.stderr


# ── who may change what root obeys ───────────────────────────────────────────────────────────


@pytest.fixture
def account() -> Account:
    return Account(NOBODY, (NOBODY,))


@as_root
def test_places_to_change(theirs: Path, roots: Path, tmp_path: Path, account: Account) -> None:
    """The file, the folders above it, links to either; sticky folders keep what is others'."""
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "roots").touch()
    (theirs / "file").touch()
    (roots / "his").touch()
    os.chown(roots / "his", NOBODY, 0)
    (roots / "open").touch()
    (roots / "open").chmod(0o666)
    (roots / "group").touch()
    (roots / "group").chmod(0o664)
    os.chown(roots / "group", 0, NOBODY)
    link(roots / "to-his", theirs / "file", owner=0)
    link(shared / "link", roots / "passwd")
    expected = {
        roots / "passwd": None,
        roots / "none": None,
        roots / "../roots/passwd": None,
        roots / "his": roots / "his",
        roots / "open": roots / "open",
        roots / "group": roots / "group",
        roots / "to-his": theirs,
        theirs / "file": theirs,
        theirs / "none": theirs,
        theirs / "below" / "file": theirs,
        shared / "roots": None,
        shared / "link": shared,
        shared / "none": shared,
    }
    found = {path: place_to_change(str(path), account) for path in expected}
    assert found == {path: place and str(place) for path, place in expected.items()}
    assert place_to_change(str(theirs / "file"), Account(0, (0,))) is not None
    assert place_to_change(str(theirs / "file"), Account(DAEMON, (DAEMON,))) is None

"""Who owns a unix socket's path: every sentence of `aserver/sockets/path.py`, on real sockets in a real directory."""

import errno
import fcntl
import grp
import os
import pwd
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from aserver.errors import BindError
from aserver.locks import LockFile
from aserver.sockets import Listener, bind_all, path, port_owner

Bind = Callable[..., Listener]
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/net/unix")


@pytest.fixture
def public(tmp_path: Path) -> Path:
    return tmp_path / "a.sock"


@pytest.fixture
def hidden(public: Path) -> Path:
    return Path(path.hidden_name(str(public)))


@pytest.fixture
def bind(public: Path) -> Iterator[Bind]:
    """A listener at `public`, closed at the end of the test."""
    with ExitStack() as undo:

        def call(where: Path | str = public, **changes: Any) -> Listener:
            settings: dict[str, Any] = {"uds_mode": None, "uds_owner": None, "uds_group": None, "reuse_port": False}
            (listener,) = bind_all([f"unix:{where}"], environ={}, pid=os.getpid(), **settings | changes)
            undo.callback(listener.close)
            return listener

        yield call


@contextmanager
def connect(where: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(where))
        yield client


def leave_stale(where: Path) -> None:
    """What a server leaves that was killed: a socket file that nobody has open."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(where))


def serves(listener: Listener, where: Path) -> bool:
    """Whether a client of `where` reaches `listener` and nobody else."""
    with connect(where):
        try:
            listener.socket.accept()[0].close()
        except BlockingIOError:
            return False
    return True


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


@contextmanager
def other_server(code: str) -> Iterator[int]:
    """Another process that runs `code` (with `s`, a unix socket) and then waits; yields its pid."""
    with subprocess.Popen(
        [
            sys.executable,
            "-S",
            "-c",
            f"import socket, sys; s = socket.socket(1); {code}; print(flush=True); sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid


# ── from bind to listen ──────────────────────────────────────────────────────────────────────


def test_the_public_path_appears_with_listen_and_not_before(bind: Bind, public: Path, hidden: Path) -> None:
    listener = bind()
    assert names(public.parent) == [hidden.name]
    with pytest.raises(ConnectionRefusedError), connect(hidden):
        pass
    listener.listen(5)
    assert (listener.name, listener.family, listener.address) == (f"unix:{public}", "unix", str(public))
    assert serves(listener, public)
    assert public.samefile(hidden)
    listener.listen(7)  # may be repeated
    assert listener.socket.getblocking() is False
    assert listener.socket.get_inheritable() is False


def test_a_relative_path_is_kept_as_an_absolute_one(bind: Bind, public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(public.parent)
    listener = bind("a.sock")
    monkeypatch.chdir("/")
    listener.listen(5)
    assert listener.address == str(public)
    assert serves(listener, public)


def test_the_mode_is_the_umask_s_unless_it_is_set(bind: Bind, public: Path) -> None:
    before = os.umask(0o027)
    try:
        listener = bind()
        listener.listen(5)
        assert stat.S_IMODE(public.stat().st_mode) == 0o750
        listener.close()
        bind(uds_mode=0o666).listen(5)
        assert stat.S_IMODE(public.stat().st_mode) == 0o666
    finally:
        os.umask(before)


def test_nobody_can_connect_while_mode_and_owner_are_being_set(
    bind: Bind, public: Path, hidden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def watched(real: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any, **kwargs: Any) -> None:
            assert not public.exists()
            with pytest.raises(ConnectionRefusedError), connect(hidden):
                pass
            seen.append(real.__name__)
            real(*args, **kwargs)

        return call

    monkeypatch.setattr(os, "chmod", watched(os.chmod))
    monkeypatch.setattr(os, "chown", watched(os.chown))
    bind(uds_mode=0o600, uds_owner=str(os.getuid()), uds_group=str(os.getgid())).listen(5)
    assert seen == ["chown", "chmod"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_owner_and_group_by_name_and_by_number(bind: Bind, public: Path) -> None:
    user, group = pwd.getpwuid(65534), grp.getgrgid(65534)
    for owner_setting, group_setting in ((user.pw_name, group.gr_name), ("65534", "65534")):
        listener = bind(uds_owner=owner_setting, uds_group=group_setting, uds_mode=0o660)
        listener.listen(5)
        found = public.stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (65534, 65534, 0o660)
        listener.close()


@pytest.mark.alone
def test_only_root_gives_files_away_and_the_refusal_leaves_nothing(bind: Bind, public: Path) -> None:
    if os.geteuid() == 0:
        os.chown(public.parent, 65534, -1)
        for folder in public.parent.parents[:3]:  # pytest's own, which others may not search; -n has one more
            if folder.name.startswith(("pytest-", "popen-")):
                folder.chmod(0o755)
        os.seteuid(65534)
    try:
        with pytest.raises(BindError, match=r"cannot give unix:.* its owner 0, mode 0600: .*only root may"):
            bind(uds_owner="0", uds_mode=0o600)
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
    assert names(public.parent) == []


@pytest.mark.parametrize(("setting", "noun"), [("uds_owner", "user"), ("uds_group", "group")])
def test_an_owner_that_does_not_exist_is_named(bind: Bind, public: Path, setting: str, noun: str) -> None:
    with pytest.raises(BindError, match=f"{setting} 'no-such-one' is no {noun} of this system"):
        bind(**{setting: "no-such-one"})
    assert names(public.parent) == []


@pytest.mark.parametrize("extra", [0, 1, 3])
def test_the_longest_path_has_105_bytes_because_of_the_hidden_name(bind: Bind, tmp_path: Path, extra: int) -> None:
    room = 105 - len(os.fsencode(tmp_path)) - 1
    if room < 1:
        pytest.skip(f"the temporary directory's path alone is too long: {tmp_path}")
    public = tmp_path / ("x" * (room + extra))
    if extra == 0:
        listener = bind(public)
        listener.listen(5)
        assert serves(listener, public)
        return
    with pytest.raises(BindError, match=rf"has {105 + extra} bytes, and {107 + extra} as the hidden name .*allows 107"):
        bind(public)


def test_a_directory_that_is_missing_is_named(bind: Bind, tmp_path: Path) -> None:
    with pytest.raises(BindError, match=f"the directory {tmp_path}/none does not exist"):
        bind(tmp_path / "none" / "a.sock")


# ── what stands there already ────────────────────────────────────────────────────────────────


@needs_linux
def test_a_live_path_is_refused_with_the_server_s_pid_and_stays_its_own(bind: Bind, public: Path) -> None:
    with other_server(f"s.bind({str(public)!r}); s.listen()") as pid:
        with pytest.raises(BindError, match=rf"a server is already running there, pid {pid} \("):
            bind()
        with connect(public):
            pass
        assert names(public.parent) == ["a.sock"]


def test_our_own_live_path_is_refused_too(bind: Bind, public: Path, hidden: Path) -> None:
    first = bind()
    first.listen(5)
    with pytest.raises(BindError, match="a server is already running there"):
        bind()
    public.unlink()
    with pytest.raises(BindError, match=r"hidden name .* a server is already running there"):
        bind()
    assert names(public.parent) == [hidden.name]


@needs_linux
def test_the_pid_of_a_server_whose_descriptors_are_hidden_comes_from_the_kernel(
    bind: Bind, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port_owner, "bound_unix", lambda _names: [])  # as in another network namespace
    with other_server(f"s.bind({str(public)!r}); s.listen()") as pid, pytest.raises(BindError) as caught:
        bind()
    assert f"a server is already running there, pid {pid} (" in str(caught.value)


def test_a_server_with_a_full_queue_is_live(bind: Bind, public: Path) -> None:
    with ExitStack() as clients, socket.socket(socket.AF_UNIX) as stuck:
        stuck.bind(str(public))
        stuck.listen(0)
        for _ in range(10):
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            if client.connect_ex(str(public)) == errno.EAGAIN:
                break
        else:
            pytest.fail("the queue did not become full")
        with pytest.raises(BindError, match="a server is already running there"):
            bind()


@needs_linux
def test_a_server_that_has_bound_but_does_not_listen_yet_is_not_stale(bind: Bind, public: Path) -> None:
    with other_server(f"s.bind({str(public)!r})") as pid:
        with pytest.raises(BindError, match=rf"a server has bound it and is about to listen, pid {pid} \("):
            bind()
        assert names(public.parent) == ["a.sock"]


@needs_linux
def test_of_two_of_ours_the_first_to_bind_wins(bind: Bind, public: Path) -> None:
    first = bind()
    with pytest.raises(BindError, match="has bound it and is about to listen, this process itself"):
        bind()
    first.listen(5)
    assert serves(first, public)


def test_trap_56_where_the_other_cannot_be_seen_the_loser_notices_at_listen(
    bind: Bind, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port_owner, "bound_unix", lambda _names: [])  # another network namespace, or no /proc
    first = bind()
    second = bind()  # takes the hidden name, which looks stale
    with pytest.raises(BindError, match=r"its hidden name .* was taken or removed meanwhile"):
        first.listen(5)
    second.listen(5)
    first.close()
    assert serves(second, public)
    second.close()
    assert names(public.parent) == []


def test_trap_55_a_stale_path_is_taken_over_by_rename_only(
    bind: Bind, public: Path, hidden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_stale(public)
    leave_stale(hidden)
    removed: list[str] = []
    real = os.unlink

    def unlink(target: str | Path) -> None:
        removed.append(str(target))
        real(target)

    monkeypatch.setattr(os, "unlink", unlink)
    listener = bind()
    assert public.is_socket()  # until the very rename
    listener.listen(5)
    assert str(hidden) in removed
    assert str(public) not in removed
    assert serves(listener, public)
    assert names(public.parent) == [hidden.name, public.name]
    assert public.samefile(hidden)


def test_a_path_that_somebody_takes_after_the_last_look_is_left_to_him(
    bind: Bind, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who knows nothing of our lock. Fails with rename(2) for link(2) where the path looked free."""
    listener = bind()
    look = path.probe
    with socket.socket(socket.AF_UNIX) as rival:

        def look_too_early(where: str) -> tuple[path.PathUse, int]:
            seen = look(where)
            if where == str(public):
                rival.bind(where)
            return seen

        monkeypatch.setattr(path, "probe", look_too_early)
        with pytest.raises(BindError, match="cannot put the socket at"):
            listener.listen(5)
        rival.listen()
        monkeypatch.undo()
        with connect(public):
            rival.accept()[0].close()


def test_a_path_that_a_live_server_takes_between_bind_and_listen_is_left_to_it(bind: Bind, public: Path) -> None:
    listener = bind()
    with socket.socket(socket.AF_UNIX) as rival:
        rival.bind(str(public))
        rival.listen()
        with pytest.raises(BindError, match="a server is already running there"):
            listener.listen(5)
        listener.close()
        with connect(public):
            rival.accept()[0].close()
        assert names(public.parent) == [public.name]


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (Path.touch, "regular file, not a socket"),
        (Path.mkdir, "directory, not a socket"),
        (lambda where: where.symlink_to("elsewhere"), "symbolic link, not a socket"),
        (os.mkfifo, "special file, not a socket"),
    ],
)
def test_what_is_not_a_socket_is_refused_and_left(
    bind: Bind, public: Path, make: Callable[[Path], Any], kind: str
) -> None:
    make(public)
    with pytest.raises(BindError, match=f"there is a {kind}; it is left alone"):
        bind()
    assert names(public.parent) == [public.name]
    public.rename(path.hidden_name(str(public)))
    with pytest.raises(BindError, match=f"there is a {kind}; it is left alone"):
        bind()


def test_a_live_socket_of_another_kind_is_refused(bind: Bind, public: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(str(public))
        with pytest.raises(BindError, match="socket of another kind"):
            bind()


def test_a_stranger_s_lock_on_the_directory_hinders_nobody(
    bind: Bind, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every user who may read the directory can take it. Fails with flock(2) on the directory as our own lock."""
    monkeypatch.setattr(path, "_LOCK_PATIENCE", 0.05)
    directory = os.open(public.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        listener = bind()
        listener.listen(5)
        listener.close()
    finally:
        os.close(directory)
    assert names(public.parent) == []


def test_another_server_s_lock_is_waited_for_and_then_named(
    bind: Bind, public: Path, hidden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path, "_LOCK_PATIENCE", 0.05)
    lock = LockFile.take(f"{hidden}lock")
    assert lock is not None
    with pytest.raises(BindError, match=r"another process holds .*\.a\.sock~lock for 0\.05 s"):
        bind()
    lock.release()
    bind()


def test_a_socket_is_removed_though_no_lock_can_be_made(
    bind: Bind, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk. Fails where the lock is a condition."""
    listener = bind()
    listener.listen(5)

    def take(_name: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LockFile, "take", take)
    listener.close()
    assert names(public.parent) == []


@needs_linux
@pytest.mark.parametrize("options", [{"uds_mode": 0o600}, {"uds_owner": "0", "uds_mode": 0o600}])
def test_mode_and_owner_go_to_the_socket_and_to_nothing_that_is_put_in_its_place(
    bind: Bind, public: Path, hidden: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Whoever owns the directory may exchange the name between any two steps. Fails with chmod(2) of the path."""
    victim = public.parent / "victim"
    victim.touch(mode=0o644)
    before = victim.stat()

    def exchange() -> None:
        hidden.rename(public.parent / "taken")
        hidden.symlink_to(victim)

    for name in ("chmod", "chown"):
        real = getattr(os, name)

        def change(where: str, *values: Any, real: Any = real, **more: Any) -> None:
            if not hidden.is_symlink():
                exchange()
            real(where, *values, **more)

        monkeypatch.setattr(os, name, change)
    bind(**options)
    assert hidden.is_symlink(), "else nothing was tried"
    after = victim.stat()
    assert (after.st_mode, after.st_uid, after.st_ctime_ns) == (before.st_mode, before.st_uid, before.st_ctime_ns)
    assert stat.S_IMODE((public.parent / "taken").stat().st_mode) == 0o600


@needs_linux
@pytest.mark.parametrize("kind", ["symlink_to", "hardlink_to"])
def test_what_is_exchanged_right_after_the_bind_is_not_taken_for_the_socket(
    bind: Bind, public: Path, hidden: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    victim = public.parent / "victim"
    victim.touch(mode=0o644)
    real = socket.socket.bind

    class Exchanged(socket.socket):
        def bind(self, where: Any) -> None:
            real(self, where)
            hidden.unlink()
            getattr(hidden, kind)(victim)

    monkeypatch.setattr(socket, "socket", Exchanged)
    with pytest.raises(BindError, match="was exchanged meanwhile"):
        bind(uds_mode=0o666)
    assert stat.S_IMODE(victim.stat().st_mode) == 0o644


def test_a_rival_cannot_come_between_the_look_at_a_stale_path_and_its_takeover(
    bind: Bind, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path, "_LOCK_PATIENCE", 0.05)
    monkeypatch.setattr(port_owner, "bound_unix", lambda _names: [])  # the worst case: nobody sees a rival bind
    real, refused = os.rename, list[str]()

    def rename(source: str, target: str) -> None:
        with pytest.raises(BindError) as caught:
            bind()
        refused.append(str(caught.value))
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    leave_stale(public)
    listener = bind()
    listener.listen(5)
    assert len(refused) == 1
    assert "another process holds" in refused[0]
    assert serves(listener, public)


# ── tend ─────────────────────────────────────────────────────────────────────────────────────


def test_a_deleted_path_comes_back_with_its_queue(bind: Bind, public: Path, hidden: Path) -> None:
    listener = bind(uds_mode=0o640)
    assert listener.tend() is None  # nothing to tend yet
    assert not public.exists()
    listener.listen(5)
    assert listener.tend() is None
    for _ in range(2):
        with connect(public) as early:
            early.sendall(b"early")
            public.unlink()
            message = listener.tend()
            assert message is not None
            assert str(public) in message
            assert listener.tend() is None
            accepted, _ = listener.socket.accept()
            with accepted:
                assert accepted.recv(5) == b"early"
        assert serves(listener, public)
        assert stat.S_IMODE(public.stat().st_mode) == 0o640
    assert names(public.parent) == [hidden.name, public.name]


def test_a_deleted_spare_comes_back_from_the_public_path(bind: Bind, public: Path, hidden: Path) -> None:
    listener = bind()
    listener.listen(5)
    hidden.unlink()
    assert listener.tend() is None
    assert hidden.samefile(public)


def test_when_both_names_are_gone_that_is_said_once(bind: Bind, public: Path, hidden: Path) -> None:
    listener = bind()
    listener.listen(5)
    public.unlink()
    hidden.unlink()
    message = listener.tend()
    assert message is not None
    assert "cannot be put back" in message
    assert [listener.tend(), listener.tend()] == [None, None]


def test_what_stands_at_the_hidden_name_is_not_made_public_unless_it_is_ours(
    bind: Bind, public: Path, hidden: Path
) -> None:
    listener = bind()
    listener.listen(5)
    public.unlink()
    hidden.unlink()
    hidden.touch()
    message = listener.tend()
    assert message is not None
    assert "cannot be put back" in message
    assert names(public.parent) == [hidden.name]


def test_a_path_that_was_replaced_is_left_alone_and_that_is_said_once(bind: Bind, public: Path, hidden: Path) -> None:
    listener = bind()
    listener.listen(5)
    public.unlink()
    with socket.socket(socket.AF_UNIX) as rival:
        rival.bind(str(public))
        rival.listen()
        message = listener.tend()
        assert message is not None
        assert "was replaced" in message
        assert listener.tend() is None
        listener.close()
        with connect(public):
            rival.accept()[0].close()
    assert names(public.parent) == [public.name]
    assert not hidden.exists()


def test_after_a_rival_has_gone_the_path_comes_back(bind: Bind, public: Path) -> None:
    listener = bind()
    listener.listen(5)
    public.unlink()
    public.touch()
    assert listener.tend() is not None
    public.unlink()
    assert listener.tend() is not None
    assert serves(listener, public)


@pytest.mark.parametrize("stale", [False, True])
def test_a_file_system_without_hard_links_serves_without_a_spare(
    bind: Bind, public: Path, monkeypatch: pytest.MonkeyPatch, stale: bool
) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")  # as vfat and some network file systems say

    monkeypatch.setattr(os, "link", link)
    if stale:
        leave_stale(public)
    listener = bind()
    listener.listen(5)
    assert names(public.parent) == [public.name]
    assert serves(listener, public)
    assert listener.tend() is None
    public.unlink()
    message = listener.tend()
    assert message is not None
    assert "cannot be put back" in message
    assert listener.tend() is None


# ── close ────────────────────────────────────────────────────────────────────────────────────


def test_close_removes_both_names_also_before_listen_and_may_be_repeated(bind: Bind, public: Path) -> None:
    for listen in (True, False):
        listener = bind()
        if listen:
            listener.listen(5)
        listener.close()
        assert names(public.parent) == []
        listener.close()
        assert listener.tend() is None
        assert listener.socket.fileno() == -1


def test_close_when_the_directory_is_gone_is_quiet(bind: Bind, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    listener = bind(tmp_path / "d" / "a.sock")
    listener.listen(5)
    for name in names(tmp_path / "d"):
        (tmp_path / "d" / name).unlink()
    (tmp_path / "d").rmdir()
    assert listener.tend() is not None
    listener.close()


SERVER = """
import os, sys
from aserver.sockets import bind_all
(listener,) = bind_all(sys.argv[1:], uds_mode=None, uds_owner=None, uds_group=None, reuse_port=False,
                       environ={}, pid=os.getpid())
listener.listen(5)
print("listening", flush=True)
sys.stdin.read()
"""


def test_a_killed_server_s_leftovers_are_taken_over_whole(bind: Bind, public: Path, hidden: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, f"unix:{public}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n"
        process.kill()
    assert names(public.parent) == [hidden.name, public.name]
    Path(f"{hidden}new").touch()  # what a kill between two steps of a takeover leaves
    listener = bind()
    listener.listen(5)
    assert serves(listener, public)
    listener.close()
    assert names(public.parent) == []

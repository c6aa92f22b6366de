"""Sockets that another process has bound: `fd://N`, and those that systemd passes."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from aserver.errors import BindError
from tests.unit.sockets.stage import Bind, closed, connect


def handed_over(sock: socket.socket) -> int:
    """A descriptor as a supervisor passes it: inheritable, and no Python object owns it."""
    sock.set_inheritable(True)
    return sock.detach()


def tcp_socket(*, listening: bool) -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    if listening:
        sock.listen(5)
    return sock


@pytest.mark.parametrize("listening", [True, False])
def test_fd_adopts_a_bound_socket(bind: Bind, listening: bool) -> None:
    sock = tcp_socket(listening=listening)
    port = sock.getsockname()[1]
    fd = handed_over(sock)
    (listener,) = bind(f"fd://{fd}")
    assert listener.socket.fileno() == fd
    assert (listener.name, listener.address) == (f"fd://{fd} (http://127.0.0.1:{port})", ("127.0.0.1", port))
    assert listener.socket.get_inheritable() is False
    assert listener.socket.getblocking() is False
    listener.listen(5)
    connect(listener).close()
    listener.close()
    assert closed(fd)


def test_an_adopted_path_is_never_removed_nor_put_back(bind: Bind, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    fd = handed_over(sock)
    (listener,) = bind(f"fd://{fd}")
    assert (listener.name, listener.family, listener.address) == (f"fd://{fd} (unix:{path})", "unix", str(path))
    listener.listen(5)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.sock"]
    listener.close()
    assert path.is_socket()
    path.unlink()
    assert listener.tend() is None
    assert not path.exists()


def connection() -> socket.socket:
    left, right = socket.socketpair()
    right.close()
    return left


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "no TCP or unix stream socket"),
        (socket.socket, "bound to no port"),
        (lambda: socket.socket(socket.AF_UNIX), "bound to no path"),
        (connection, "it is a connection"),
    ],
)
def test_a_descriptor_that_is_not_a_listener_is_refused_and_left_as_it_was(
    bind: Bind, make: Callable[[], socket.socket], complaint: str
) -> None:
    with make() as sock:
        sock.set_inheritable(True)
        with pytest.raises(BindError, match=rf"cannot adopt fd://{sock.fileno()}: .*{complaint}"):
            bind(f"fd://{sock.fileno()}")
        assert not closed(sock.fileno())
        assert sock.get_inheritable() is True
        assert os.get_blocking(sock.fileno()) is True


def test_a_descriptor_that_is_no_socket_or_not_open_is_refused(bind: Bind, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(BindError, match="it is open, but no socket"):
        bind(f"fd://{file.fileno()}")
    with pytest.raises(BindError, match=r"fd://9999: Bad file descriptor; nobody passed a socket there"):
        bind("fd://9999")


def systemd(count: object, pid: int | None = None, names: str | None = None) -> dict[str, str]:
    environ = {"LISTEN_FDS": str(count), "LISTEN_PID": str(pid or os.getpid())}
    return environ | ({} if names is None else {"LISTEN_FDNAMES": names})


ADOPT = """
import os, sys
from aserver.sockets import bind_all
environ = dict(os.environ, LISTEN_PID=str(os.getpid()))
for listener in bind_all(sys.argv[1:], uds_mode=None, uds_owner=None, uds_group=None, reuse_port=False,
                         environ=environ, pid=os.getpid()):
    print(listener.name)
"""


def adopt_in_child(sockets: Sequence[socket.socket], specs: Sequence[str], **environ: str) -> list[str]:
    """What a child names its listeners that has `sockets` at descriptor 3 and up."""
    fds = [sock.fileno() for sock in sockets]
    shuffle = "".join(f"os.dup2({fd}, {900 + i}); " for i, fd in enumerate(fds))
    place = "".join(f"os.dup2({900 + i}, {3 + i}); os.close({900 + i}); " for i in range(len(fds)))
    done = subprocess.run(
        [sys.executable, "-c", f"import os; {shuffle}{place}\n{ADOPT}", *specs],
        pass_fds=fds,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_sockets_from_systemd_replace_bind(tmp_path: Path) -> None:
    with tcp_socket(listening=True) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "a.sock"))
        unix.listen()
        port = tcp.getsockname()[1]
        names = adopt_in_child([tcp, unix], ["127.0.0.1:1"], LISTEN_FDS="2", LISTEN_FDNAMES="web:local")
        assert names == [f"fd://3 web (http://127.0.0.1:{port})", f"fd://4 local (unix:{tmp_path}/a.sock)"]
        assert adopt_in_child([tcp], ["127.0.0.1:1"], LISTEN_FDS="1") == [f"fd://3 (http://127.0.0.1:{port})"]


def test_an_explicit_fd_is_the_exact_list_even_under_systemd() -> None:
    with tcp_socket(listening=True) as first, tcp_socket(listening=True) as second:
        names = adopt_in_child([first, second], ["fd://4"], LISTEN_FDS="2")
        assert names == [f"fd://4 (http://127.0.0.1:{second.getsockname()[1]})"]


def test_a_name_stands_for_each_socket_that_was_passed_under_it(bind: Bind) -> None:
    """Fails without `_named`."""
    with tcp_socket(listening=True) as first, tcp_socket(listening=True) as second, tcp_socket(listening=True) as third:
        web = [f"fd://{fd} web (http://127.0.0.1:{sock.getsockname()[1]})" for fd, sock in ((3, first), (5, third))]
        passed = {"LISTEN_FDS": "3", "LISTEN_FDNAMES": "web:inner:web"}
        assert adopt_in_child([first, second, third], ["fd://web"], **passed) == web
    with pytest.raises(BindError, match=r"fd://web: no socket of that name was passed; LISTEN_FDNAMES has a, b$"):
        bind("fd://web", environ=systemd(2, names="a:b"))
    with pytest.raises(BindError, match=r"systemd passes sockets at a start alone, and passed none$"):
        bind("fd://web")


def test_variables_meant_for_another_process_are_ignored(bind: Bind) -> None:
    (listener,) = bind("127.0.0.1:0", environ=systemd(1, pid=os.getpid() + 1))
    assert listener.name.startswith("http://127.0.0.1:")
    (listener,) = bind("127.0.0.1:0", environ={"LISTEN_FDS": "1"})
    assert listener.name.startswith("http://127.0.0.1:")


def test_zero_sockets_from_systemd_leave_bind_as_it_is(bind: Bind) -> None:
    (listener,) = bind("127.0.0.1:0", environ=systemd(0))
    assert listener.name.startswith("http://127.0.0.1:")


def test_a_count_that_is_no_number_is_refused(bind: Bind) -> None:
    with pytest.raises(BindError, match="LISTEN_FDS is 'many', not a number"):
        bind("127.0.0.1:0", environ=systemd("many"))

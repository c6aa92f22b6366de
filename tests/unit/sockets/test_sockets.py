"""`bind_all` on real sockets: TCP, abstract names, adopted descriptors, systemd, and the sentences of its errors."""

import errno
import os
import re
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from aserver.errors import BindError, ConfigError, ExitCode
from aserver.sockets import Listener, bind_all, hand_over, port_owner, take_over
from tests.harness.tools import has_ipv6

LINUX = sys.platform == "linux"
needs_linux = pytest.mark.skipif(not LINUX, reason="reads /proc, or uses abstract names")
Bind = Callable[..., list[Listener]]


@pytest.fixture
def bind() -> Iterator[Bind]:
    """bind_all with quiet defaults; closes what it made at the end of the test."""
    with ExitStack() as undo:

        def call(*specs: str, environ: Mapping[str, str] | None = None, **changes: Any) -> list[Listener]:
            settings: dict[str, Any] = {"uds_mode": None, "uds_owner": None, "uds_group": None, "reuse_port": False}
            listeners = bind_all(specs, environ=environ or {}, pid=os.getpid(), **settings | changes)
            for listener in listeners:
                undo.callback(listener.close)
            return listeners

        yield call


@contextmanager
def other_server(code: str) -> Iterator[tuple[int, str]]:
    """Another process that runs `code`, which must print one line when it is ready; yields its pid and that line."""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", f"import socket, sys\n{code}\nsys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process.pid, process.stdout.readline().strip()


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be nobody for a while; changing the effective uid takes the capabilities away (capabilities(7))."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def connect(listener: Listener) -> socket.socket:
    client = socket.socket(listener.socket.family, socket.SOCK_STREAM)
    client.settimeout(10)
    address = listener.address
    try:
        client.connect("\0" + address[1:] if isinstance(address, str) and address.startswith("@") else address)
    except BaseException:
        client.close()
        raise
    return client


def closed(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError as error:
        return error.errno == errno.EBADF
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let every host name stand for `addresses`, in that order."""

    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


# ── TCP ──────────────────────────────────────────────────────────────────────────────────────


def test_port_0_is_resolved_in_address_and_name(bind: Bind) -> None:
    (listener,) = bind("127.0.0.1:0")
    port = listener.address[1]
    assert port != 0
    assert listener.address == ("127.0.0.1", port)
    assert listener.name == f"http://127.0.0.1:{port}"
    assert listener.family == "inet"


def test_a_scheme_says_what_is_spoken(bind: Bind) -> None:
    """With a certificate all is TLS but what says otherwise."""
    specs = ("127.0.0.1:0", "http://127.0.0.1:0", "h2c://127.0.0.1:0")
    listeners = [bind(spec, tls=True)[0] for spec in specs]
    assert [each.name.rpartition(":")[0] for each in listeners] == [
        "https://127.0.0.1",
        "http://127.0.0.1",
        "h2c://127.0.0.1",
    ]
    assert [each.tls for each in listeners] == [True, False, False]


def test_nobody_can_connect_before_listen_and_everybody_after(bind: Bind) -> None:
    (listener,) = bind("127.0.0.1:0")
    with pytest.raises(ConnectionRefusedError):
        connect(listener)
    listener.listen(5)
    connect(listener).close()


def test_sockets_are_nonblocking_close_on_exec_and_reuse_the_address_but_not_the_port(bind: Bind) -> None:
    (listener,) = bind("127.0.0.1:0")
    assert listener.socket.getblocking() is False
    assert listener.socket.get_inheritable() is False
    assert listener.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) != 0
    assert listener.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0


def test_reuse_port_lets_two_servers_share_a_port(bind: Bind) -> None:
    (first,) = bind("127.0.0.1:0", reuse_port=True)
    first.listen(5)
    (second,) = bind(first.name.removeprefix("http://"), reuse_port=True)
    second.listen(5)
    assert second.address == first.address


@needs_linux
def test_the_backlog_is_what_listen_was_told(bind: Bind) -> None:
    (listener,) = bind("127.0.0.1:0")
    listener.listen(100)
    listener.listen(37)
    # For a listening socket tcpi_sacked is sk_max_ack_backlog, which `ss` prints as Send-Q (net/ipv4/tcp.c).
    info = listener.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    if int.from_bytes(info[28:32], sys.byteorder) == 0:
        pytest.skip("this kernel does not tell a listener's backlog")
    assert int.from_bytes(info[28:32], sys.byteorder) == 37


@needs_ipv6
def test_ipv6_is_written_in_brackets_and_leaves_ipv4_alone(bind: Bind) -> None:
    (six,) = bind("[::]:0")
    assert six.family == "inet6"
    assert six.name == f"http://[::]:{six.address[1]}"
    assert six.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
    six.listen(5)
    (four,) = bind(f"0.0.0.0:{six.address[1]}")
    four.listen(5)


@needs_ipv6
def test_a_name_with_two_addresses_gets_the_same_free_port_on_both(bind: Bind, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "127.0.0.1", "::1", "127.0.0.1")
    four, six = bind("localhost:0")
    assert (four.family, six.family) == ("inet", "inet6")
    assert four.address[1] == six.address[1] != 0


@needs_ipv6
def test_a_port_that_is_free_on_one_address_only_is_given_up_for_another(
    bind: Bind, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, "127.0.0.1", "::1")
    real, failures = socket.socket.bind, [OSError(errno.EADDRINUSE, "Address already in use")] * 3

    class Unlucky(socket.socket):
        def bind(self, address: Any) -> None:
            if address[0] == "::1" and failures:
                raise failures.pop()
            real(self, address)

    monkeypatch.setattr(socket, "socket", Unlucky)
    four, six = bind("localhost:0")
    assert not failures
    assert four.address[1] == six.address[1]


def test_an_address_that_the_machine_lacks_is_passed_over_if_the_name_has_another(
    bind: Bind, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, "192.0.2.1", "127.0.0.1")  # RFC 5737: documentation, on no machine
    (listener,) = bind("localhost:0")
    assert listener.address[0] == "127.0.0.1"


def test_an_address_that_the_machine_lacks_is_named(bind: Bind) -> None:
    with pytest.raises(BindError, match=r"http://192\.0\.2\.1:8000: this machine has no address 192\.0\.2\.1"):
        bind("192.0.2.1:8000")


def test_a_name_that_does_not_resolve_is_named(bind: Bind) -> None:
    with pytest.raises(BindError, match=r"no-such-host\.invalid:8000: the name cannot be resolved"):
        bind("no-such-host.invalid:8000")


def test_an_empty_host_means_all_ipv4_addresses(bind: Bind) -> None:
    (listener,) = bind(":0")
    assert listener.address[0] == "0.0.0.0"


@pytest.mark.parametrize(
    "spec",
    [
        "8000",
        "localhost",
        "::1:8000",
        "ftp://localhost:80",
        "a:b",
        "127.0.0.1:",
        "unix:",
        "unix:/",
        "unix:/run/",
        "fd://",
    ],
)
def test_what_is_no_address_is_a_wrong_setting(bind: Bind, spec: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(repr(spec))):
        bind(spec)


def test_a_port_above_65535_is_named_with_the_limit(bind: Bind) -> None:
    with pytest.raises(ConfigError, match=r"port 70000; the highest is 65535"):
        bind("127.0.0.1:70000")


def test_nothing_to_bind_is_a_wrong_setting(bind: Bind) -> None:
    with pytest.raises(ConfigError, match="bind is empty"):
        bind()


def test_the_same_address_twice_is_a_wrong_setting(bind: Bind) -> None:
    with pytest.raises(ConfigError, match="given twice"):
        bind("127.0.0.1:0", "127.0.0.1:0")


# ── who is in the way ────────────────────────────────────────────────────────────────────────

LISTEN = "s = socket.socket({family}); s.bind({address}); s.listen(); print(s.getsockname()[1], flush=True)"


@needs_linux
@pytest.mark.parametrize(
    ("taken", "wanted"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("127.0.0.1", "0.0.0.0"),
        pytest.param("::1", "[::1]", marks=needs_ipv6),
        pytest.param("::", "127.0.0.1", marks=needs_ipv6),  # dual-stack
        pytest.param("::ffff:127.0.0.1", "127.0.0.1", marks=needs_ipv6),
    ],
)
def test_a_port_in_use_names_pid_and_command(bind: Bind, taken: str, wanted: str) -> None:
    family = "socket.AF_INET6" if ":" in taken else "socket.AF_INET"
    with (
        other_server(LISTEN.format(family=family, address=(taken, 0))) as (pid, port),
        pytest.raises(BindError) as caught,
    ):
        bind(f"{wanted}:{port}")
    assert caught.value.exit_code is ExitCode.BIND
    assert f"port {port} on {wanted.strip('[]')} is in use by pid {pid} ({sys.executable} -S -c import" in str(
        caught.value
    )


@needs_linux
def test_of_several_processes_the_oldest_is_named(bind: Bind) -> None:
    code = LISTEN.format(family="socket.AF_INET", address=("127.0.0.1", 0))
    # The child keeps the socket, waits as its parent does, and must not print.
    code = code.replace("; print", "\nimport os\nif not os.fork(): sys.stdin.read(); os._exit(0)\nprint")
    with other_server(code) as (pid, port), pytest.raises(BindError, match=rf"in use by pid {pid} "):
        bind(f"127.0.0.1:{port}")


@needs_linux
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to have a process of another user")
def test_a_holder_that_cannot_be_looked_into_is_known_by_its_user(bind: Bind) -> None:
    code = LISTEN.format(family="socket.AF_INET", address=("127.0.0.1", 0))
    message = "in use by a process of user root"
    with other_server(code) as (_, port), unprivileged(), pytest.raises(BindError, match=message):
        bind(f"127.0.0.1:{port}")


@needs_linux
def test_a_server_that_shares_nothing_is_not_accused() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        assert port_owner.of_port(socket.AF_INET, "127.0.0.2", port) is None
        assert port_owner.of_port(socket.AF_INET6, "::1", port) is None
        assert str(os.getpid()) in str(port_owner.of_port(socket.AF_INET, "127.0.0.1", port))


def test_where_nothing_can_be_known_the_error_says_so(
    bind: Bind, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(port_owner, "_PROC", tmp_path)
    (listener,) = bind("127.0.0.1:0")
    listener.listen(5)
    with pytest.raises(BindError, match="in use by another process that cannot be seen from here"):
        bind(listener.name.removeprefix("http://"))


@needs_linux
def test_two_that_bound_before_either_listened_are_sorted_out_at_listen(bind: Bind) -> None:
    (first,) = bind("127.0.0.1:0")
    (second,) = bind(first.name.removeprefix("http://"))
    first.listen(5)
    with pytest.raises(BindError, match=rf"cannot listen on {second.name}: .*in use by this process itself"):
        second.listen(5)


def first_privileged_port() -> int | None:
    try:
        return 1 if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) > 1 else None
    except OSError:
        return None


@pytest.mark.skipif(first_privileged_port() is None, reason="all ports are free for everybody here")
def test_a_privileged_port_explains_itself(bind: Bind) -> None:
    uid = os.getuid() or 65534
    with unprivileged(), pytest.raises(BindError, match=f"uid {uid} may not use port 1, which is below"):
        bind("127.0.0.1:1")


def test_one_failure_closes_all(bind: Bind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []

    class Recorded(socket.socket):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(socket, "socket", Recorded)
    with pytest.raises(BindError):
        bind("127.0.0.1:0", f"unix:{tmp_path}/a.sock", "192.0.2.1:8000")
    assert len(made) >= 3
    assert all(sock.fileno() == -1 for sock in made)
    assert list(tmp_path.iterdir()) == []


# ── abstract names ───────────────────────────────────────────────────────────────────────────


@needs_linux
def test_an_abstract_name_works_and_is_free_after_close(bind: Bind) -> None:
    name = f"@aserver-test-{os.getpid()}"
    for _ in range(2):
        (listener,) = bind(f"unix:{name}")
        assert (listener.name, listener.family, listener.address) == (f"unix:{name}", "unix", name)
        listener.listen(5)
        connect(listener).close()
        listener.close()


@needs_linux
def test_an_abstract_name_in_use_names_the_holder(bind: Bind) -> None:
    name = f"aserver-test-{os.getpid()}"
    code = f"s = socket.socket(socket.AF_UNIX); s.bind('\\0{name}'); s.listen(); print(flush=True)"
    with other_server(code) as (pid, _), pytest.raises(BindError, match=rf"unix:@{name}: it is in use by pid {pid} \("):
        bind(f"unix:@{name}")


@needs_linux
@pytest.mark.parametrize("length", [0, 108])
def test_an_abstract_name_has_1_to_107_bytes(bind: Bind, length: int) -> None:
    with pytest.raises(BindError, match=f"has {length} bytes; it needs 1 to 107"):
        bind("unix:@" + "n" * length)


# ── adopted descriptors ──────────────────────────────────────────────────────────────────────


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


# ── systemd ──────────────────────────────────────────────────────────────────────────────────


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


# ── across a re-exec ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_what_is_handed_over_is_the_same_listener(bind: Bind, tmp_path: Path, kind: str) -> None:
    """And no child inherits it. Fails without set_inheritable, and without any field of Handover."""
    spec = "127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path}/a.sock"
    (listener,) = bind(spec, tls=kind == "tcp")
    listener.listen(5)
    handover = hand_over(listener)
    os.set_inheritable(handover.fd, True)  # as the upgrade does before it execs
    successor = take_over(handover)
    listener.socket.detach()  # the image that held it is gone
    try:
        assert not os.get_inheritable(handover.fd)
        before, after = ((each.name, each.address, each.family, each.tls) for each in (listener, successor))
        assert before == after
        if kind == "unix":
            (tmp_path / "a.sock").unlink()
            assert "it is back" in str(successor.tend())
    finally:
        successor.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="socket filters are Linux's")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_listener_begins_no_more_connections_and_keeps_those_there_are(host: str) -> None:
    """Fails without the filter in `open_no_more`: the second client is in the queue, and would be reset by a close."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock, socket.socket(family) as first, socket.socket(family) as second:
        sock.bind((host, 0))
        listener = Listener(sock, "http://test", sock.getsockname()[:2])
        listener.listen(5)
        first.connect(sock.getsockname())
        listener.open_no_more()
        second.setblocking(False)
        second.connect_ex(sock.getsockname())
        served, _ = sock.accept()
        with served:
            first.sendall(b"ping")
            served.setblocking(True)
            assert served.recv(4) == b"ping"
        assert select.select([sock], [], [], 0.2)[0] == [], "a connection has begun"


def test_an_adopted_listener_goes_on_after_this_server() -> None:
    """Fails without the look at the name in `open_no_more`: systemd's socket would be dead for the next service."""
    with socket.socket() as sock, socket.socket() as client:
        sock.bind(("127.0.0.1", 0))
        listener = Listener(sock, "fd://3 (tcp)", sock.getsockname())
        listener.listen(5)
        listener.open_no_more()
        client.connect(sock.getsockname())
        sock.accept()[0].close()


@needs_linux
@pytest.mark.parametrize("spec", ["127.0.0.1:0", "unix:{}", "unix:@aserver-test-queue-{}"])
def test_the_queue_of_a_listener(bind: Bind, tmp_path_factory: pytest.TempPathFactory, spec: str) -> None:
    """Clients that no process has accepted yet. Fails without `unix_queue`: TCP_INFO is of TCP alone."""
    place = os.getpid() if "@" in spec else tmp_path_factory.mktemp("q") / "a"
    (listener,) = bind(spec.format(place))
    listener.listen(7)
    if spec.startswith("unix") and listener.queue() is None:
        pytest.skip("this kernel has no unix_diag")
    assert listener.queue() == (0, 7)
    with ExitStack() as undo:
        for _ in range(3):
            client = undo.enter_context(socket.socket(listener.socket.family))
            client.connect(listener.socket.getsockname())
        assert listener.queue() == (3, 7)
    listener.close()
    assert listener.queue() is None

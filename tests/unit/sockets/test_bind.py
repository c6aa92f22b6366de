"""`bind_all` on real sockets: TCP, abstract names, and the sentences of its errors."""

import errno
import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from aserver.errors import BindError, ConfigError
from tests.unit.sockets.stage import Bind, connect, needs_ipv6, needs_linux, unprivileged


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


def test_a_process_that_may_open_no_file_more_is_told_so(bind: Bind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.14 opens the module of its codec there. Fails without the look at the error's number."""

    def getaddrinfo(*_: object, **__: object) -> list[tuple[object, ...]]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "encodings/idna.py")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(ConfigError, match=r"Too many open files; raise the limit of open files \(ulimit -n\)"):
        bind("127.0.0.1:0")


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


# ── what cannot be bound ─────────────────────────────────────────────────────────────────────


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
@pytest.mark.parametrize("length", [0, 108])
def test_an_abstract_name_has_1_to_107_bytes(bind: Bind, length: int) -> None:
    with pytest.raises(BindError, match=f"has {length} bytes; it needs 1 to 107"):
        bind("unix:@" + "n" * length)

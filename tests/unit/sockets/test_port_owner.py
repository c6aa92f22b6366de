"""The process that has a port or a name that is taken: the sentence that names pid and command."""

import os
import socket
import sys
from pathlib import Path

import pytest

from aserver.errors import BindError, ExitCode
from aserver.sockets import port_owner
from tests.unit.sockets.stage import Bind, needs_ipv6, needs_linux, other_server, unprivileged

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
def test_an_abstract_name_in_use_names_the_holder(bind: Bind) -> None:
    name = f"aserver-test-{os.getpid()}"
    code = f"s = socket.socket(socket.AF_UNIX); s.bind('\\0{name}'); s.listen(); print(flush=True)"
    with other_server(code) as (pid, _), pytest.raises(BindError, match=rf"unix:@{name}: it is in use by pid {pid} \("):
        bind(f"unix:@{name}")

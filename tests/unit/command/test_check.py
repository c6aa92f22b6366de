"""`aserver check`: what it refuses as `run` does, and that it makes no file."""

import os
import socket
from pathlib import Path

import pytest

from aserver.errors import AserverError, BindError, ExitCode
from aserver.sockets import bind_all
from tests.unit.command.stage import Command


@pytest.mark.parametrize(
    ("path", "owner", "group", "said"),
    [
        ("none/a.sock", None, None, "none does not exist"),
        ("a.sock", "nobody-of-that-name", None, "uds_owner 'nobody-of-that-name' is no user of this system"),
        ("a.sock", None, "nobody-of-that-name", "uds_group 'nobody-of-that-name' is no group of this system"),
    ],
)
def test_check_refuses_a_socket_path_as_run_does(
    aserver: Command, path: str, owner: str | None, group: str | None, said: str
) -> None:
    spec = f"unix:{Path(path).absolute()}"
    with pytest.raises(BindError) as of_run:
        bind_all(
            (spec,), uds_mode=None, uds_owner=owner, uds_group=group, reuse_port=False, environ={}, pid=os.getpid()
        )
    whose = [*(("--uds-owner", owner) if owner else ()), *(("--uds-group", group) if group else ())]
    outcome = aserver("check", "app:x", "--bind", spec, *whose)
    assert outcome.status == ExitCode.BIND
    assert said in outcome.err
    assert outcome.err == f"aserver: error: {of_run.value}\n"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("no-such-name.invalid:80", "the name cannot be resolved"),
        ("192.0.2.77:8000", "this machine has no address 192.0.2.77"),  # TEST-NET-1, RFC 5737
        (f"unix:@{'n' * 120}", "the name has 120 bytes"),
        (f"unix:/{'p' * 120}", "the path has 121 bytes"),
        ("unix:/tmp/", "needs the path of a file"),
    ],
)
def test_check_refuses_an_address_as_run_does(aserver: Command, spec: str, said: str) -> None:
    """Seen as "ok" in front of a `run` that failed. Fails without `_look_at_address`, `check_length` and `path_of`."""
    with pytest.raises(AserverError) as of_run:
        bind_all((spec,), uds_mode=None, uds_owner=None, uds_group=None, reuse_port=False, environ={}, pid=os.getpid())
    outcome = aserver("check", "app:x", "--bind", spec)
    assert said in outcome.err
    assert (outcome.status, outcome.err) == (of_run.value.exit_code, f"aserver: error: {of_run.value}\n")


def test_check_passes_over_what_the_running_server_has(aserver: Command) -> None:
    """That there is no such app is found behind it. Fails with any BindError raised."""
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket(socket.AF_UNIX) as named:
        named.bind(f"\0aserver-test-{os.getpid()}")
        specs = [f"127.0.0.1:{taken.getsockname()[1]}", f"unix:@aserver-test-{os.getpid()}"]
        outcome = aserver("check", "no_such_app:x", *(text for spec in specs for text in ("--bind", spec)))
        assert outcome.status == ExitCode.APP_LOAD
        assert taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def test_check_makes_no_file(aserver: Command) -> None:
    """It may not be the service's user who asks. That there is no such app is found last."""
    Path("run").mkdir()
    options = ["--pidfile", "run/p", "--errorlog", "run/e", "--uds-owner", str(os.getuid())]
    options += ["--bind", f"unix:{Path('run/a.sock').absolute()}", "--bind", "unix:@name"]
    assert aserver("check", "no_such_app:x", *options).status == ExitCode.APP_LOAD
    assert not list(Path("run").iterdir())

"""Finds the running server that a command is for, and sends it orders by its control socket.

Runs in the operator's process. The master's half is `master/control`; docs/operate.md says what can be asked.
"""

import contextlib
import json
import os
import select
import socket
import time
from collections.abc import Iterator
from typing import Any, Self

from aserver import unix
from aserver.config import layers
from aserver.errors import AserverError, ConfigError, ExitCode
from aserver.master.control import place
from aserver.sockets.path import peer_pid

#: Seconds for an answer: the master answers at once, unless it or its machine is halted.
PATIENCE = 15.0
#: Seconds in which a master that re-executes itself answers again.
UPGRADE_PATIENCE = 60.0


class Unreachable(AserverError):  # noqa: N818  (with its sentence it reads as an error)
    """No server answers, or it does not answer as it should."""

    exit_code = ExitCode.CONFIG


class HungUp(Unreachable):
    """The server has ended the connection without an answer."""


class Refused(Unreachable):
    """The server does not obey, and says why."""

    exit_code = ExitCode.UNEXPECTED


class Line:
    """A connection to the control socket at `path`. Raises Unreachable wherever the server does not answer."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(PATIENCE)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise Unreachable(f"no server answers at {path}: {error.strerror or error}") from None
        self.pid = peer_pid(self._socket)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self._socket.close()

    def ask(self, command: str, **more: object) -> dict[str, Any]:
        """The reply to a request. Raises Refused with the server's reason."""
        self._send(command, **more)
        return self._read()

    def status(self) -> dict[str, Any]:
        """The status; asked again if the server hangs up, as it does at an upgrade, in which it re-executes itself."""
        try:
            return dict(self.ask("status")["status"])
        except HungUp:
            with Line(self.path) as again:
                return dict(again.ask("status")["status"])

    def _send(self, command: str, **more: object) -> None:
        request = {"command": command, **{name: value for name, value in more.items() if value is not None}}
        with contextlib.suppress(OSError):  # a refusal may have come before it hung up
            self._socket.sendall(json.dumps(request).encode() + b"\n")

    def _read(self) -> dict[str, Any]:
        try:
            line = self._file.readline()
        except TimeoutError:
            raise Unreachable(
                f"the server at {self.path} (pid {self.pid}) has not answered for {PATIENCE:g} s"
            ) from None
        except OSError as error:
            raise HungUp(f"the server at {self.path} hung up: {error.strerror}") from None
        if not line:
            raise HungUp(f"the server at {self.path} hung up")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise Refused(reply["error"])
        return reply

    def records(self, after: int = 0, *, follow: bool = False) -> Iterator[dict[str, Any]]:
        """The kept records after that number, and, with `follow`, all that come until the server hangs up."""
        self._send("events", after=after, follow=follow)
        yield from self.following(patient=follow)

    def following(self, *, patient: bool = True) -> Iterator[dict[str, Any]]:
        """The records that follow a reply; `patient`: however long none comes."""
        self._socket.settimeout(None if patient else PATIENCE)
        while "record" in (reply := self._read()):
            yield reply["record"]


def find(control: str | None, pid: int | None) -> str:
    """The path of the control socket: of `control` or of the settings, else of the only server that runs.

    Raises Unreachable if there is none, and, with a list, if there are several.
    """
    if control is None and pid is None:
        control = _configured()
    if control is not None:
        return control
    found = place.running()
    if pid is not None:
        found = [path for path in found if path.endswith(f"-{pid}.sock")]
    if len(found) == 1:
        return found[0]
    if found:
        raise Unreachable("several servers run, choose one with --pid or --control:\n" + "\n".join(_introduce(found)))
    whose = f"no server with pid {pid} has" if pid is not None else "no running server of this user has"
    others = "".join(f"\n  {path}" for path in place.of_others())
    also = f"; others are{others}" if others else ""
    raise Unreachable(f"{whose} a control socket in its usual place; name it with --control PATH{also}")


def _configured() -> str | None:
    """The path in ASERVER_CONTROL, or in the settings file of this directory."""
    try:
        resolved = layers.load(environ=os.environ, cwd=unix.working_directory(os.environ))
    except ConfigError:  # the mistake is another command's to name
        return os.environ.get("ASERVER_CONTROL")
    return None if resolved.config.control in (None, place.AUTO) else resolved.config.control


def _introduce(paths: list[str]) -> Iterator[str]:
    for path in paths:
        try:
            with Line(path) as line:
                status = line.status()
        except Unreachable as error:
            yield f"  {path}: {error}"
        else:
            yield f"  pid {status['pid']}: {status['target']}, {status['phase']}, {path}"


def until_ended(line: Line, ticket: int, after: int) -> Iterator[dict[str, Any]]:
    """The records until that which answers `ticket`, also over an upgrade, in which the master hangs up."""
    deadline = time.monotonic() + UPGRADE_PATIENCE
    records = line.following()
    while True:
        try:
            for record in records:
                after, deadline = record["number"], time.monotonic() + UPGRADE_PATIENCE
                yield record
                if ticket in record.get("tickets", ()):
                    return
        except Refused:
            raise
        except Unreachable:
            if time.monotonic() > deadline:
                raise
            select.select([], [], [], 0.1)
        records = _records_of(line.path, after)


def _records_of(path: str, after: int) -> Iterator[dict[str, Any]]:
    with Line(path) as line:
        yield from line.records(after, follow=True)

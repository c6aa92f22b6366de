"""The real command, started, watched and ended.

All that the tests know of the server's log texts is in the patterns at the top.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

from tests.harness import processes
from tests.harness.client import RawConnection, RawResponse, Where, fetch
from tests.harness.processes import Process
from tests.harness.waiting import PATIENCE, wait_for

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parent.parent.parent

#: A log line that tells of listeners, and each listener's URL in it. An error may name a process that is "running".
_LISTENING = re.compile(r"(?i)^(?!.* (?:ERROR|WARNING) ).*\b(listening|running|serving)\b")
_URL = re.compile(r"\b(https?|h2c)://(\[[^\]\s]+\]|[\w.-]+):(\d+)|\bunix:([^\s,;)]+)")
#: The log says so once, when the first generation serves with all its workers.
_READY = re.compile(r"\b(?:all \d+ workers are|the one worker is) ready")
#: An access line of the usual formats.
_ACCESS = re.compile(r' HTTP/1\.[01]" \d+ ')

_HEAD_LINES = 40
_TAIL_LINES = 80

#: Sessions of the servers that this test run started and has not seen empty, for the census at its end.
STARTED_SESSIONS: list[int] = []


class Address:
    """One listener as the log tells it: `scheme` "http", "https" or "h2c", and `where` to connect to."""

    def __init__(self, scheme: str, where: Where) -> None:
        self.scheme = scheme
        self.where = where

    def __repr__(self) -> str:
        return f"Address({self.scheme!r}, {self.where!r})"

    @property
    def url(self) -> str:
        """Base URL; only for TCP listeners."""
        assert not isinstance(self.where, str), f"{self} has no URL"
        host, port = self.where
        scheme = self.scheme.replace("h2c", "http")
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def addresses_in(log: str) -> list[Address]:
    """The listeners that a log tells of, in its order, each once."""
    found: dict[str, Address] = {}
    for line in filter(_LISTENING.search, log.splitlines()):
        for scheme, host, port, path in _URL.findall(line):
            where: Where = (
                ("\0" + path[1:] if path.startswith("@") else path) if path else (host.strip("[]"), int(port))
            )
            found.setdefault(repr(where), Address(scheme or "http", where))
    return list(found.values())


class ServerProcess:
    """`aserver run TARGET OPTIONS` as a child process. Use as a context manager.

    `bind`: listeners, port 0 by default; empty if the options say where to listen. `env` is added to this
    process's environment, less whatever would configure a server. `cwd` is the repository by default, so that
    targets are `tests.apps.x:app`. `argv` replaces the whole command, and `pass_fds` stay open in it.

    Leaving the block ends everything that was started, by pid, and raises AssertionError if a process of the
    server outlived it; an exception out of the block gets the log as a note.
    """

    def __init__(
        self,
        target: str = "",
        *options: str,
        bind: Sequence[str] = ("127.0.0.1:0",),
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        argv: Sequence[str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        binds = [part for each in bind for part in ("--bind", each)]
        self.argv = list(argv) if argv is not None else [*self.command(target), *binds, *options]
        self._environment = _clean_environment() | {"PYTHONPATH": str(REPOSITORY)} | dict(env or {})
        self._cwd = cwd or REPOSITORY
        self._pass_fds = pass_fds
        self._directory = tempfile.TemporaryDirectory(prefix="aserver-test-")
        self._log_path = Path(self._directory.name, "log")
        self._popen: subprocess.Popen[bytes] | None = None

    @staticmethod
    def command(target: str) -> list[str]:
        """The command up to its options."""
        return [sys.executable, "-m", "aserver", "run", *([target] if target else [])]

    # ── life ─────────────────────────────────────────────────────────────────────────────────

    def __enter__(self) -> Self:
        with self._log_path.open("wb") as log:
            self._popen = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=self._cwd,
                pass_fds=self._pass_fds,
                # Its own session: survivors are found by it even when their parents are dead.
                start_new_session=True,
            )
        STARTED_SESSIONS.append(self._popen.pid)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            overran = self._end()
            survivors = self._bury()
            if error is not None:
                error.add_note(f"── log of {' '.join(self.argv[2:])} ──\n{self.log_excerpt()}")
                return
            assert not overran, f"the server did not end after SIGINT within {PATIENCE:g} s\n{self.log_excerpt()}"
            assert not survivors, f"these outlived their server: {survivors}\n{self.log_excerpt()}"
        finally:
            self._directory.cleanup()

    def _end(self) -> bool:
        """End the master if it still runs, and say whether it had to be killed."""
        if self.returncode is None:
            self.popen.send_signal(signal.SIGINT)
            self.popen.send_signal(signal.SIGCONT)  # a test may have stopped it
            try:
                self.popen.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
                return True
        return False

    def _bury(self) -> list[Process]:
        """Wait for the rest of the server's processes, kill those that stay, and return them."""
        with suppress(AssertionError):
            wait_for(lambda: not self.family(), what="the server's processes to go")
        survivors = self.family()
        for survivor in survivors:
            survivor.kill()
        with suppress(AssertionError):
            wait_for(lambda: not self.family(), what="the killed ones to go")
            # From here on the number may become somebody else's session.
            STARTED_SESSIONS.remove(self.pid)
        return survivors

    @property
    def popen(self) -> "subprocess.Popen[bytes]":
        """The process object; the server must have been started."""
        assert self._popen is not None, "not started: use `with`"
        return self._popen

    @property
    def pid(self) -> int:
        """The master's pid."""
        return self.popen.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal, None while it runs."""
        return self.popen.poll()

    def signal(self, number: int) -> None:
        """Send a signal to the master."""
        self.popen.send_signal(number)

    def terminate(self) -> None:
        """SIGTERM: a graceful stop."""
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL the master only."""
        self.signal(signal.SIGKILL)

    def wait_exit(self, timeout: float | None = None) -> int:
        """Wait for the master to end and return its exit code (negative: the signal that killed it)."""
        self.wait_for(lambda: self.returncode is not None, timeout, "the server to exit")
        assert self.returncode is not None
        return self.returncode

    def stop(self, timeout: float | None = None) -> int:
        """SIGTERM, then wait for the exit code."""
        self.terminate()
        return self.wait_exit(timeout)

    # ── waiting ──────────────────────────────────────────────────────────────────────────────

    def wait_for(self, condition: Callable[[], T], timeout: float | None = None, what: str = "the condition") -> T:
        """As `waiting.wait_for`; a failure ends with the log."""
        return wait_for(condition, timeout, what, explain=lambda: f"── log ──\n{self.log_excerpt()}")

    def wait_ready(self, timeout: float | None = None) -> Self:
        """Wait until the log says that the server serves; fails at once if it exits instead."""

        def ready_or_gone() -> bool:
            gone = self.returncode is not None
            return bool(_READY.search(self.log)) or gone

        self.wait_for(ready_or_gone, timeout, "the server to be ready")
        assert self.returncode is None, (
            f"the server exited with {self.returncode} instead of serving\n{self.log_excerpt()}"
        )
        return self

    def wait_log(
        self, pattern: str, timeout: float | None = None, *, start: int = 0, count: int = 1
    ) -> "list[re.Match[str]]":
        """Wait until the log holds `pattern` (a regular expression) `count` times from offset `start` on."""

        def enough() -> "list[re.Match[str]]":
            found = list(re.finditer(pattern, self.log[start:], re.MULTILINE))
            return found if len(found) >= count else []

        return self.wait_for(enough, timeout, f"{count} x {pattern!r} in the log")

    # ── looking ──────────────────────────────────────────────────────────────────────────────

    @property
    def log(self) -> str:
        """All that the server and its children have written to stdout and stderr until now."""
        return self._log_path.read_text(errors="replace")

    def log_excerpt(self) -> str:
        """The log for a failure's message: its beginning and its end, where access lines would fill pages."""
        lines = self.log.splitlines()
        if len(lines) > _HEAD_LINES + _TAIL_LINES:
            lines = [line for line in lines if not _ACCESS.search(line)] + ["[access lines left out]"]
        if len(lines) > _HEAD_LINES + _TAIL_LINES:
            left_out = f"[... {len(lines) - _HEAD_LINES - _TAIL_LINES} lines ...]"
            lines[_HEAD_LINES:-_TAIL_LINES] = [left_out]
        return "\n".join(lines)

    @property
    def addresses(self) -> list[Address]:
        """The listeners, as the log tells them."""
        return addresses_in(self.log)

    @property
    def address(self) -> Address:
        """The first listener."""
        addresses = self.addresses
        assert addresses, f"the log names no listener\n{self.log_excerpt()}"
        return addresses[0]

    @property
    def where(self) -> Where:
        """Where to connect to for the first listener."""
        return self.address.where

    @property
    def url(self) -> str:
        """The first listener's base URL, for clients that take one."""
        return self.address.url

    def connect(self, timeout: float = PATIENCE) -> RawConnection:
        """A raw connection to the first listener."""
        return RawConnection(self.where, timeout=timeout)

    def fetch(
        self, path: str = "/", *, method: str = "GET", headers: dict[str, str] | None = None, body: bytes = b""
    ) -> RawResponse:
        """One request to the first listener on a connection of its own."""
        return fetch(self.where, path, method=method, headers=headers, body=body)

    def ask(self, path: str = "/") -> Any:
        """What an application that answers in JSON says."""
        return json.loads(self.fetch(path).body)

    def children(self) -> list[Process]:
        """All living descendants of the master (zygotes, workers, ...), oldest first."""
        return processes.descendants(self.pid)

    def zygotes(self) -> list[Process]:
        """The master's own children."""
        return [child for child in self.children() if child.parent == self.pid]

    def workers(self) -> list[Process]:
        """The zygotes' children."""
        parents = {zygote.pid for zygote in self.zygotes()}
        return [child for child in self.children() if child.parent in parents]

    def family(self) -> list[Process]:
        """All living processes of the server, the master included, also orphans."""
        return processes.in_session(self.pid)


def _clean_environment() -> dict[str, str]:
    """This environment without what would configure the server under test."""
    configuring = (
        "ASERVER_",
        "WEB_CONCURRENCY",
        "PORT",
        "FORWARDED_ALLOW_IPS",
        "LISTEN_",
        "NOTIFY_SOCKET",
        "WATCHDOG_",
        "PYTEST_",
        "PYTHONPATH",
        "GUNICORN_",
        "UVICORN_",
    )
    return {name: value for name, value in os.environ.items() if not name.startswith(configuring)}

"""Starts and stops the servers that servers.toml describes.

Runs in the harness process. It ends only processes that it started, by id, and leaves none behind, also on Ctrl-C.
"""

import http.client
import os
import shlex
import signal
import socket
import ssl
import subprocess
import time
import tomllib
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench import meter
from bench.environment import CHECKOUT, Environment
from bench.machine import Processors, pinned

HERE = Path(__file__).resolve().parent
_PLACES = {"here": str(HERE), "checkout": str(CHECKOUT)}
# Seconds. Four workers with a FastAPI app of 100 MB take some 10 s to start. Three times that is a failure.
READY_SECONDS = 30.0
STOP_SECONDS = 15.0
_OPTIONS = ("tcp", "uds", "tls", "h2", "h2c", "access_log", "no_access_log", "max_requests", "preload", "lazy")


class Role(Enum):
    """The part of a server in the comparison."""

    SUBJECT = "subject"
    PEER = "peer"
    LIMIT = "limit"


class StartError(Exception):
    """The server did not answer. The message ends with the last lines of its output."""


@dataclass(frozen=True)
class Launch:
    """The demands of a scenario on every server."""

    app: str
    answer: str | None = None  # the app of `apps/limit.py` with the same answer; None if there is none
    workers: int = 1
    unix: bool = False
    tls: bool = False
    http2: bool = False
    access_log: Path | None = None
    max_requests: int = 0
    loading: str = ""  # "", "preload" or "lazy"
    reloads: bool = False
    wsgi: bool = False
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Server:
    """A table of servers.toml."""

    name: str
    role: Role
    module: str
    distribution: str
    command: str
    options: dict[str, str]
    env: dict[str, str]
    cannot: dict[str, str]
    reload: signal.Signals | None
    single: bool
    wsgi: bool = False  # it serves only WSGI applications

    def refusal(self, scenario: str, launch: Launch) -> str | None:
        """Return why this server has no row in a scenario, or None if it has a row."""
        if scenario in self.cannot:
            return self.cannot[scenario]
        if self.role is Role.LIMIT and launch.answer is None:
            return "no fixed answer for this app"
        if launch.wsgi != self.wsgi and self.role is Role.PEER:
            return "ASGI only" if launch.wsgi else "WSGI only"
        if launch.workers > 1 and (self.single or self.role is Role.LIMIT):
            return "one process only"
        if launch.reloads and self.reload is None:
            return "no reload"
        missing = [option for option in self._wanted(launch) if option not in self.options]
        return f"no option for {', '.join(missing)}" if missing else None

    def _wanted(self, launch: Launch) -> list[str]:
        wanted = ["uds" if launch.unix else "tcp"]
        if launch.http2:
            wanted = ["tcp", "tls", "h2"] if launch.tls else ["h2c"]
        elif launch.tls:
            # Daphne's TLS endpoint replaces its plain endpoint.
            wanted = ["tls"] if self.options.get("tls", "").startswith("-e ssl:") else ["tcp", "tls"]
        wanted.append("access_log" if launch.access_log else "no_access_log")
        if launch.max_requests:
            wanted.append("max_requests")
        # A server that cannot preload is measured all the same.
        if launch.loading and launch.loading in self.options:
            wanted.append(launch.loading)
        return wanted

    def arguments(self, launch: Launch, values: dict[str, str]) -> list[str]:
        """Split the command line into words, then fill in the values, so that a path may have spaces."""
        text = " ".join([self.command, *(self.options[option] for option in self._wanted(launch))])
        return [word.format_map(values) for word in shlex.split(text)]


def read(path: Path = HERE / "servers.toml") -> dict[str, Server]:
    """Read servers.toml. Raises ValueError with the table and the key for an unknown key."""
    with path.open("rb") as file:
        tables: dict[str, dict[str, Any]] = tomllib.load(file)
    return {name: _server(name, table) for name, table in tables.items()}


def _server(name: str, table: dict[str, Any]) -> Server:
    known = {"role", "module", "distribution", "command", "env", "cannot", "reload", "single", "wsgi", *_OPTIONS}
    unknown = sorted(set(table) - known)
    if unknown:
        raise ValueError(f"servers.toml: [{name}] has unknown keys: {', '.join(unknown)}")
    return Server(
        name=name,
        role=Role(table["role"]),
        module=table["module"],
        distribution=table["distribution"],
        command=table["command"],
        options={option: table[option] for option in _OPTIONS if option in table},
        env=table.get("env", {}),
        cannot=table.get("cannot", {}),
        reload=signal.Signals[table["reload"]] if "reload" in table else None,
        single=table.get("single", False),
        wsgi=table.get("wsgi", False),
    )


@dataclass(frozen=True)
class Address:
    """The address of a server."""

    host: str = "127.0.0.1"
    port: int = 0
    unix: Path | None = None
    tls: bool = False

    def connect(self, timeout: float = 10.0) -> socket.socket:
        """Open a connection, TLS included (the certificate is the bench's own and is not checked)."""
        if self.unix is not None:
            plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            plain.settimeout(timeout)
            plain.connect(os.fspath(self.unix))
        else:
            plain = socket.create_connection((self.host, self.port), timeout)
        if not self.tls:
            return plain
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(plain)

    def exchange(self, path: str, method: str = "GET", body: bytes = b"", timeout: float = 10.0) -> tuple[int, bytes]:
        """Send a request on a connection of its own; return status and body."""
        connection = http.client.HTTPConnection("bench.local", timeout=timeout)
        try:
            connection.sock = self.connect(timeout)
            connection.request(method, path, body or None, {"Connection": "close"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def url(self, path: str) -> str:
        """Return the URL for wrk."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}{path}"


def free_port() -> int:
    """Return a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Running:
    """A started server, as a context manager: leaving it ends all processes of the server."""

    def __init__(self, process: "subprocess.Popen[bytes]", address: Address, output: Path) -> None:
        self._process = process
        self._started = time.perf_counter()
        self.address = address
        self.output = output
        self.pid = process.pid

    def wait_ready(self, path: str) -> float:
        """Poll until the first 200; return the milliseconds since the start. Raises StartError."""
        while True:
            if self._process.poll() is not None:
                raise StartError(f"ended with status {self._process.returncode}: {self.tail()}")
            try:
                status, body = self.address.exchange(path, timeout=READY_SECONDS)
            except (OSError, http.client.HTTPException) as error:
                answer = repr(error)
            else:
                if status == 200:
                    return (time.perf_counter() - self._started) * 1000
                answer = f"status {status}, {body[:80]!r}"
            if time.perf_counter() - self._started > READY_SECONDS:
                raise StartError(f"no 200 within {READY_SECONDS:g} s ({answer}): {self.tail()}")
            time.sleep(0.003)

    def tail(self) -> str:
        """Return the last lines of the server's output."""
        return " | ".join(self.output.read_text(errors="replace").splitlines()[-4:]) or "(it wrote nothing)"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server's first process."""
        self._process.send_signal(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> bool:
        """Send SIGTERM, then SIGKILL to the rest of the tree; return whether SIGTERM was enough."""
        # Read before SIGTERM, because later an orphan with a session of its own cannot be recognised.
        known = {stat.pid for stat in meter.tree(self.pid)}
        graceful = True
        try:
            if self._process.poll() is None:
                self._process.terminate()
                self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            graceful = False
        finally:  # also if a second Ctrl-C ends the waiting
            for pid in self._left(known):
                graceful = False
                _kill(pid)
        self._process.wait(STOP_SECONDS)
        deadline = time.monotonic() + STOP_SECONDS
        while self._left(known) and time.monotonic() < deadline:
            time.sleep(0.01)
        return graceful

    def _left(self, known: set[int]) -> set[int]:
        """Return the processes of the tree that still run and are `known` or of the server's session."""
        now = meter.tree(self.pid)
        return {stat.pid for stat in now if stat.state != "Z" and (stat.pid in known or stat.session == self.pid)}


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@dataclass(frozen=True)
class Starter:
    """Starts servers of an environment, pinned, in a work directory."""

    environment: Environment
    processors: Processors
    directory: Path
    certfile: Path | None = None
    keyfile: Path | None = None

    def start(self, server: Server, launch: Launch) -> Running:
        """Start a server. The caller calls `wait_ready`, and leaves the context manager."""
        address = Address(
            port=free_port(),
            unix=self.directory / f"{server.name}.sock" if launch.unix else None,
            tls=launch.tls,
        )
        output = launch.access_log or self.directory / f"{server.name}.log"
        if output.parent == self.directory:  # not /dev/null
            output.unlink(missing_ok=True)
        values = {
            "python": str(self.environment.python),
            "bin": str(self.environment.bin),
            **_PLACES,
            "app": launch.app,
            "answer": launch.answer or "",
            "host": address.host,
            "port": str(address.port),
            "uds": str(address.unix or ""),
            "workers": str(launch.workers),
            "certfile": str(self.certfile or ""),
            "keyfile": str(self.keyfile or ""),
            "access_log": str(output),
            "max_requests": str(launch.max_requests),
        }
        arguments = server.arguments(launch, values)
        with output.open("ab") as sink, pinned(self.processors.server):
            process = subprocess.Popen(
                arguments,
                cwd=self.directory,
                env=self._env(server, launch),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        return Running(process, address, output)

    def _env(self, server: Server, launch: Launch) -> dict[str, str]:
        """Return the environment variables. The user's, such as WEB_CONCURRENCY or PYTHONDEBUG, are left out."""
        kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
        return {
            **kept,
            "PATH": f"{self.environment.bin}:{os.environ.get('PATH', '')}",
            "PYTHONPATH": str(HERE / "apps"),
            "XDG_RUNTIME_DIR": str(self.directory),
            **{name: value.format_map(_PLACES) for name, value in server.env.items()},
            **launch.env,
        }

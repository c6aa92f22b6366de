"""Hosts made of network namespaces: a bridge with the proxy and the clients on it, and a namespace for each server.

All of it lives in the namespace in which the tests themselves run (`make fleet` begins with `unshare --net`), so that
nothing of the machine's network is touched, and it goes when its processes end.
"""

import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.harness.server import ServerProcess

BRIDGE = "10.77.0.1"
SERVICE, ADMIN = 8000, 9100

APP = """\
import asyncio

HOST, VERSION = "{host}", "{version}"


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"].removeprefix("lifespan.")
            await send({{"type": f"lifespan.{{kind}}.complete"}})
            if kind == "shutdown":
                return
    await asyncio.sleep(0.02)  # so that some are always under way
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}})
    await send({{"type": "http.response.body", "body": f"{{HOST}} {{VERSION}}".encode()}})
"""


def ip(*words: str) -> None:
    """ip(8).

    Raises:
        AssertionError: It failed; with its words and what it said.
    """
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def make_bridge() -> None:
    """For the hosts; the namespace of the tests is its first member."""
    ip("link", "set", "lo", "up")
    ip("link", "add", "fleet", "type", "bridge")
    ip("addr", "add", f"{BRIDGE}/24", "dev", "fleet")
    ip("link", "set", "fleet", "up")


class Host:
    """A namespace with an address, a directory for the code, and at most one server. Use as a context manager."""

    def __init__(self, number: int, directory: Path) -> None:
        self.name = f"h{number}"
        self.address = f"10.77.0.{10 + number}"
        self._directory = directory / self.name
        self._directory.mkdir()
        self._server: ServerProcess | None = None
        self._namespace = subprocess.Popen(["unshare", "--net", "--", "cat"], stdin=subprocess.PIPE)

    def __enter__(self) -> Self:
        pid = str(self._namespace.pid)
        inside = ["nsenter", "--target", pid, "--net", "ip"]
        own = Path("/proc/self/ns/net").readlink()
        while Path(f"/proc/{pid}/ns/net").readlink() == own:
            assert self._namespace.poll() is None, "unshare(1) made no namespace"
        ip("link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", pid)
        ip("link", "set", self.name, "master", "fleet", "up")
        for words in (
            ["addr", "add", f"{self.address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["link", "set", "lo", "up"],
        ):
            subprocess.run([*inside, *words], check=True, capture_output=True)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._server is not None:
            self._server.__exit__(kind, error, trace)
        # The kernel clears an abandoned namespace at its leisure, and until then no other host could have this name.
        ip("link", "delete", self.name)
        assert self._namespace.stdin is not None
        self._namespace.stdin.close()
        self._namespace.wait()

    @property
    def server(self) -> ServerProcess:
        """The server that runs, or ran last."""
        assert self._server is not None
        return self._server

    def deploy(self, version: str) -> None:
        """New code; `broken` cannot be imported."""
        text = APP.format(host=self.name, version=version)
        (self._directory / "fleet_app.py").write_text(("import nowhere\n" if version == "broken" else "") + text)

    def start(self) -> None:
        """Start the server, and wait until all its workers are ready."""
        if self._server is not None:
            self._server.__exit__(None, None, None)
        enter = ["nsenter", "--target", str(self._namespace.pid), "--net"]
        command = [sys.executable, "-m", "aserver", "run", "fleet_app:app", "--workers", "2"]
        listen = ["--bind", f"0.0.0.0:{SERVICE}", "--admin", f"0.0.0.0:{ADMIN}", "--accesslog", "off"]
        self._server = ServerProcess(argv=[*enter, *command, *listen, "--drain-delay", "2"], cwd=self._directory)
        self._server.__enter__().wait_log(r"workers are ready")

    def kill(self) -> None:
        """As if the power went: every process of the server dies at once."""
        for each in self.server.family():
            each.kill()

"""A page on a stage: its files written, its programs imported, its commands run in order, as a reader would.

The stage is a folder and a loopback address of its own. A command that serves goes on until the next one that does, so
that those in between find it; it then has to stop as asked.
"""

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.harness import PATIENCE, wait_for
from tests.harness.server import REPOSITORY

#: A command, or a program, that serves until it is stopped.
_SERVES = re.compile(r"(?:^|\s)aserver (?:run|dev|-c|[\w.]+:\w+)(?! .*-D\b)")
_LISTENS = re.compile(r"\blistening on \S+")


class Stage:
    """Use as a context manager; leaving it ends what still serves."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="page-")
        self.folder = Path(self._temporary.name)
        self.host = ".".join(["127", *(str(random.randint(1, 254)) for _ in range(3))])
        self._server: subprocess.Popen[bytes] | None = None
        self._command = ""
        for name in ("srv", "run", "etc", "var/log", "runtime", "tmp"):
            (self.folder / name).mkdir(parents=True, mode=0o700)
        for name, text in files.items():
            self.write(name, text)
        self.write(".curlrc", f'connect-to = "localhost::{self.host}:"\n')  # Django's projects know the name alone

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self.stop()
            elif self._server is not None:
                self._server.kill()
                self._server.wait()
        finally:
            self._temporary.cleanup()

    def write(self, name: str, text: str) -> None:
        """A file of the page."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._placed(text), "utf-8")

    def run(self, line: str) -> None:
        """A line of a shell block; its exit code must be 0, or it must listen."""
        command = self._placed(line).partition("  #")[0].strip()
        if _SERVES.search(command) and "--help" not in command:
            self.serve(command)
        elif command and not command.startswith("#"):
            done = subprocess.run(
                ["sh", "-c", command],
                cwd=self.folder,
                env=self._environ(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=6 * PATIENCE,
                check=False,
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}\n{self._output()}"

    def serve(self, command: str) -> None:
        """Start a server in place of the one that serves, and wait until it listens."""
        self.stop()
        self._command = command
        with (self.folder / "output").open("wb") as output:
            self._server = subprocess.Popen(
                ["sh", "-c", f"exec env {command}"],
                cwd=self.folder,
                env=self._environ(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        server = self._server
        wait_for(lambda: _LISTENS.search(self._output()) or server.poll() is not None, what=f"{command} to listen")
        assert server.poll() is None, f"{command}\n{self._output()}"
        if "workers" in self._output():
            wait_for(lambda: " ready" in self._output(), what=f"{command} to be ready", explain=self._output)

    def stop(self) -> None:
        """End what serves, as a service manager does. It may have been stopped by a command of the page."""
        server, self._server = self._server, None
        if server is None:
            return
        if server.poll() is None:
            server.send_signal(signal.SIGTERM)
        server.wait(PATIENCE)
        assert server.returncode == 0, f"{self._command}\n{self._output()}"

    def _output(self) -> str:
        path = self.folder / "output"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def _placed(self, text: str) -> str:
        """Addresses and folders of the machine become those of the stage."""
        text = re.sub(r"\[::\]:\d+", "[::1]:0", text)
        text = re.sub(r"(?:\b0\.0\.0\.0|\b127\.0\.0\.1|(?<=\s)(?=:))(?=:\d)", self.host, text)
        text = re.sub(r"(?<=\d):(80|443)\b", r":8\1", text)
        text = text.replace("port=8000", "port=0")
        return re.sub(r"(?<![\w.~/-])/(?=(?:srv|run|etc|var/log)/)", f"{self.folder}/", text)

    def _environ(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("ASERVER_", "PYTEST_"))}
        return {
            **ours,
            "ASERVER_BIND": f"{self.host}:8000",
            "CURL_HOME": str(self.folder),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{self.folder}:{REPOSITORY}",
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(self.folder / "tmp"),  # the other place where commands look for a server
            "XDG_RUNTIME_DIR": str(self.folder / "runtime"),
        }

"""The other end of sd_notify(3): a datagram socket that takes in what a server tells and hands over."""

import contextlib
import os
import socket
import tempfile
from pathlib import Path
from typing import Self

from tests.harness.waiting import wait_for


class FakeManager:
    """Listens at `path`, the value of NOTIFY_SOCKET. Use as a context manager.

    `told` are the lines of all datagrams so far; `stored` are the descriptors of FDSTORE by name, owned by this object.
    """

    def __init__(self, *, abstract: bool = False) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="aserver-notify-")
        self.path = f"@{self._directory.name}" if abstract else str(Path(self._directory.name, "notify"))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.told: list[str] = []
        self.stored: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._socket.bind("\0" + self.path[1:] if self.path[0] == "@" else self.path)
        self._socket.setblocking(False)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        for fd in self.stored.values():
            os.close(fd)
        self._directory.cleanup()

    def read(self) -> list[str]:
        """Take in what has come; returns `told`."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data, fds, _, _ = socket.recv_fds(self._socket, 65536, 8)
                lines = data.decode().splitlines()
                self.told += lines
                name = next((line.removeprefix("FDNAME=") for line in lines if line.startswith("FDNAME=")), "")
                if "FDSTORE=1" in lines:
                    (self.stored[name],) = fds
                elif "FDSTOREREMOVE=1" in lines:
                    os.close(self.stored.pop(name))
        return self.told

    def wait_for(self, line: str, times: int = 1) -> None:
        """Wait until the server has told `line` so often."""
        wait_for(lambda: self.read().count(line) >= times, what=f"{line} to be told", explain=lambda: str(self.told))

    def told_of(self, *lines: str) -> list[str]:
        """Those of `lines` that were told, in the order in which they came."""
        return [line for line in self.read() if line in lines]

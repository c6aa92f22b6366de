"""Processes without processes: their channels are sockets, their pidfds pipes.

A test has the other ends of the channels; it looks at the events and at the messages that are sent.
"""

import contextlib
import os
import signal
import socket
from pathlib import Path

import msgspec

from aserver import unix
from aserver.config import Layer, Resolved, build
from aserver.ipc import messages as msg
from aserver.ipc.channel import Channel
from aserver.master.core import events as ev
from aserver.master.handles import WorkerHandle, ZygoteHandle
from aserver.master.processes import Processes
from tests.harness.waiting import turns_of_the_loop


def settings(tmp_path: Path, **more: object) -> Resolved:
    """Settings of a master below `tmp_path`."""
    values: dict[str, object] = {
        "target": "a:b",
        "errorlog": str(tmp_path / "log"),
        "bind": [f"unix:{tmp_path}/old.sock"],
    }
    return build([Layer("test", values | more)])


FORK = msg.Fork(1, 1, 1, 0, 0.0)


class FakeZygote(ZygoteHandle):
    """Without a process: notes that it is killed, and has the wait status that the test gives it."""

    killed: bool = False
    status: int | None = None

    def kill(self, signum: signal.Signals = signal.SIGKILL) -> None:
        self.killed = True

    def reap(self) -> int | None:
        return self.status


class Stage:
    """A `Processes` with the zygote of generation 1; `heard` are the events."""

    def __init__(self, *, pidfds: bool = True) -> None:
        self.heard: list[ev.Event] = []
        self.pidfds = pidfds
        self.all = Processes(self.heard.append)
        self.sock, ours = unix.stream_pair()
        self.ends: list[int] = []
        self.zygote = FakeZygote(1, 901, self._pidfd(), Channel(ours, msg.FromZygote), unix.memory_file("trace"))
        self.all.keep(self.zygote)
        self.socks: dict[int, socket.socket] = {}

    def _pidfd(self) -> int | None:
        """A descriptor that is readable once the test writes into the last of `ends`: the process has ended."""
        if not self.pidfds:
            return None
        reader, writer = os.pipe()
        self.ends.append(writer)
        return reader

    async def fork(self, order: msg.Fork = FORK, pid: int = 902) -> WorkerHandle:
        """Order a worker, and have the zygote answer; `socks` has the worker's end of its channel."""
        self.all.workers.fork(order)
        self.socks[order.serial], theirs = unix.stream_pair()
        fds = [theirs.detach(), unix.memory_file("trace")]
        if (pidfd := self._pidfd()) is not None:
            fds.append(pidfd)
        say(self.sock, msg.Forked(order.serial, pid), fds)
        for fd in fds:
            os.close(fd)
        await turn()
        return self.all.workers.all[order.serial]

    def close(self) -> None:
        self.all.close()
        for sock in (self.sock, *self.socks.values()):
            sock.close()
        for end in self.ends:
            os.close(end)


def frame(message: msg.Message, count: int = 0) -> bytes:
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(4, "big") + count.to_bytes(2, "big") + body


def say(sock: socket.socket, message: msg.Message, fds: list[int] | None = None) -> None:
    """Send as a zygote or worker does."""
    socket.send_fds(sock, [frame(message, len(fds or []))], fds or [])


def sent(sock: socket.socket) -> list[tuple[str, int]]:
    """The types of the messages that the master has sent, with the number of their descriptors."""
    data, found = b"", []
    with contextlib.suppress(BlockingIOError):
        while True:  # a call ends where descriptors begin
            data += sock.recv(1 << 16, socket.MSG_DONTWAIT)
    while data:
        length, count = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:6], "big")
        found.append((msgspec.msgpack.decode(data[6 : 6 + length])["type"], count))
        data = data[6 + length :]
    return found


async def turn() -> None:
    """Selected, called, and what that calls soon."""
    await turns_of_the_loop(4)

"""A fuzz target for what zygotes and workers send: any bytes, messages and descriptors, at channel and master.

`test_fuzz_channel.py` lets Hypothesis try it for some seconds with every run of the suite. What must hold: nothing but
ChannelError comes out of a channel; nothing at all out of `Processes` and the state machine behind it; no descriptor
stays open; only processes that were believed are signalled; and every text for the log is bounded and printable.
"""

import array
import asyncio
import os
import signal
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from aserver import unix
from aserver.config import Config
from aserver.errors import ChannelError
from aserver.ipc import messages as msg
from aserver.ipc.channel import TURN_MESSAGES, Channel
from aserver.master.core import events as ev
from aserver.master.core.limits import Limits
from aserver.master.core.machine import Master
from aserver.master.handles import WorkerHandle, ZygoteHandle
from aserver.master.processes import Processes

#: What one peer sends at once: bytes, and the kinds of the descriptors with them.
Sending = tuple[bytes, Sequence[str]]
#: Longer than any record that the master makes of a peer's words: a reason and a detail.
LONGEST_RECORD = msg.LONGEST_TEXT + 2 * msg.LONGEST_REASON + 1000


def frame(body: bytes, count: int) -> bytes:
    """A message as on the wire, whatever it is."""
    return struct.pack("!IH", len(body), count) + body


def encode(message: object) -> bytes:
    """The body of a message."""
    return msgspec.msgpack.encode(message)


class Peer:
    """The other end of a channel, in the hands of an attacker."""

    def __init__(self) -> None:
        self.ours, self.theirs = unix.stream_pair()

    def send(self, sending: Sending) -> None:
        """As far as the socket takes it."""
        data, kinds = sending
        fds = [_make(kind) for kind in kinds]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            if data:
                self.theirs.sendmsg([data], rights)
        except OSError:  # full, or we are cut off
            pass
        finally:
            for fd in fds:
                os.close(fd)


def _make(kind: str) -> int:
    match kind:
        case "socket":
            left, right = unix.stream_pair()
            right.close()
            return left.detach()
        case "memory":
            return os.memfd_create("fuzz")
        case "pidfd":
            return os.pidfd_open(os.getpid())
        case "pipe":
            reader, writer = os.pipe()
            os.close(writer)
            return reader
        case "inet":
            return socket.socket().detach()
        case _:
            return os.open(os.devnull, os.O_RDWR)


def check_channel(expects: Any, sendings: Sequence[Sending], *, hang_up: bool) -> None:
    """Raise AssertionError, or anything but ChannelError, for what a channel does not bear."""
    before = len(unix.open_fds())
    peer = Peer()
    channel: Channel[Any] = Channel(peer.ours, expects)
    for sending in sendings:
        peer.send(sending)
    if hang_up:
        peer.theirs.close()
    try:
        while (got := channel.receive()) or not _empty(channel):
            assert len(got) <= TURN_MESSAGES
            for message, fds in got:
                least, most = msg.FDS.get(type(message), (0, 0))
                assert least <= len(fds) <= most
                for fd in fds:
                    assert not os.get_inheritable(fd)
                    os.close(fd)
    except ChannelError:
        assert channel.eof
        assert channel.quiet
    channel.close()
    peer.theirs.close()
    assert len(unix.open_fds()) == before, "a descriptor stays open"


def _empty(channel: Channel[Any]) -> bool:
    if channel.eof:
        return True
    try:
        with socket.socket(fileno=os.dup(channel.fileno())) as sock:
            return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return True


class Shell:
    """A master without real processes: its `Processes`, its state machine, and a record of what it orders."""

    def __init__(self) -> None:
        self.processes = Processes(self.handle)
        self.master = Master(Limits.of(Config(min_lifetime=0.0), workers=2), lambda: 0.5)
        self.zygotes: dict[int, Peer] = {}
        self.workers: dict[int, Peer] = {}
        self.files = 0

    def handle(self, event: ev.Event) -> None:
        """As the runner does, as far as no process is needed; the paths of a fingerprint must be fit for stat(2)."""
        if isinstance(event, msg.Loaded | msg.Ready):
            self.files = len(event.fingerprint)
            for path in event.fingerprint:
                assert path.startswith("/")
                os.path.exists(path)
        for order in self.master.handle(event, time.monotonic()):
            match order:
                case ev.SpawnZygote():
                    self._spawn(order.generation)
                case msg.Fork():
                    self.processes.workers.fork(order)
                case msg.Drain():
                    self.processes.workers.tell(order.serial, order)
                case ev.Kill():
                    self.processes.workers.signal(order.serial, signal.Signals[order.signal])
                case ev.Say():
                    assert len(order.text) + len(order.detail) < LONGEST_RECORD
                    assert "\x1b" not in order.text + order.detail
                    assert order.level in ("debug", "info", "warning", "error")
                case ev.Exit():
                    assert 0 <= order.code <= 255
                case _:
                    pass

    def _spawn(self, generation: int) -> None:
        peer = self.zygotes[generation] = Peer()
        self.processes.keep(Puppet(generation, 1, None, Channel(peer.ours, msg.FromZygote), os.memfd_create("fuzz")))

    def born(self, serial: int) -> None:
        """The honest answer to an order to fork."""
        worker = self.processes.workers.all.get(serial)
        if worker is None or worker.pid is not None or worker.generation not in self.processes.zygotes:
            return
        peer = self.workers[serial] = Peer()
        trace = os.memfd_create("fuzz")
        handle = self.processes.zygotes[worker.generation]
        self.processes.workers.forked(handle, msg.Forked(serial, 1000 + serial), [peer.ours.detach(), trace], set())

    def close(self) -> None:
        """Let go of everything."""
        self.processes.close()
        for peer in (*self.zygotes.values(), *self.workers.values()):
            peer.theirs.close()


class Puppet(ZygoteHandle):
    """Without a process: to end it is to hear no more of it."""

    def kill(self, signum: signal.Signals = signal.SIGKILL) -> None:
        """There is none."""
        assert self.broken


class Target:
    """Runs examples in one loop of its own."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def close(self) -> None:
        """Close the loop."""
        self._runner.close()

    def check_master(self, sendings: Sequence[tuple[str, Sending]]) -> None:
        """Raise for what the master does not bear: each sending comes from "zygote" or from "worker"."""
        self._runner.run(self._check_master(sendings))

    async def _check_master(self, sendings: Sequence[tuple[str, Sending]]) -> None:
        errors: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        before = len(unix.open_fds())
        shell = Shell()
        shell.handle(ev.Started())
        shell.handle(msg.Loaded(1, False, "asgi", (), 0.1, {}))
        shell.born(1)
        for who, sending in sendings:
            peer = shell.zygotes[1] if who == "zygote" else shell.workers[1]
            if peer.theirs.fileno() >= 0:
                peer.send(sending)
            for _ in range(2):  # selected, then called
                await asyncio.sleep(0)
            shell.handle(ev.Beats(shell.processes.workers.beats()))
            handles: list[ZygoteHandle | WorkerHandle] = [
                *shell.processes.zygotes.values(),
                *shell.processes.workers.all.values(),
            ]
            assert all(handle.said <= handle.may_say + 1 for handle in handles)
        shell.handle(ev.StopRequested(ev.StopMode.GRACEFUL, "test"))
        shell.close()
        assert not errors, errors
        assert len(unix.open_fds()) == before, "a descriptor stays open"

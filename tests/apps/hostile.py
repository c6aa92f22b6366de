"""An application that attacks the master of its server, from a worker by request and from the zygote at import.

`/attack/NAME` does it in the worker that takes the request. A zygote takes the names from HOSTILE_ORDERS, a directory,
and removes them, so that the next one is honest.
"""

import array
import gc
import os
import socket
import struct
from collections.abc import Callable

import msgspec

from aserver import unix
from aserver.asgi import Receive, Scope, Send
from aserver.ipc import messages as msg
from aserver.ipc.channel import Channel
from aserver.worker.main import WorkerProcess


def _frame(message: object, count: int = 0) -> bytes:
    body = message if isinstance(message, bytes) else msgspec.msgpack.encode(message)
    return struct.pack("!IH", len(body), count) + body


def _channel() -> socket.socket:
    """The worker's end: every object of the process is the application's to use."""
    (channel,) = [each for each in gc.get_objects() if type(each) is Channel and each.fileno() >= 0]
    return socket.socket(fileno=os.dup(channel.fileno()))


def _send(data: bytes, *fds: int) -> None:
    with _channel() as sock:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sock.sendmsg([data], rights)


def _descriptors(name: str) -> list[int]:
    return [fd for fd, target in unix.open_fds().items() if name in target]


def _cut_board() -> None:
    for fd in _descriptors("aserver-board"):
        try:
            os.ftruncate(fd, 0)
        except PermissionError:
            continue
        raise AssertionError("the board could be cut")


def _scribble() -> None:
    """Over all the cells, the count of them, and into the trace; which then must be read."""
    board = _descriptors("aserver-board")[0]
    os.pwrite(board, b"\xff" * (1 << 18), 0)
    trace = _descriptors("aserver-trace")[0]
    os.write(trace, b"".join(b"\x1b[2J%d\n\n" % number for number in range(300_000)))
    os.abort()


def _flood() -> None:
    """As fast as the socket takes it, as long as anybody takes it."""
    data = _frame(msg.RecycleAsked(1, "flood")) * 1000
    with _channel() as sock:
        sock.setblocking(True)
        try:
            while True:
                sock.sendall(data)
        except OSError:
            return


def _descriptors_flood() -> None:
    for _ in range(20):
        try:
            _send(_frame(msg.MoreFiles({}), 250), *[0] * 250)
        except OSError:
            return


def _block_log() -> None:
    """Fill the pipe that the error log is, then clear O_NONBLOCK on every description of it that is here."""
    for fd in _descriptors("error.fifo"):
        try:
            while True:
                os.write(fd, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(fd, True)


def _terminal() -> None:
    _send(_frame(msg.RecycleAsked(_serial(), "\x1b]0;owned\x07\r\nfake line\x85" + "x" * 100_000)))


def _serial() -> int:
    (process,) = [each for each in gc.get_objects() if type(each) is WorkerProcess]
    return process._order.serial


ATTACKS: dict[str, Callable[[], None]] = {
    "board": _cut_board,
    "scribble": _scribble,
    "flood": _flood,
    "descriptors": _descriptors_flood,
    "half": lambda: _send(_frame(msg.RecycleAsked(1, "half"))[:-3]),
    "exited": lambda: _send(_frame(msg.Exited(1, 1, 0))),
    "garbage": lambda: _send(os.urandom(4096)),
    "long": lambda: _send(struct.pack("!IH", 1 << 31, 0)),
    "stranger": lambda: _send(_frame(msg.Ready(4711, {}))),
    "terminal": _terminal,
    "log": _block_log,
}


# ── in the zygote ────────────────────────────────────────────────────────────────────────────


def _lie(pid: int) -> int | None:
    """A pidfd of the process that the test names, for the worker that has just been forked."""
    return os.pidfd_open(int(os.environ["HOSTILE_VICTIM"]))


def _silent(pid: int) -> int | None:
    return None


def _lie_wholly() -> None:
    """Both the pid and the pidfd are the victim's."""
    send = Channel.send

    def lying(self: Channel[msg.ToZygote], message: msg.Message, fds: list[int] | tuple[int, ...] = ()) -> None:
        if isinstance(message, msg.Forked):
            message.pid = int(os.environ["HOSTILE_VICTIM"])
            fds = [*fds[:2], os.pidfd_open(message.pid)]
        send(self, message, fds)

    Channel.send = lying  # type: ignore[method-assign, assignment]


def _say(data: bytes) -> None:
    """On the zygote's own channel, while the app is imported."""
    with socket.socket(fileno=os.dup(3)) as sock:
        sock.sendall(data)


def _attack_from_zygote(name: str) -> None:
    match name:
        case "pidfd":
            unix.open_pidfd = _lie
        case "pidfd and pid":
            _lie_wholly()
        case "garbage":
            _say(os.urandom(4096))
        case "no pidfd":
            unix.open_pidfd = _silent
        case "out of turn":
            _say(_frame(msg.ForkFailed(1, "no such order")))
        case _:
            raise AssertionError(name)


if orders := os.environ.get("HOSTILE_ORDERS"):
    for order in os.listdir(orders):
        os.rmdir(os.path.join(orders, order))
        _attack_from_zygote(order)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise NotImplementedError("no lifespan here")
    path = scope["path"]
    if path.startswith("/attack/"):
        ATTACKS[path.removeprefix("/attack/")]()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})

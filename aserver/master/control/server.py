"""The clients of the control socket: at most MOST_CLIENTS, each a line in, a line out.

Runs in the master's loop. A client is another program of the same user: it may stall, flood, or send anything. So it is
read only when its last answer is out and its share of the master's time allows; no answer waits for another
client's buffer, and a follower's records are read from the journal when it takes them.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import msgspec

from aserver.master.control.orders import LOOKS, Order, OrderRefused
from aserver.master.journal import Journal, Record

MOST_CLIENTS = 16
#: Bytes of a request's line.
LONGEST_LINE = 4096
#: Seconds that a client may take for the rest of a line, to send the next line, or to take an answer; no limit for a
#: follower that takes its records.
PATIENCE = 60.0
#: After a request a client pauses this many times as long as the answer took: it has a hundredth of the master's time.
SHARE = 100
#: The same for a child of the master, which asks for all clients of the admin endpoint at once.
SHARE_OF_CHILD = 10
#: Bytes that are given to a follower's socket at once.
_CHUNK = 64 << 10
#: Seconds without accepting where no descriptor is left.
_RETRY = 1.0

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Order).decode


#: Gives the reply to an order: a structure for JSON, at once or, if a worker has to be asked, later.
AnswerOrder = Callable[[Order, Callable[[object], None]], None]


class ControlServer:
    """Accepts on `listener`, if it is given, until closed."""

    def __init__(self, listener: socket.socket | None, answer: AnswerOrder, journal: Journal) -> None:
        self.answer = answer
        self.journal = journal
        self.loop = asyncio.get_running_loop()
        self._listener = listener
        self._clients: set[ControlClient] = set()
        self._timer: asyncio.TimerHandle | None = None
        if listener is not None:
            self.loop.add_reader(listener, self._accept)
        journal.followers.append(self._on_record)

    def close(self) -> None:
        """Close the clients; the listener is closed by its owner."""
        if self._listener is not None:
            self.loop.remove_reader(self._listener)
        self.journal.followers.remove(self._on_record)
        if self._timer is not None:
            self._timer.cancel()
        for client in list(self._clients):
            client.finish()

    def forget(self, client: "ControlClient") -> None:
        """A client is gone."""
        self._clients.discard(client)

    def adopt(self, sock: socket.socket) -> "ControlClient":
        """Serve a child of this process that has the other end of `sock`. It may look, and order nothing."""
        client = ControlClient(self, sock, only_looks=True)
        self._clients.add(client)
        return client

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:  # no descriptor is left: the kernel keeps the client waiting
            self.loop.remove_reader(self._listener)
            self._timer = self.loop.call_later(_RETRY, self.loop.add_reader, self._listener, self._accept)
            return
        sock.setblocking(False)
        if len(self._clients) >= MOST_CLIENTS:
            for client in list(self._clients):
                client.close_if_gone()
        refusal = refuse(sock)
        if not refusal and len(self._clients) >= MOST_CLIENTS:
            refusal = f"{MOST_CLIENTS} clients are connected already, which is the most"
        if refusal:
            with contextlib.suppress(OSError):
                sock.send(_line({"error": refusal}))
            sock.close()
        else:
            self._clients.add(ControlClient(self, sock))

    def _on_record(self, _record: Record) -> None:
        """Have followers written to in a later turn of the loop: the master is in the middle of a decision."""
        for client in self._clients:
            client.pump_soon()


class ControlClient:
    """A client: a request at a time. `listens_since` is when the last of its `requests` was answered."""

    def __init__(self, server: ControlServer, sock: socket.socket, *, only_looks: bool = False) -> None:
        self.requests = 0
        self._server = server
        self._sock = sock
        self._only_looks = only_looks
        self._incoming = b""
        self._outgoing = b""
        self._after: int | None = None  # the number of the last record that a follower has been given
        self._follows = False
        self._busy = False  # an answer is on its way
        self._rested = True
        self._ends = False
        self._scheduled = False
        self._overdue: asyncio.TimerHandle | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._listen()

    # ── in ───────────────────────────────────────────────────────────────────────────────────

    def _listen(self) -> None:
        self.listens_since = self._server.loop.time()
        self._server.loop.add_reader(self._sock, self._read)
        if not self._follows:
            self._await_client()

    def _await_client(self) -> None:
        """The client has PATIENCE for its next step."""
        if self._overdue is not None:
            self._overdue.cancel()
        self._overdue = self._server.loop.call_later(PATIENCE, self.close)

    def _read(self) -> None:
        try:
            data = self._sock.recv(LONGEST_LINE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._incoming += data
        self._obey_line()

    def _obey_line(self) -> None:
        line, end, rest = self._incoming.partition(b"\n")
        if not end and len(line) <= LONGEST_LINE:
            return
        self._server.loop.remove_reader(self._sock)
        self._incoming, self._busy, self._rested = rest, True, False
        self.requests += 1
        began = self._server.loop.time()
        try:
            self._ends = not end  # the bytes that follow begin no line
            order = self._allowed(_decode(line)) if end else _refuse_length()
            if order.command == "events" or order.follow:
                self._after = order.after if order.command == "events" else self._server.journal.last
                self._follows = order.follow
            if order.command == "events":
                self._reply(None)
            else:
                self._server.answer(order, self._reply)
        except (OrderRefused, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._reply({"error": str(error)})
        pause = (SHARE_OF_CHILD if self._only_looks else SHARE) * (self._server.loop.time() - began)
        self._pause = self._server.loop.call_later(pause, self._rest)

    def _allowed(self, order: Order) -> Order:
        if self._only_looks and order.command not in LOOKS:
            raise OrderRefused(f"{order.command} is refused: this client may only look")
        return order

    def _rest(self) -> None:
        self._rested = True
        self._next()

    def _next(self) -> None:
        """Take the next request, if the answer to the last request is out."""
        if self._busy or self._outgoing or not self._rested or self._sock.fileno() < 0:
            return
        if b"\n" in self._incoming:
            self._obey_line()
        else:
            self._listen()

    # ── out ──────────────────────────────────────────────────────────────────────────────────

    def _reply(self, reply: object) -> None:
        if self._sock.fileno() < 0:  # the client has gone meanwhile
            return
        self._busy = False
        if reply is not None:
            self._outgoing += _line(reply)
        self.pump()

    def pump_soon(self) -> None:
        """Look for records in the next turn of the loop."""
        if self._follows and not self._scheduled:
            self._scheduled = True
            self._server.loop.call_soon(self.pump)

    def pump(self) -> None:
        """Write as much as the socket takes: the answer, then records for a follower."""
        self._scheduled = False
        if self._sock.fileno() < 0:
            return
        while self._outgoing or self._fetch():
            try:
                self._outgoing = self._outgoing[self._sock.send(self._outgoing) :]
            except BlockingIOError:
                self._server.loop.add_writer(self._sock, self.pump)
                return
            except OSError:
                self.close()
                return
            self._await_client()
        self._server.loop.remove_writer(self._sock)
        if self._ends:
            self.close()
        elif self._follows and self._overdue is not None:
            self._overdue.cancel()
        self._next()

    def _fetch(self) -> bool:
        """Take the next records from the journal, if the client wants any; without `follow` there is a last line."""
        if self._after is None:
            return False
        lines = []
        size = 0
        for record in self._server.journal.since(self._after):
            lines.append(_line({"record": record}))
            self._after, size = record.number, size + len(lines[-1])
            if size > _CHUNK:
                break
        else:
            if not self._follows:
                lines.append(_line({"last": self._server.journal.last}))
                self._after = None
        self._outgoing = b"".join(lines)
        return bool(lines)

    def finish(self) -> None:
        """Close, after as much has been sent as the socket takes at once."""
        self.pump()
        self.close()

    def close_if_gone(self) -> None:
        """Close a client that has hung up, which is not seen otherwise while it is paused."""
        with contextlib.suppress(BlockingIOError):
            try:
                gone = not self._sock.recv(1, socket.MSG_PEEK)
            except ConnectionError:
                gone = True
            if gone:
                self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._sock.fileno() < 0:
            return
        self._server.loop.remove_reader(self._sock)
        self._server.loop.remove_writer(self._sock)
        for timer in (self._overdue, self._pause):
            if timer is not None:
                timer.cancel()
        self._sock.close()
        self._server.forget(self)


def _refuse_length() -> Order:
    raise OrderRefused(f"a request is a line of at most {LONGEST_LINE} bytes")


def _line(reply: object) -> bytes:
    return _encode(reply) + b"\n"


# ── permission ───────────────────────────────────────────────────────────────────────────────


def refuse(sock: socket.socket) -> str:
    """Why the process at the other end may not ask; empty if it may: root, and this user but for our own processes.

    A worker runs the application's code, maybe as the user of this process. It, its children and the processes that
    they have left behind are below this process (docs/traps.md, 92).
    """
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:  # no Linux: the mode of the directory and the socket have to do
        return ""
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i")))
    if uid not in (0, os.geteuid()):
        return f"uid {uid} may not control this server, which belongs to uid {os.geteuid()}"
    if _is_below(pid, os.getpid()):
        return f"process {pid} is one of this server's own, whose application must not control it"
    return ""


def _is_below(pid: int, ancestor: int) -> bool:
    """Whether a process descends from another; not so if /proc does not show it."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        while pid > 1:
            pid = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
            if pid == ancestor:
                return True
    return False

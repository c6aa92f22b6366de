"""A bound socket: the part that is the same for TCP, abstract names and adopted descriptors.

Runs in the master and in the embedding program; a worker has no Listener. It must never close or unlink without an
order from its owner, so there is no `__del__`.
"""

import contextlib
import ctypes
import errno
import socket
import struct

from aserver import unix
from aserver.errors import BindError
from aserver.sockets import port_owner
from aserver.sockets.unix_diag import unix_queue

Address = tuple[str, int] | str

#: socket(7); Python has no name for it.
_SO_ATTACH_FILTER = 26
#: Of a listening socket, tcpi_unacked is the length of its queue, tcpi_sacked the limit of that (linux/tcp.h).
_TCP_INFO_BYTES, _TCPI_UNACKED = 104, 24
#: A classic BPF program over the TCP header: a packet that opens a connection (SYN without ACK, in byte 13) is dropped,
#: all others pass.
_NO_SYN = struct.pack(
    "HBBI" * 5, 0x30, 0, 0, 13, 0x54, 0, 0, 0x12, 0x15, 0, 1, 0x02, 0x06, 0, 0, 0, 0x06, 0, 0, 0xFFFFFFFF
)


class Listener:
    """A bound, non-blocking, close-on-exec stream socket. Its process does not accept on it.

    `name` is for people and logs, `family` is "inet", "inet6" or "unix". `address` is (host, port) with the real port,
    or the unix path, or `@name` for an abstract socket. `tls`: it must never be served in the clear.
    """

    def __init__(self, sock: socket.socket, name: str, address: Address, *, tls: bool = False) -> None:
        self.socket = sock
        self.name = name
        self.family = {socket.AF_INET: "inet", socket.AF_INET6: "inet6"}.get(sock.family, "unix")
        self.address = address
        self.tls = tls
        sock.setblocking(False)

    def __repr__(self) -> str:
        return f"<Listener {self.name} fd={self.socket.fileno()}>"

    @property
    def adopted(self) -> bool:
        """Whether another process bound the socket and passed it on."""
        return self.name.startswith("fd://")

    @property
    def inode(self) -> tuple[int, int] | None:
        """(device, inode) of the socket's file, if this server made one."""
        return None

    def listen(self, backlog: int) -> None:
        """Let clients connect, with a queue of `backlog`; may be called again, also on an adopted socket.

        Raises BindError. EADDRINUSE can come as late as here: two servers may both bind with SO_REUSEADDR, and only the
        first of them can listen (socket(7)).
        """
        try:
            self.socket.listen(backlog)
        except OSError as error:
            raise BindError(self._listen_failed(error)) from error

    def tend(self) -> str | None:
        """Keep the address reachable; call it about once a second. Returns a sentence for the log, or None."""
        return None

    def queue(self) -> tuple[int, int] | None:
        """(clients that wait to be accepted, the most that may wait); None if the system does not tell."""
        if not unix.LINUX or self.socket.fileno() < 0:
            return None
        if self.family == "unix":
            return unix_queue(self.socket.fileno())
        info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        return struct.unpack_from("II", info, _TCPI_UNACKED)

    def open_no_more(self) -> None:
        """Have the kernel begin no new connection (Linux, TCP), before the workers empty the queue for the last time.

        Between a worker's last accept(2) and its close(2) a client could connect, and the close would reset it. Dropped
        is only the first packet: the client sends it again a second later, and is refused if the address is free then.
        Not for adopted sockets, which outlive this server.
        """
        if not unix.LINUX or self.family == "unix" or self.adopted or self.socket.fileno() < 0:
            return
        program = ctypes.create_string_buffer(_NO_SYN, len(_NO_SYN))
        with contextlib.suppress(OSError):  # the rest of the stop does not depend on it
            self.socket.setsockopt(
                socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 5, ctypes.addressof(program))
            )

    def close(self) -> None:
        """Close the socket; may be called again. Clients in its queue are reset unless another process holds it too."""
        self.socket.close()

    def _listen_failed(self, error: OSError) -> str:
        owner = None
        if error.errno == errno.EADDRINUSE and isinstance(self.address, tuple):
            owner = port_owner.of_port(self.socket.family, *self.address)
        taken = f"; it is in use by {owner}" if owner else ""
        return f"cannot listen on {self.name}: {error.strerror}{taken}"

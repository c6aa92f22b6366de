"""A bound socket: the part that is the same for TCP, abstract names and adopted descriptors.

Runs in the master and in the embedding program; a worker has no Listener. It must never close or unlink without an
order from its owner, so there is no `__del__`.
"""

import errno
import socket

from aserver.errors import BindError
from aserver.sockets import port_owner

Address = tuple[str, int] | str


class Listener:
    """A bound, non-blocking, close-on-exec stream socket. Its process does not accept on it.

    `name` is for people and logs, `family` is "inet", "inet6" or "unix". `address` is (host, port) with the real port,
    or the unix path, or `@name` for an abstract one. `tls`: it must never be served in the clear.
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

    def close(self) -> None:
        """Close the socket; may be called again. Clients in its queue are reset unless another process holds it too."""
        self.socket.close()

    def _listen_failed(self, error: OSError) -> str:
        owner = None
        if error.errno == errno.EADDRINUSE and isinstance(self.address, tuple):
            owner = port_owner.of_port(self.socket.family, *self.address)
        taken = f"; it is in use by {owner}" if owner else ""
        return f"cannot listen on {self.name}: {error.strerror}{taken}"

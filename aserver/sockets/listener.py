"""One bound socket: the part that is the same for TCP, abstract names and adopted descriptors.

Runs in the master and in the embedding program. It must never close or unlink behind the owner's back:
there is no `__del__`, and a worker has no Listener.
"""

import errno
import socket

from aserver.errors import BindError
from aserver.sockets import port_owner

Address = tuple[str, int] | str


class Listener:
    """A bound, non-blocking, close-on-exec stream socket that is not ours to accept on.

    `name` is for people and logs, `family` is "inet", "inet6" or "unix", `address` is (host, port) with
    the real port, or the unix path, or `@name` for an abstract one. `tls`: it must never be served in the clear.
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

        Raises BindError. EADDRINUSE can come this late: two servers may both bind with SO_REUSEADDR and
        only the first gets to listen (socket(7)).
        """
        try:
            self.socket.listen(backlog)
        except OSError as error:
            raise BindError(self._listen_failed(error)) from error

    def tend(self) -> str | None:
        """Call about once a second; does what keeps the address reachable and returns a sentence for the log."""
        return None

    def close(self) -> None:
        """Close the socket; may be called again. Clients in its queue are reset unless somebody else holds it."""
        self.socket.close()

    def _listen_failed(self, error: OSError) -> str:
        who = None
        if error.errno == errno.EADDRINUSE and isinstance(self.address, tuple):
            who = port_owner.of_port(self.socket.family, *self.address)
        taken = f"; it is in use by {who}" if who else ""
        return f"cannot listen on {self.name}: {error.strerror}{taken}"

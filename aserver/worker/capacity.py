"""The number of connections that a worker may have at once, by `limit_connections` and by the limit of open files.

Runs in the worker's loop. Without a free descriptor uvloop accepts each client and closes the connection, and logs
nothing. So the worker stops accepting before that: clients wait in the queue until another worker accepts them, or
this worker when a connection has ended.
"""

import logging
import resource
from dataclasses import dataclass

from aserver import unix
from aserver.config import Config

log = logging.getLogger("aserver.error")

#: Descriptors left to the app for its files and databases, beyond those open when the worker begins: this part of the
#: limit of open files, and this number at the least.
SHARE, FEW = 16, 16


@dataclass(slots=True)
class Capacity:
    """The most connections of a worker; `why` names the setting or limit behind it."""

    limit: int
    why: str
    full: bool = False

    @classmethod
    def of(cls, config: Config) -> "Capacity":
        """The capacity by the settings and the soft RLIMIT_NOFILE (getrlimit(2)) of this process."""
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if soft == resource.RLIM_INFINITY:
            soft = 1 << 20
        room = max(1, soft - len(unix.open_fds()) - max(FEW, soft // SHARE))
        if 0 < config.limit_connections <= room:
            return cls(config.limit_connections, "limit_connections")
        return cls(room, f"what {soft} open files leave")

    def fill(self) -> None:
        """Note that the limit is reached, with a line in the log; not another line for each client that waits."""
        if not self.full:
            self.full = True
            text = "%d connections are open, as many as may be (%s): who comes now waits until one is closed"
            log.warning(text, self.limit, self.why)

    def has_room(self, connections: int) -> bool:
        """Whether a worker that was full may accept again. True once: then the worker is not full any more."""
        if self.full and connections < self.limit:
            self.full = False
            return True
        return False

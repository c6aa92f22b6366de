"""How many connections one worker holds at once: `limit_connections`, and what the limit of open files leaves.

Runs in the worker's loop. Out of descriptors uvloop accepts and closes whoever comes, without a word (trap 66), so
accepting has to stop before: then they wait in the queue, and another worker or a place that becomes free takes them.
"""

import logging
import resource
from dataclasses import dataclass

from aserver import unix
from aserver.config import Config

log = logging.getLogger("aserver.error")

#: Descriptors that are left to the app beyond those open when the worker begins: a share for large limits, a few at
#: least for small ones. A worker that holds so many connections has files and databases to open, too.
SHARE, FEW = 16, 16


@dataclass(slots=True)
class Capacity:
    """Of one worker; `why` names what bounds it."""

    limit: int
    why: str
    full: bool = False

    @classmethod
    def of(cls, config: Config) -> "Capacity":
        """From the settings and the soft RLIMIT_NOFILE (getrlimit(2)) of this process."""
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if soft == resource.RLIM_INFINITY:
            soft = 1 << 20
        room = max(1, soft - len(unix.open_fds()) - max(FEW, soft // SHARE))
        if 0 < config.limit_connections <= room:
            return cls(config.limit_connections, "limit_connections")
        return cls(room, f"what {soft} open files leave")

    def fill(self) -> None:
        """No more: said once for each time."""
        if not self.full:
            self.full = True
            text = "%d connections are open, as many as may be (%s): who comes now waits until one is closed"
            log.warning(text, self.limit, self.why)

    def has_room(self, connections: int) -> bool:
        """Whether a full worker may accept again."""
        if self.full and connections < self.limit:
            self.full = False
            return True
        return False

"""A worker's notice to its applications that it drains.

Runs in the worker's loop. Applications find it as `scope["extensions"]["aserver.draining"]` of a WebSocket. It is set
once and never cleared.
"""

import asyncio


class Draining(asyncio.Event):
    """Set when the worker begins to drain. A scope may be copied, and there is one drain: a copy is the notice."""

    def __copy__(self) -> "Draining":
        """Return itself."""
        return self

    def __deepcopy__(self, memo: object) -> "Draining":
        """Return itself; futures could not be copied."""
        return self

"""A worker's notice to its applications that it drains.

Runs in the worker's loop. The scope of a WebSocket has it as `scope["extensions"]["aserver.draining"]`. It is set once
and never cleared.
"""

import asyncio


class Draining(asyncio.Event):
    """Set when the worker begins to drain. A copy of it, made with its scope, is the same object."""

    def __copy__(self) -> "Draining":
        """Return itself."""
        return self

    def __deepcopy__(self, memo: object) -> "Draining":
        """Return itself: the futures in it could not be copied."""
        return self

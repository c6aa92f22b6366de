"""Which routes have been told that a body of theirs is dropped, so that each hears of it once.

Runs in the worker, one for all its connections. It must never grow with what clients ask for.
"""

from aserver.asgi import Scope

#: Routes remembered. Of paths without a route there can be any number; after so many nothing is said any more.
REMEMBERED = 256


class DroppedBodies:
    """What has been said already."""

    def __init__(self) -> None:
        self._told: set[tuple[object, int]] = set()

    def is_new(self, scope: Scope, status: int) -> bool:
        """Tell whether to speak of this route's `status` now, and remember that.

        A route is the endpoint that Starlette and others leave in the scope, else the path.
        """
        endpoint = scope.get("endpoint")
        key = (scope.get("path") if endpoint is None else id(endpoint), status)
        if key in self._told or len(self._told) >= REMEMBERED:
            return False
        self._told.add(key)
        return True

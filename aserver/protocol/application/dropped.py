"""Remembers the routes whose dropped bodies have been logged, so that each route is logged once.

Runs in the worker, one for all its connections. It must never grow with the number of paths that clients ask for.
"""

from aserver.asgi import Scope

#: Routes remembered. Clients can ask for any number of paths without a route; after this many nothing more is logged.
REMEMBERED = 256


class DroppedBodies:
    """The routes and statuses that have been logged."""

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

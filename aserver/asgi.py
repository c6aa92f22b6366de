"""ASGI's types, as the ASGI 3.0 specification names them (https://asgi.readthedocs.io/en/latest/specs/).

Pure: names of shapes, and the versions that an HTTP scope names.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

#: `asgi` of the scope of a request or a WebSocket; to be copied, as a scope is the application's.
VERSIONS: Final = {"version": "3.0", "spec_version": "2.3"}

"""ASGI's types, as the ASGI 3.0 specification names them (https://asgi.readthedocs.io/en/latest/specs/).

Pure: names of shapes, the versions that an HTTP scope names, and what this server adds for itself.
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

#: The name of a pair among the headers of a response's head, whose value is HTTP/1's reason phrase. Private to this
#: server. A colon cannot be in a header's name, so no header is meant. As it stands among the headers, caches of heads
#: tell heads with different phrases apart.
REASON: Final = b":reason"

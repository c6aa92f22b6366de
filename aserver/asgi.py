"""ASGI types, as the ASGI 3.0 specification names them (https://asgi.readthedocs.io/en/latest/specs/).

Pure: names of shapes, and no code.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

from typing import Any

from aserver.protocol.context import Context
from aserver.protocol.websocket.connection import Socket
from aserver.protocol.websocket.session import WebSocket

class PlainSocket:
    socket: Socket

class PlainSockets:
    def __init__(self, context: Context) -> None: ...
    def begin(self, websocket: WebSocket) -> Any: ...
    def renew(self) -> None: ...

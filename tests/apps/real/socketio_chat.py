"""A socket.io server that answers with an acknowledgement and an event."""

from typing import Any

import socketio

server = socketio.AsyncServer(async_mode="asgi", transports=["websocket"])
app = socketio.ASGIApp(server)


@server.event
async def say(sid: str, data: Any) -> Any:
    await server.emit("said", data, to=sid)
    return len(data)

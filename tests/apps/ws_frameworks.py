"""WebSockets as people write them: FastAPI with a dependency, JSON and a denial; Starlette's endpoint class."""

from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, WebSocket, WebSocketDisconnect, WebSocketException
from starlette.endpoints import WebSocketEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket

from tests.apps import content


class Shout(WebSocketEndpoint):
    encoding = "text"

    async def on_receive(self, websocket: StarletteWebSocket, data: Any) -> None:
        await websocket.send_text(data.upper())

    async def on_disconnect(self, websocket: StarletteWebSocket, close_code: int) -> None:
        content.note(f"left with {close_code}")


app = FastAPI(routes=[WebSocketRoute("/shout", Shout)])


async def token(token: str | None = None) -> str:
    if token is None:
        raise WebSocketException(code=1008, reason="no token")
    return token


@app.websocket("/items/{name}")
async def items(websocket: WebSocket, name: str, token: Annotated[str, Depends(token)]) -> None:
    await websocket.accept(subprotocol="json", headers=[(b"x-token", token.encode())])
    try:
        while True:
            got = await websocket.receive_json()
            await websocket.send_json({"name": name, "got": got})
    except WebSocketDisconnect as error:
        content.note(f"disconnect {error.code} {error.reason}")


@app.websocket("/chunks")
async def chunks(websocket: WebSocket) -> None:
    await websocket.accept()
    async for data in websocket.iter_bytes():
        await websocket.send_bytes(data[::-1])
    content.note("iteration ended")


@app.websocket("/denied")
async def denied(websocket: WebSocket) -> None:
    await websocket.send_denial_response(PlainTextResponse("sold out", status_code=410))


@app.websocket("/http-exception")
async def http_exception(websocket: WebSocket) -> None:
    raise HTTPException(status_code=401, detail="who are you?")


@app.get("/")
async def index() -> str:
    return "http beside"

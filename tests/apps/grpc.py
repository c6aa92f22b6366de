"""Answers as a gRPC service does: a body, then trailers; without gRPC's own messages."""

from aserver.asgi import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message["body"])
        more = message["more_body"]
    takes_trailers = "http.response.trailers" in scope["extensions"]
    headers = [(b"content-type", b"application/grpc")]
    await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": takes_trailers})
    body = f"{scope['http_version']} {size} {scope['client'][0]}".encode()
    await send({"type": "http.response.body", "body": body})
    if takes_trailers:
        await send({"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]})

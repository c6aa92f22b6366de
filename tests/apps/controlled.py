"""Asks the control socket from inside a worker, waits, or blocks; for the tests of operating a server."""

import socket
import time

from aserver.asgi import Receive, Scope, Send


def ask(path: str) -> bytes:
    """What the control socket says to this process."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        return sock.recv(4096)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise NotImplementedError
    body = b"hello"
    if scope["path"] == "/ask":
        body = ask(scope["query_string"].decode())
    elif scope["path"] == "/wait":
        while (await receive())["type"] != "http.disconnect":
            pass
    elif scope["path"] == "/block":
        time.sleep(float(scope["query_string"] or b"60"))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})

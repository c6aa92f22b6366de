"""ASGI app that answers with what it is told of the connection, and with whose rights it was imported and runs."""

import json
import os
from typing import Any

from aserver.asgi import Receive, Scope, Send


def rights() -> dict[str, Any]:
    """Of this process, at this moment."""
    return {"uids": os.getresuid(), "gids": os.getresgid(), "groups": sorted(os.getgroups()), "pid": os.getpid()}


AT_IMPORT = rights()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        assert message["type"] == "lifespan.shutdown"
        await send({"type": "lifespan.shutdown.complete"})
        return
    told = {key: scope[key] for key in ("scheme", "client", "server")}
    told["tls"] = scope["extensions"].get("tls")
    told |= {"pid": os.getpid(), "imported": AT_IMPORT, "running": rights()}
    body = json.dumps(told).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})

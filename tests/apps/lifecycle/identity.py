"""Whose process this is, at import and now."""

import json
import os

from aserver.asgi import Receive, Scope, Send


def identity() -> dict[str, list[int]]:
    return {"uids": list(os.getresuid()), "gids": list(os.getresgid()), "groups": os.getgroups()}


at_import = identity()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http", "no lifespan here"
    body = json.dumps(at_import if scope["path"] == "/import" else identity()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})

"""ASGI app that says on standard error with whose rights it is imported, and its lifespan run."""

import os
import sys

from aserver.asgi import Receive, Scope, Send


def tell(when: str) -> None:
    """One line: uid, gid, groups."""
    print(f"whoami {when}: {os.getuid()} {os.getgid()} {sorted(os.getgroups())}", file=sys.stderr)


tell("import")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Lifespan only."""
    assert scope["type"] == "lifespan"
    for kind in ("startup", "shutdown"):
        message = await receive()
        assert message["type"] == f"lifespan.{kind}"
        tell(kind)
        await send({"type": f"lifespan.{kind}.complete"})

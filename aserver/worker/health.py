"""The setting `health_check`: a path that the worker answers, without the application, as the admin endpoint's /readyz.

Runs in the worker's loop, around the application, so that it is the same in every version of HTTP; without the setting
it is not there. For platforms that see no port but the service's own.
"""

from collections.abc import Callable

from aserver.asgi import ASGIApp, Receive, Scope, Send


def with_health_check(app: ASGIApp, path: str, ask: Callable[[], tuple[bool, str]]) -> ASGIApp:
    """`app`, but for requests for `path`. `ask` tells whether clients should be sent here, and why (not)."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].removeprefix(scope["root_path"]) != path:
            await app(scope, receive, send)
            return
        ready, reason = ask()
        status, body = (200, f"ok: {reason}\n") if ready else (503, f"unavailable: {reason}\n")
        encoded = body.encode()
        fields = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(encoded)),
            (b"cache-control", b"no-store"),
        ]
        if scope["method"] not in ("GET", "HEAD"):
            status, encoded, fields = 405, b"", [(b"allow", b"GET, HEAD"), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": encoded})

    return serve

"""The ASGI app of the admin endpoint. It answers from what the master told last, and changes nothing."""

import json
from collections.abc import Awaitable, Callable
from importlib import resources

from aserver.admin.exposition import render
from aserver.admin.line import MasterLine
from aserver.asgi import Receive, Scope, Send

#: Clients of the dashboard at once; each holds a connection.
MOST_VIEWERS = 32
_TEXT, _JSON = b"text/plain; charset=utf-8", b"application/json"
#: The page loads nothing from anywhere else, runs no inline code, and is shown in no frame.
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FIELDS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", _POLICY),
)
#: Read before the rights are dropped: another user may not be able to.
_ASSETS = {
    path: (resources.files(__package__).joinpath(name).read_bytes(), kind + b"; charset=utf-8")
    for path, name, kind in (
        ("/", "dashboard.html", b"text/html"),
        ("/dashboard.css", "dashboard.css", b"text/css"),
        ("/dashboard.js", "dashboard.js", b"text/javascript"),
    )
}


class AdminApp:
    """ASGI."""

    def __init__(self, master: MasterLine) -> None:
        self._master = master
        self._viewers = 0
        self._pages: dict[str, Callable[[Send], Awaitable[None]]] = {
            "/livez": lambda send: self._health(send, *self._master.liveness()),
            "/readyz": self._readyz,
            "/status": self._status,
            "/events": self._events,
        }

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await send({"type": "websocket.close"})  # there is no lifespan
            return
        path = scope["path"]
        if scope["method"] not in ("GET", "HEAD"):
            await _answer(send, 405, b"only GET: nothing can be changed here\n", extra=[(b"allow", b"GET, HEAD")])
        elif path in _ASSETS:
            await _answer(send, 200, *_ASSETS[path])
        elif path in self._pages:
            await self._pages[path](send)
        elif path == "/metrics":
            accept = b", ".join(value for name, value in scope["headers"] if name == b"accept")
            await self._metrics(send, accept.decode("latin-1"))
        else:
            known = ", ".join(("/", "/metrics", *self._pages))
            await _answer(send, 404, f"there is nothing here; there is {known}\n".encode())

    async def _readyz(self, send: Send) -> None:
        await self._health(send, *await self._master.readiness())

    async def _health(self, send: Send, good: bool, why: str) -> None:  # noqa: FBT001
        word = "ok" if good else "unavailable"
        await _answer(send, 200 if good else 503, f"{word}: {why}\n".encode())

    async def _status(self, send: Send) -> None:
        if self._master.status is None:
            await _answer(send, 503, b"the master has not answered yet\n")
        else:
            await _answer(send, 200, json.dumps(self._master.status).encode(), _JSON)

    async def _metrics(self, send: Send, accept: str) -> None:
        try:
            body, kind = render(self._master.metrics, accept)
        except ImportError:
            await _answer(send, 501, b"prometheus-client is missing here: pip install 'aserver-asgi[admin]'\n")
        else:
            await _answer(send, 200 if self._master.metrics else 503, body, kind.encode())

    async def _events(self, send: Send) -> None:
        """Server-sent events (https://html.spec.whatwg.org/#server-sent-events): the data of the dashboard."""
        if self._viewers >= MOST_VIEWERS:
            await _answer(send, 503, f"{MOST_VIEWERS} clients look already, which is the most\n".encode())
            return
        self._viewers += 1
        try:
            await self._stream(send)
        finally:
            self._viewers -= 1

    async def _stream(self, send: Send) -> None:
        master = self._master
        await _start(send, 200, [(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no")])
        await _emit(send, b"retry: 1000\n\n")
        taken = master.samples.taken
        number = master.records[-1]["number"] if master.records else 0
        begun = {"samples": list(master.samples.all), "records": list(master.records), "status": master.status}
        await _emit(send, _event("begin", begun))
        while not master.ended:
            await master.changed.wait()
            for record in [each for each in master.records if each["number"] > number]:
                number = record["number"]
                await _emit(send, _event("record", record))
            if master.samples.taken > taken:
                taken = master.samples.taken
                await _emit(send, _event("tick", {"status": master.status, "sample": master.samples.all[-1]}))
        await send({"type": "http.response.body"})


def _event(name: str, data: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


async def _start(send: Send, status: int, fields: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [*fields, *_FIELDS]})


async def _emit(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _answer(
    send: Send, status: int, body: bytes, kind: bytes = _TEXT, extra: list[tuple[bytes, bytes]] | None = None
) -> None:
    await _start(send, status, [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *(extra or [])])
    await send({"type": "http.response.body", "body": body})

"""bottle: WSGI."""

from collections.abc import Iterator

import bottle

from tests.apps import content

app = bottle.Bottle()
# The default, 100 KB, is for bodies that bottle itself holds in memory.
bottle.BaseRequest.MEMFILE_MAX = 4_000_000


def json_route() -> dict[str, str]:
    return content.GREETING


def upload() -> dict[str, int | str]:
    return content.receipt(bottle.request.files["file"].file.read())


def body() -> dict[str, int | str]:
    data = bottle.request.body.read()
    content.note(f"body of {len(data)} bytes")
    return content.receipt(data)


def download() -> bytes:
    bottle.response.content_type = "application/octet-stream"
    return content.DOWNLOAD


def stream() -> Iterator[str]:
    bottle.response.content_type = "text/plain"
    yield from content.LINES


# Not as decorators, which bottle leaves untyped.
app.route("/json", "GET", json_route)
app.route("/upload", "POST", upload)
app.route("/body", "POST", body)
app.route("/download", "GET", download)
app.route("/stream", "GET", stream)

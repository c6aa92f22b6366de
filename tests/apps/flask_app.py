"""Flask: WSGI."""

from collections.abc import Iterator

from flask import Flask, Response, request

from tests.apps import content

app = Flask(__name__)


@app.get("/json")
def json_route() -> dict[str, str]:
    return content.GREETING


@app.post("/upload")
def upload() -> dict[str, int | str]:
    return content.receipt(request.files["file"].read())


@app.post("/body")
def body() -> dict[str, int | str]:
    return content.receipt(request.get_data())


@app.get("/download")
def download() -> Response:
    return Response(content.DOWNLOAD, mimetype="application/octet-stream")


@app.get("/stream")
def stream() -> Response:
    def lines() -> Iterator[str]:
        yield from content.LINES

    return Response(lines(), mimetype="text/plain")


@app.get("/endless")
def endless() -> Response:
    """Until the client goes; then it says so."""

    def zeros() -> Iterator[bytes]:
        try:
            while True:
                yield b"0" * 65_536
        finally:
            content.note("closed")

    return Response(zeros(), mimetype="text/plain")


def create_app() -> Flask:
    """The factory pattern of Flask's own documents."""
    return app

"""The streams in a WSGI environ: the body, the log of errors, files. In threads, by whole requests."""

import io
import logging
import traceback
from typing import Any

import pytest

from aserver.wsgi.application import BODY_KEPT
from tests.unit.wsgi.calling import StartResponse, body_of, call

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


async def test_readline_with_a_limit_reads_on() -> None:
    lines: list[bytes] = []

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        lines.append(environ["wsgi.input"].readline(100))
        lines.append(environ["wsgi.input"].readline(3))
        lines.extend(environ["wsgi.input"])
        start_response("200 OK", [])
        return []

    await call(app, [b"fir", b"st\nsecond\nth", b"ird"])
    assert lines == [b"first\n", b"sec", b"ond\n", b"third"]


async def test_chunked_body_gets_a_length() -> None:
    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        assert "HTTP_TRANSFER_ENCODING" not in environ
        start_response("200 OK", [])
        return [environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))]

    pieces = [bytes([number]) * 300_000 for number in range(8)]  # more than is kept in memory
    sent = await call(app, pieces, headers=[(b"transfer-encoding", b"chunked")])
    assert body_of(sent) == b"".join(pieces)


async def test_file_wrapper_sends_a_file_in_blocks_and_closes_it() -> None:
    reads: list[int] = []

    class File(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            reads.append(size or 0)
            return super().read(size)

    content = bytes(range(256)) * 1_000
    file = File(content)

    def app(environ: dict[str, Any], start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](file, 512)

    assert body_of(await call(app)) == content
    assert file.closed
    assert min(reads) >= 65_536, "not 512 bytes at once"


@pytest.mark.parametrize("length", [0, 5, 70_000])
async def test_file_wrapper_ends_with_the_content_length(length: int) -> None:
    """From where the file stands, by PEP 3333. Fails without `left`: a piece beyond the length is an error."""
    content = bytes(range(256)) * 1_000
    file = io.BytesIO(content)
    file.seek(7)

    def app(environ: dict[str, Any], start_response: StartResponse) -> Any:
        start_response("206 Partial Content", [("Content-Length", str(length))])
        return environ["wsgi.file_wrapper"](file)

    assert body_of(await call(app)) == content[7 : 7 + length]
    assert file.closed


# ── the request ──────────────────────────────────────────────────────────────────────────────


async def test_a_long_body_is_read_as_it_comes() -> None:
    """Fails with a body that is received whole first, as the small ones are."""
    read: list[int] = []

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        body = environ["wsgi.input"]
        while piece := body.read1(1 << 20):
            read.append(len(piece))
        start_response("200 OK", [])
        return []

    size = 3 * BODY_KEPT
    await call(app, [b"x" * BODY_KEPT] * 3, headers=[(b"content-length", b"%d" % size)])
    assert (sum(read), len(read)) == (size, 3)


async def test_errors_are_records_of_the_error_log_with_the_request(caplog: pytest.LogCaptureFixture) -> None:
    """A logging handler writes a record at once, print() in pieces; half a line is not lost."""

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        errors = environ["wsgi.errors"]
        errors.write("Traceback:\n  line 1\n")
        print("printed", 2, file=errors)
        errors.write("half a line")
        errors.flush()
        start_response("200 OK", [])
        return []

    with caplog.at_level(logging.INFO, "aserver.error"):
        await call(app)
    assert [each.getMessage() for each in caplog.records] == ["Traceback:\n  line 1", "printed 2", "half a line"]


async def test_errors_is_a_text_stream_for_whatever_writes_into_it(caplog: pytest.LogCaptureFixture) -> None:
    """It is no `io.TextIOBase`. Fails without `writelines`, `close` or an attribute that writers look at."""

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        errors = environ["wsgi.errors"]
        traceback.print_exception(ValueError("wrong"), file=errors)
        handler = logging.StreamHandler(errors)
        handler.emit(logging.makeLogRecord({"msg": "handled"}))
        handler.close()
        errors.writelines(["first\n", "sec", "ond\n"])
        assert (errors.encoding, errors.closed, errors.isatty()) == ("utf-8", False, False)
        assert (errors.writable(), errors.readable(), errors.seekable()) == (True, False, False)
        errors.write("the end")
        errors.close()
        start_response("200 OK", [])
        return []

    with caplog.at_level(logging.INFO, "aserver.error"):
        await call(app)
    messages = [each.getMessage() for each in caplog.records]
    assert messages == ["ValueError: wrong", "handled", "first", "second", "the end"]

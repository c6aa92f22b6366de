"""Responses and heads: what may be sent when, and the bytes that HTTP/1 makes of it."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from aserver.asgi import REASON
from aserver.errors import ApplicationError
from aserver.protocol.http1.encoder import Encoder, encode_head, is_close_delimited
from aserver.protocol.http2.encoder import encode_head as http2_head
from aserver.protocol.semantics.response import JOIN_LIMIT, Response, State
from aserver.protocol.semantics.response_head import REMEMBERED, REMEMBERED_SIZE, Defaults, Heads, compile_head
from tests.protocol.response_rows import DATE, ILLEGAL, LEGAL, LENGTH_3, body, start


def make(
    *,
    modern: bool = True,
    head_only: bool = False,
    keep_alive: bool = True,
    pairs: Any = (),
    date: bytes | None = b"now",
) -> Response:
    return Response(Heads(Defaults(pairs, date), encode_head), modern, head_only, keep_alive)


def play(response: Response, *messages: dict[str, Any]) -> bytes:
    """What HTTP/1 makes of the messages."""
    encoder = Encoder(response.heads.defaults)
    out = b""
    for message in messages:
        if message["type"] == "http.response.start":
            response.start(message)
        elif message["type"] == "http.response.trailers":
            fields = response.trailers(message)
            out += b"" if fields is None else encoder.trailers(response, fields)
        else:
            encode = encoder.first if response.state is State.HEADED else encoder.piece
            data = encode(response, response.body(message))
            out += data if isinstance(data, bytes) else b"".join(data)
    return out


@pytest.mark.parametrize(
    ("phrase", "line"),
    [
        (b"Nothing here", b"HTTP/1.1 404 Nothing here"),
        (b"H\xe4lf\tway", b"HTTP/1.1 404 H\xe4lf\tway"),
        (b"a\r\nSet-Cookie: b=c", b"HTTP/1.1 404 Not Found"),
        (b"a\x7f", b"HTTP/1.1 404 Not Found"),
    ],
)
def test_a_reason_phrase_is_http_1s_alone_and_no_other_heads(phrase: bytes, line: bytes) -> None:
    """Fails where heads are remembered without it. Control characters would end the line: the standard's is sent."""
    for encode in (encode_head, http2_head):
        heads = Heads(Defaults((), None), encode)
        response, plain = (Response(heads, True, False, True) for _ in range(2))
        response.start(start(404, (b"x", b"y"), (REASON, phrase)))
        plain.start(start(404, (b"x", b"y")))
        assert response.head is not None
        assert plain.head is not None
        if encode is encode_head:
            assert response.head.block == line + b"\r\nx: y"
            assert plain.head.block == b"HTTP/1.1 404 Not Found\r\nx: y"
        else:
            assert response.head.block == plain.head.block


@pytest.mark.parametrize(("options", "messages", "wanted"), LEGAL)
def test_bytes(options: dict[str, Any], messages: list[dict[str, Any]], wanted: bytes) -> None:
    response = make(**options)
    assert play(response, *messages) == wanted
    assert response.state is State.DONE


@pytest.mark.parametrize(
    ("status", "headers", "head"),
    [
        (204, (), b"HTTP/1.1 204 No Content"),
        (204, (LENGTH_3,), b"HTTP/1.1 204 No Content"),
        (205, (), b"HTTP/1.1 205 Reset Content\r\ncontent-length: 0"),
        (205, (LENGTH_3,), b"HTTP/1.1 205 Reset Content\r\ncontent-length: 0"),
        (304, (), b"HTTP/1.1 304 Not Modified"),
        (304, (LENGTH_3,), b"HTTP/1.1 304 Not Modified\r\ncontent-length: 3"),
    ],
)
@pytest.mark.parametrize(
    "pieces",
    [
        [body(b"abcd")],
        [body(b"abc", more=True), body(b"de")],
        [body(more=True), body(b"x" * JOIN_LIMIT, more=True), body()],
    ],
)
@pytest.mark.parametrize("head_only", [False, True])
def test_a_body_where_none_may_be_is_dropped(
    status: int, headers: tuple[Any, ...], head: bytes, pieces: list[dict[str, Any]], head_only: bool
) -> None:
    """Not a byte of it is sent, whatever length was promised. Fails with an error, or with the body on the wire."""
    dropped: list[int] = []

    class Watched(Response):
        def body_dropped(self, size: int) -> None:
            dropped.append(size)

    kind = Response if "TEST_COMPILED" in os.environ else Watched  # nothing interpreted derives from what is compiled
    response = kind(Heads(Defaults((), b"now"), encode_head), True, head_only, True)
    assert play(response, start(status, *headers), *pieces) == head + DATE + b"\r\n\r\n"
    assert (response.state, response.sent, response.keep_alive) == (State.DONE, 0, True)
    assert sum(dropped) == sum(len(piece["body"]) for piece in pieces) or kind is Response


@pytest.mark.parametrize("status", [204, 205, 304])
def test_a_file_where_no_body_may_be_is_not_sent(status: int) -> None:
    response = make()
    response.start(start(status))
    response.file(FILE, 3)
    head = Encoder(response.heads.defaults).first(response, b"")
    assert isinstance(head, bytes)
    assert head.endswith(DATE + b"\r\n\r\n")
    assert response.silent
    response.file_sent()
    assert (response.state, response.sent) == (State.DONE, 0)


@pytest.mark.parametrize("pieces", [[body(b"abcd")], [body(b"a", more=True), body()], [body(b"ab")]])
def test_head_is_answered_whatever_the_body_would_have_been(pieces: list[dict[str, Any]]) -> None:
    """The length that HEAD is told is that of the answer to GET, which a body given here need not be."""
    response = make(head_only=True)
    wanted = b"HTTP/1.1 200 OK\r\ncontent-length: 3" + DATE + b"\r\n\r\n"
    assert play(response, start(200, LENGTH_3), *pieces) == wanted


PLAIN = b"HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-type: t\r\ncontent-length: 3" + DATE + b"\r\n\r\nabc"


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([[b"x-a", b"1"], [b"content-type", b"t"]], id="lists"),
        pytest.param(([b"x-a", b"1"], (b"content-type", b"t")), id="mixed, in a tuple"),
        pytest.param({b"x-a": b"1", b"content-type": b"t"}.items(), id="items of a dict"),
        pytest.param([iter((b"x-a", b"1")), {b"content-type": 0, b"t": 0}], id="any iterable of two"),
        pytest.param([(b"x-a", bytearray(b"1")), (memoryview(b"content-type"), b"t")], id="what is like bytes"),
    ],
)
def test_headers_are_any_iterables(headers: Any) -> None:
    """As ASGI says, and with both builds. Fails, compiled, with loops over `tuple[bytes, bytes]`."""
    response = make()
    assert play(response, {"type": "http.response.start", "status": 200, "headers": headers}, body(b"abc")) == PLAIN
    assert [tuple(pair) for pair in response.response_headers] == [(b"x-a", b"1"), (b"content-type", b"t")]


def test_headers_may_be_none_or_come_from_a_generator() -> None:
    for headers in (None, iter(())):
        response = make(date=None)
        message = {"type": "http.response.start", "status": 200, "headers": headers}
        assert play(response, message, body()) == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


def test_pairs_that_are_lists_beside_the_server_s_own_fields() -> None:
    """Fails, compiled, where the names that the application set are looked at again."""
    response = make(pairs=[(b"server", b"aserver")], date=None)
    message = {"type": "http.response.start", "status": 200, "headers": [[b"server", b"mine"]]}
    assert play(response, message, body()) == b"HTTP/1.1 200 OK\r\nserver: mine\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize(("yes", "no"), [(1, 0), ("yes", None), (True, False)])
def test_more_is_whatever_is_true(yes: Any, no: Any) -> None:
    """`more_body`, `more_trailers` and `trailers`. Fails, compiled, where a bool is declared."""
    response = make(date=None)
    response.trailers_allowed = True
    trailers = {"type": "http.response.trailers", "headers": [[b"x-sum", b"1"]]}
    out = play(
        response,
        start(200, trailers=yes),
        body(b"a", more=yes),
        body(b"b", more=no),
        {**trailers, "more_trailers": yes},
        {**trailers, "more_trailers": no},
    )
    assert out.endswith(b"\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\nx-sum: 1\r\nx-sum: 1\r\n\r\n")
    with_length = make(date=None)
    played = play(with_length, start(200, LENGTH_3, trailers=no), body(b"ab", more=yes), body(b"c", more=no))
    assert played.endswith(b"content-length: 3\r\n\r\nabc")


def test_one_head_given_twice_is_the_same_bytes() -> None:
    heads = Heads(Defaults((), b"now"), encode_head)
    first, second = (Response(heads, True, False, True) for _ in range(2))
    messages = (start(200, LENGTH_3, (b"content-type", b"text/plain")), body(b"abc"))
    assert play(first, *messages) == play(second, *messages)


def test_remembered_heads_follow_the_clock() -> None:
    heads = Heads(Defaults((), b"now"), encode_head)
    messages = (start(200, LENGTH_3), body(b"abc"))
    play(Response(heads, True, False, True), *messages)
    heads.defaults.renew(b"later")
    assert b"date: later" in play(Response(heads, True, False, True), *messages)


def test_remembered_heads_are_bounded() -> None:
    heads = Heads(Defaults((), None), encode_head)
    for number in range(3 * REMEMBERED):
        heads.make(200, [(b"etag", b"%d" % number)])
    assert len(heads.made) <= REMEMBERED
    before = len(heads.made)
    heads.make(200, [(b"etag", b"x" * REMEMBERED_SIZE)])
    assert len(heads.made) == before


@pytest.mark.parametrize("messages", ILLEGAL)
def test_illegal(messages: list[dict[str, Any]]) -> None:
    response = make()
    play(response, *messages[:-1])
    state = response.state
    with pytest.raises(ApplicationError):
        play(response, messages[-1])
    assert response.state is state, "an illegal message must change nothing"


FILE = {"type": "http.response.pathsend", "path": "/x"}
TRAILERS = {"type": "http.response.trailers", "headers": []}


@pytest.mark.parametrize(
    ("before", "call"),
    [
        pytest.param([start(trailers=True)], lambda made: made.trailers(TRAILERS), id="trailers before the body"),
        pytest.param(
            [start(trailers=True), body(b"a", more=True)], lambda made: made.trailers(TRAILERS), id="amid the body"
        ),
        pytest.param(
            [start(trailers=True), body(b"a"), TRAILERS], lambda made: made.trailers(TRAILERS), id="trailers twice"
        ),
        pytest.param([start(), body(b"a")], lambda made: made.trailers(TRAILERS), id="trailers not announced"),
        pytest.param(
            [start()], lambda made: made.early_hint({"type": "http.response.early_hint", "links": []}), id="late hint"
        ),
        pytest.param([], lambda made: made.file(FILE, 3), id="file first"),
        pytest.param([start(trailers=True)], lambda made: made.file(FILE, 3), id="file with trailers"),
        pytest.param([start(), body(b"a", more=True)], lambda made: made.file(FILE, 3), id="file amid the body"),
        pytest.param([start(), body(b"a")], lambda made: made.file(FILE, 3), id="file after the body"),
        pytest.param([start(200, LENGTH_3)], lambda made: made.file(FILE, 4), id="file of another length"),
    ],
)
def test_illegal_extensions(before: list[dict[str, Any]], call: Callable[[Response], object]) -> None:
    response = make()
    response.trailers_allowed = True
    play(response, *before)
    state = response.state
    with pytest.raises(ApplicationError):
        call(response)
    assert response.state is state, "an illegal message must change nothing"


def test_an_error_names_the_field() -> None:
    with pytest.raises(ApplicationError, match=r"'x-bad'.*NUL, CR or LF"):
        compile_head(200, [(b"x-bad", b"a\nb")], frozenset(), encode_head)


def test_large_bodies_are_not_copied() -> None:
    data = b"x" * JOIN_LIMIT
    for response, messages in (
        (make(), [start(200, (b"content-length", b"%d" % len(data))), body(data)]),
        (make(), [start(200), body(data, more=True)]),
    ):
        response.start(messages[0])
        out = Encoder(response.heads.defaults).first(response, response.body(messages[1]))
        assert isinstance(out, list)
        assert any(piece is data for piece in out)


def test_trailers() -> None:
    response = make()
    response.trailers_allowed = True
    trailers = {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")], "more_trailers": True}
    out = play(response, start(200, trailers=True), body(b"abc"), trailers, {**trailers, "more_trailers": False})
    assert out.endswith(b"\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\nx-sum: 1\r\n\r\n")
    assert b"transfer-encoding: chunked" in out
    assert response.state is State.DONE


def test_close_delimited() -> None:
    response = make(modern=False)
    play(response, start(200), body(b"a", more=True))
    assert is_close_delimited(response)
    chunked = make()
    play(chunked, start(200), body(b"a", more=True))
    assert not is_close_delimited(chunked)


def test_the_server_s_own_answer() -> None:
    def answered(status: int, *, head_only: bool = False, keep_alive: bool = False) -> bytes:
        response = make(head_only=head_only, keep_alive=keep_alive)
        data = Encoder(response.heads.defaults).first(response, response.answer(status))
        assert isinstance(data, bytes)
        return data

    assert answered(503) == (
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\nretry-after: 1\r\n"
        b"content-length: 20\r\nconnection: close" + DATE + b"\r\n\r\nService Unavailable\n"
    )
    assert answered(500, head_only=True, keep_alive=True).endswith(b"content-length: 22" + DATE + b"\r\n\r\n")


def test_early_hints() -> None:
    response = make()
    fields = response.early_hint({"type": "http.response.early_hint", "links": [b"</a>", b"</b>"]})
    wanted = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nlink: </b>\r\n\r\n"
    assert Encoder(response.heads.defaults).interim(103, fields) == wanted
    with pytest.raises(ApplicationError, match="CR or LF"):
        response.early_hint({"type": "http.response.early_hint", "links": [b"</a>\r\nx: y"]})


def test_status_lines() -> None:
    assert encode_head(200, ()) == b"HTTP/1.1 200 OK"
    assert encode_head(299, ()) == b"HTTP/1.1 299 "


@pytest.mark.parametrize("status", [100, 101, 199, 600, -1, "200", None, 200.5])
def test_illegal_status(status: object) -> None:
    with pytest.raises(ApplicationError, match="from 200 to 599"):
        make().start(start(status))

"""Heads of requests: RFC 9113 section 8, the limits, and what the application gets of a head."""

import pytest

from aserver.errors import ClientError
from aserver.protocol.http2.block_reader import BlockReader
from aserver.protocol.http2.errors import PROTOCOL_ERROR, StreamFaultError
from aserver.protocol.http2.request import StreamRequest, make_request
from aserver.protocol.semantics.limits import RequestLimits
from tests.protocol.http2.wire import GET, ROOMY, block, literal

LIMITS = RequestLimits(line=100, fields=5, field_size=60, body=1000)
Fields = list[tuple[bytes, bytes]]


def make(*fields: tuple[bytes, bytes], **pseudo: bytes | None) -> StreamRequest:
    values: dict[bytes, bytes | None] = {**GET, **{f":{name}".encode(): value for name, value in pseudo.items()}}
    given = [(name, value) for name, value in values.items() if value is not None]
    return make_request(1, given + list(fields), LIMITS)


MALFORMED: list[tuple[str, Fields, dict[str, bytes | None]]] = [
    ("8.2 upper case", [(b"Accept", b"x")], {}),
    ("8.2 upper case in a name of ours", [(b"X-x", b"x")], {}),
    ("8.2.1 empty name", [(b"", b"x")], {}),
    ("8.2.1 space in a name", [(b"a b", b"x")], {}),
    ("8.2.1 colon in a name", [(b"a:", b"x")], {}),
    ("8.2.1 control in a name", [(b"a\x01", b"x")], {}),
    ("8.2.1 NUL in a value", [(b"a", b"x\0")], {}),
    ("8.2.1 LF in a value", [(b"a", b"x\ny")], {}),
    ("8.2.1 CR in a value", [(b"accept", b"x\ry")], {}),
    ("8.2.1 space before a value", [(b"a", b" x")], {}),
    ("8.2.1 tab behind a value", [(b"a", b"x\t")], {}),
    ("8.2.1 NUL in :path", [], {"path": b"/\0"}),
    ("8.2.2 connection", [(b"connection", b"close")], {}),
    ("8.2.2 keep-alive", [(b"keep-alive", b"5")], {}),
    ("8.2.2 proxy-connection", [(b"proxy-connection", b"close")], {}),
    ("8.2.2 transfer-encoding", [(b"transfer-encoding", b"chunked")], {}),
    ("8.2.2 upgrade", [(b"upgrade", b"websocket")], {}),
    ("8.2.2 te", [(b"te", b"gzip")], {}),
    ("8.2.2 te with more", [(b"te", b"trailers, gzip")], {}),
    ("8.3 unknown pseudo-header", [], {"test": b"x"}),
    ("8.3 one of responses", [], {"status": b"200"}),
    ("8.3 behind a field", [(b"a", b"b"), (b":path", b"/")], {"path": None}),
    ("8.3 behind a cookie", [(b"cookie", b"b"), (b":path", b"/")], {"path": None}),
    ("8.3 twice", [(b":path", b"/")], {}),
    ("8.3.1 no :method", [], {"method": None}),
    ("8.3.1 empty :method", [], {"method": b""}),
    ("8.3.1 space in :method", [], {"method": b"GET /"}),
    ("8.3.1 no :scheme", [], {"scheme": None}),
    ("8.3.1 malformed :scheme", [], {"scheme": b"1://x"}),
    ("8.3.1 no :path", [], {"path": None}),
    ("8.3.1 empty :path", [], {"path": b""}),
    ("8.3.1 :path without a slash", [], {"path": b"x"}),
    ("8.3.1 absolute :path", [], {"path": b"http://t/"}),
    ("8.3.1 asterisk outside OPTIONS", [], {"path": b"*"}),
    ("8.3.1 fragment", [], {"path": b"/#x"}),
    ("8.3.1 space in :path", [], {"path": b"/ HTTP/1.1"}),
    ("8.3.1 not ASCII", [], {"path": b"/\xc3\xa4"}),
    ("8.3.1 host is another", [(b"host", b"u")], {}),
    ("8.3.1 host twice", [(b"host", b"t"), (b"host", b"t")], {}),
    ("8.1.1 content-length twice", [(b"content-length", b"1"), (b"content-length", b"1")], {}),
    ("8.1.1 content-length a list", [(b"content-length", b"1, 1")], {}),
    ("8.1.1 negative content-length", [(b"content-length", b"-1")], {}),
    ("8.1.1 endless content-length", [(b"content-length", b"0" * 21)], {}),
    ("8.5 CONNECT with :path", [], {"method": b"CONNECT", "scheme": None}),
    ("8.5 CONNECT with :scheme", [], {"method": b"CONNECT", "path": None}),
    ("8.5 CONNECT without :authority", [], {"method": b"CONNECT", "path": None, "scheme": None, "authority": None}),
    ("RFC 8441 4 :protocol with GET", [], {"protocol": b"websocket"}),
    ("RFC 8441 4 without :scheme", [], {"method": b"CONNECT", "protocol": b"websocket", "scheme": None}),
    ("RFC 8441 4 without :authority", [], {"method": b"CONNECT", "protocol": b"websocket", "authority": None}),
]


@pytest.mark.parametrize(("fields", "pseudo"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
def test_malformed(fields: Fields, pseudo: dict[str, bytes | None]) -> None:
    with pytest.raises(StreamFaultError) as caught:
        make(*fields, **pseudo)
    assert (caught.value.stream, caught.value.code) == (1, PROTOCOL_ERROR)


REFUSED: list[tuple[str, int, Fields, dict[str, bytes | None]]] = [
    ("line", 414, [], {"path": b"/" + b"x" * 100}),
    ("fields", 431, [(b"a", b"b")] * 6, {}),
    ("crumbs are fields", 431, [(b"cookie", b"b")] * 6, {}),
    ("size", 431, [(b"a", b"b" * 58)], {}),
    ("size of a cookie", 431, [(b"cookie", b"b" * 58)], {}),
    ("size of what proxies add, together", 431, [(b"x-forwarded-for", b"192.0.2.1, 192.0.2.2")] * 3, {}),
    ("body", 413, [(b"content-length", b"1001")], {}),
    ("expectation", 417, [(b"expect", b"a miracle")], {}),
    ("authority", 400, [], {"authority": b"user@host"}),
    ("empty authority", 400, [], {"authority": b""}),
    ("no authority", 400, [], {"authority": None}),
    ("CONNECT", 501, [], {"method": b"CONNECT", "path": None, "scheme": None}),
]


@pytest.mark.parametrize(("status", "fields", "pseudo"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(status: int, fields: Fields, pseudo: dict[str, bytes | None]) -> None:
    with pytest.raises(ClientError) as caught:
        make(*fields, **pseudo)
    assert caught.value.status == status


def test_at_the_limits() -> None:
    request = make(*[(b"a", b"b" * 57)] * 5, path=b"/" + b"x" * 86)
    assert len(request.headers) == 6
    assert make((b"content-length", b"1000")).length == 1000


def test_what_the_application_gets() -> None:
    """ASGI: `host` first, of :authority; crumbs joined; names and the order of the rest as they came."""
    request = make((b"cookie", b"a=1"), (b"x", b"1"), (b"cookie", b"b=2"), (b"x", b"2"), path=b"/p?q", authority=b"h:1")
    assert request.method == "GET"
    assert request.target == b"/p?q"
    assert request.headers == [(b"host", b"h:1"), (b"x", b"1"), (b"x", b"2"), (b"cookie", b"a=1; b=2")]
    assert request.length == -1


def test_host_stands_where_it_came() -> None:
    fields = [(b"accept", b"*/*"), (b"host", b"T")]
    assert make(*fields).headers == fields
    assert make(*fields, authority=None).authority == b"T"


def test_fields_that_the_shell_looks_at() -> None:
    forwarded, expect = (b"x-forwarded-for", b"a"), (b"expect", b"100-continue")
    request = make((b"te", b"trailers"), expect, forwarded, (b"priority", b"u=1, i"))
    assert request.framing == {b"te": b"trailers", b"expect": b"100-continue"}
    assert request.forwarding == {b"x-forwarded-for": b"a"}
    assert request.priority == (1, True)
    assert len(request.headers) == 5


def test_methods_and_asterisk() -> None:
    assert make(method=b"OPTIONS", path=b"*").target == b"*"
    assert make(method=b"M-SEARCH").method == "M-SEARCH"
    assert make(method=b"brew").method == "brew"
    request = make(method=b"CONNECT", protocol=b"websocket")
    assert (request.method, request.protocol) == ("CONNECT", b"websocket")


def test_extended_connect_only_where_it_is_offered() -> None:
    reader = BlockReader(ROOMY)
    connect = block(method=b"CONNECT", protocol=b"websocket")
    with pytest.raises(StreamFaultError):
        reader.request(1, connect)
    reader.connect_protocol = True
    assert reader.request(3, connect).protocol == b"websocket"


def test_too_many_fields_are_refused_and_the_table_stays_right() -> None:
    reader = BlockReader(RequestLimits(line=8190, fields=3, field_size=8190, body=0))
    with pytest.raises(ClientError) as caught:
        reader.request(1, block(*[(b"x", b"y")] * 10) + literal(b"late", b"1"))
    assert caught.value.status == 431
    assert reader.request(3, block() + b"\xbe").headers[-1] == (b"late", b"1")

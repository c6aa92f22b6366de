# ruff: noqa: E501 - a table
"""The cases of h2spec, the conformance suite for HTTP/2, by its own numbers, in this project's words.

A row has what the client sends and what it waits for, in turn. Each begins after the exchange of SETTINGS, but for those
that are `bare`. Verdicts are h2spec's; where it lets any close of the connection pass, a row wants the code as well.
"""

from typing import NamedTuple

from aserver.protocol.http2 import errors, frames
from tests.protocol.http2.rfc9113_rows import headers, n, setting
from tests.protocol.http2.wire import block, data, frame, get, post

F = frames
NOTHING = frames.settings({frames.INITIAL_WINDOW_SIZE: 0})
PROTOCOL, CLOSED, SIZE = (errors.PROTOCOL_ERROR,), (errors.STREAM_CLOSED,), (errors.FRAME_SIZE_ERROR,)
FLOW, COMPRESSION = (errors.FLOW_CONTROL_ERROR,), (errors.COMPRESSION_ERROR,)
REFUSED = (errors.PROTOCOL_ERROR, errors.REFUSED_STREAM)


class Due(NamedTuple):
    """An event to wait for; the others before it do not matter."""

    event: str
    codes: tuple[int, ...] = ()
    stream: int = 0
    size: int = -1
    data: bytes = b""


def connection_error(codes: tuple[int, ...]) -> Due:
    return Due("connection error", codes)


def stream_error(codes: tuple[int, ...]) -> Due:
    return Due("stream error", codes)


def pong(data: bytes = bytes(8)) -> Due:
    return Due("pong", data=data)


CLOSE = Due("close")
STREAM_END = Due("end of the stream")
HEAD = Due("head", stream=1)
SETTINGS_ACK = Due("acknowledgement of SETTINGS")
BODY = Due("data")
ONE_BYTE = Due("data", size=1)


class Row(NamedTuple):
    number: str
    name: str
    steps: tuple[bytes | Due, ...]
    bare: bool = False


B = block()
PING = F.ping(bytes(8), ack=False)
FIELD = block((b"x-dummy0", b"x" * 4000), method=None, scheme=None, path=None, authority=None)  # h2spec's DummyHeaders
LARGE = block(*[(b"x-dummy%d" % i, b"x" * 4000) for i in range(5)])
TRAILERS = block((b"x-test", b"ok"), method=None, scheme=None, path=None, authority=None)
METHOD = block(method=b"POST", scheme=None, path=None, authority=None)


def priority(stream: int, depends: int = 0, weight: int = 255, exclusive: int = 0) -> bytes:
    return frame(F.PRIORITY, 0, stream, n(exclusive << 31 | depends) + bytes((weight,)))


def literal(raw: str) -> bytes:
    """A whole request whose block ends with these bytes."""
    return headers(1, B + bytes.fromhex(raw))


def malformed(request: bytes, number: str, name: str) -> Row:
    return Row(number, name, (request, stream_error(PROTOCOL)))


#: RFC 7541 section 6.2, by the bits of its forms: user-agent and x-test, plain and with Huffman's code.
USER_AGENT, USER_AGENT_CODED = "0a757365722d6167656e7406683273706563", "87b505b161cc5a93849c48aca4"
X_TEST, X_TEST_CODED = "06782d7465737406683273706563", "85f2b24a84ff849c48aca4"

GENERIC = [
    Row("generic/1/1", "the server begins with SETTINGS", (F.PREFACE + setting(4, 65_535), Due("settings first")), bare=True),
    Row("generic/2/1", "PRIORITY on an idle stream", (priority(1) + PING, pong())),
    Row("generic/2/2", "WINDOW_UPDATE on a half-closed stream", (NOTHING + get(1) + F.window_update(1, 1), BODY)),
    Row("generic/2/3", "PRIORITY on a half-closed stream", (NOTHING + get(1) + priority(1) + F.window_update(1, 1), BODY)),
    Row("generic/2/4", "RST_STREAM on a half-closed stream", (get(1), F.rst_stream(1, 8) + PING, pong())),
    Row("generic/2/5", "PRIORITY on a closed stream", (get(1), STREAM_END, priority(1) + PING, pong())),
    Row("generic/3.1/1", "DATA", (post(1), data(1, b"test", end=True), HEAD)),
    Row("generic/3.1/2", "DATA twice", (post(1), data(1, b"test"), data(1, b"test", end=True), HEAD)),
    Row("generic/3.1/3", "DATA with padding", (post(1), frame(F.DATA, F.PADDED | F.END_STREAM, 1, b"\6testpadded"), HEAD)),
    Row("generic/3.2/1", "HEADERS", (get(1), HEAD)),
    Row("generic/3.2/2", "HEADERS with padding", (headers(1, b"\10" + B + bytes(8), 0xD), HEAD)),
    Row("generic/3.2/3", "HEADERS with priority", (headers(1, n(0) + b"\xff" + B, 0x25), HEAD)),
    Row("generic/3.3/1", "PRIORITY, weight 1", (priority(1, weight=0), get(1), HEAD)),
    Row("generic/3.3/2", "PRIORITY, weight 256", (priority(1), get(1), HEAD)),
    Row("generic/3.3/3", "PRIORITY that depends on a stream", (priority(3, depends=1, weight=0), get(1), HEAD)),
    Row("generic/3.3/4", "PRIORITY, exclusive", (priority(1, weight=0, exclusive=1), get(1), HEAD)),
    Row("generic/3.3/5", "PRIORITY of an idle stream, HEADERS of a lower one", (priority(3), get(1), HEAD)),
    Row("generic/3.4/1", "RST_STREAM", (post(1), F.rst_stream(1, 8), PING, pong())),
    Row("generic/3.5/1", "SETTINGS", (F.settings({1: 4096, 2: 1, 3: 100, 4: 65_535, 5: 16_384, 6: 100}), SETTINGS_ACK)),
    Row("generic/3.7/1", "PING", (F.ping(b"h2spec\0\0", ack=False), pong(b"h2spec\0\0"))),
    Row("generic/3.8/1", "GOAWAY", (F.goaway(0, 0, b"h2spec"), CLOSE)),
    Row("generic/3.9/1", "WINDOW_UPDATE of the connection", (F.window_update(0, 1), PING, pong())),
    Row("generic/3.9/2", "WINDOW_UPDATE of a stream", (get(1), F.window_update(1, 1), HEAD)),
    Row("generic/3.10/1", "CONTINUATION", (headers(1, B[:5], F.END_STREAM), frame(9, 4, 1, B[5:]), HEAD)),
    Row("generic/3.10/2", "CONTINUATION twice", (headers(1, B[:5], F.END_STREAM), frame(9, 0, 1, B[5:10]), frame(9, 4, 1, B[10:]), HEAD)),
    Row("generic/4/1", "GET", (get(1), HEAD)),
    Row("generic/4/2", "HEAD", (get(1, method=b"HEAD"), HEAD)),
    Row("generic/4/3", "POST", (post(1), data(1, b"test", end=True), HEAD)),
    Row("generic/4/4", "POST with trailers", (post(1, (b"trailer", b"x-test")), data(1, b"test"), headers(1, TRAILERS), HEAD)),
    Row("generic/5/1", "indexed field", (literal("ba"), HEAD)),
    Row("generic/5/2", "literal that is indexed: name, Huffman", (literal("40" + USER_AGENT_CODED), HEAD)),
    Row("generic/5/3", "literal that is indexed: name", (literal("40" + USER_AGENT), HEAD)),
    Row("generic/5/4", "literal that is indexed: new name", (literal("40" + X_TEST), HEAD)),
    Row("generic/5/5", "literal that is indexed: new name, Huffman", (literal("40" + X_TEST_CODED), HEAD)),
    Row("generic/5/6", "literal that is not indexed: name", (literal("00" + USER_AGENT), HEAD)),
    Row("generic/5/7", "literal that is not indexed: name, Huffman", (literal("00" + USER_AGENT_CODED), HEAD)),
    Row("generic/5/8", "literal that is not indexed: new name", (literal("00" + X_TEST), HEAD)),
    Row("generic/5/9", "literal that is not indexed: new name, Huffman", (literal("00" + X_TEST_CODED), HEAD)),
    Row("generic/5/10", "literal never indexed: name", (literal("10" + USER_AGENT), HEAD)),
    Row("generic/5/11", "literal never indexed: name, Huffman", (literal("10" + USER_AGENT_CODED), HEAD)),
    Row("generic/5/12", "literal never indexed: new name", (literal("10" + X_TEST), HEAD)),
    Row("generic/5/13", "literal never indexed: new name, Huffman", (literal("10" + X_TEST_CODED), HEAD)),
    Row("generic/5/14", "new size of the table", (headers(1, b"\x20" + B), HEAD)),
    Row("generic/5/15", "two new sizes of the table", (headers(1, b"\x20\x3f\xe1\x1f" + B), HEAD)),
]  # fmt: skip

PREFACE_TO_STATES = [
    Row("http2/3.5/1", "the server's preface", (F.PREFACE + setting(4, 65_535), Due("settings first")), bare=True),
    Row("http2/3.5/2", "another preface", (b"INVALID CONNECTION PREFACE\r\n\r\n", CLOSE), bare=True),
    Row("http2/4.1/1", "unknown type", (frame(0x16, 0, 0, bytes(8)) + PING, pong())),
    Row("http2/4.1/2", "unknown flag", (frame(F.PING, 0x16, 0, bytes(8)), pong())),
    Row("http2/4.1/3", "reserved bit", (b"\0\0\10\6\x16\x80\0\0\0" + bytes(8), pong())),
    Row("http2/4.2/1", "DATA of 2**14 bytes", (post(1), data(1, b"x" * 16_384, end=True), HEAD)),
    Row("http2/4.2/2", "DATA above the largest frame", (post(1), data(1, b"x" * 16_385, end=True), stream_error(SIZE))),
    Row("http2/4.2/3", "HEADERS above the largest frame", (headers(1, LARGE), connection_error(SIZE))),
    Row("http2/4.3/1", "block that breaks off", (headers(1, b"\x40"), connection_error(COMPRESSION))),
    Row("http2/4.3/2", "PRIORITY inside a block", (headers(1, B, 0), priority(1), frame(9, 4, 1, FIELD), connection_error(PROTOCOL))),
    Row("http2/4.3/3", "HEADERS of another stream inside a block", (headers(1, B, 0), get(3), frame(9, 4, 1, FIELD), connection_error(PROTOCOL))),
    Row("http2/5.1/1", "idle: DATA", (data(1, b"test", end=True), connection_error(PROTOCOL))),
    Row("http2/5.1/2", "idle: RST_STREAM", (F.rst_stream(1, 8), connection_error(PROTOCOL))),
    Row("http2/5.1/3", "idle: WINDOW_UPDATE", (F.window_update(1, 100), connection_error(PROTOCOL))),
    Row("http2/5.1/4", "idle: CONTINUATION", (frame(9, 4, 1, B), connection_error(PROTOCOL))),
    Row("http2/5.1/5", "half-closed: DATA", (get(1), data(1, b"test", end=True), stream_error(CLOSED))),
    Row("http2/5.1/6", "half-closed: HEADERS", (get(1), get(1), stream_error(CLOSED))),
    Row("http2/5.1/7", "half-closed: CONTINUATION", (get(1), frame(9, 4, 1, B), stream_error(CLOSED + PROTOCOL))),
    Row("http2/5.1/8", "closed by RST_STREAM: DATA", (post(1), F.rst_stream(1, 8), data(1, b"test", end=True), stream_error(CLOSED))),
    Row("http2/5.1/9", "closed by RST_STREAM: HEADERS", (post(1), F.rst_stream(1, 8), get(1), stream_error(CLOSED))),
    Row("http2/5.1/10", "closed by RST_STREAM: CONTINUATION", (post(1), F.rst_stream(1, 8), frame(9, 4, 1, FIELD), stream_error(CLOSED + PROTOCOL))),
    Row("http2/5.1/11", "closed: DATA", (get(1), STREAM_END, data(1, b"test", end=True), connection_error(CLOSED))),
    Row("http2/5.1/12", "closed: HEADERS", (get(1), STREAM_END, get(1), connection_error(CLOSED))),
    Row("http2/5.1/13", "closed: CONTINUATION", (get(1), STREAM_END, frame(9, 4, 1, FIELD), connection_error(CLOSED + PROTOCOL))),
    Row("http2/5.1.1/1", "even number", (get(2), connection_error(PROTOCOL))),
    # Begun streams close all lower ones, so that both codes are true; h2spec passes it, as the connection closes.
    Row("http2/5.1.1/2", "number below the last", (get(5), get(3), connection_error(PROTOCOL + CLOSED))),
    Row("http2/5.1.1/3", "HEADERS of a half-closed stream", (get(5), get(5), stream_error(CLOSED))),  # after 2.6.0
    Row("http2/5.1.2/1", "more streams than allowed", (NOTHING, b"".join(get(i) for i in range(1, 203, 2)), stream_error(REFUSED))),
    Row("http2/5.3.1/1", "HEADERS that depend on themselves", (headers(1, n(1) + b"\xff" + B, 0x25), stream_error(PROTOCOL))),
    Row("http2/5.3.1/2", "PRIORITY that depends on itself", (priority(1, depends=1), stream_error(PROTOCOL))),
    Row("http2/5.4.1/1", "mistake: the connection closes", (frame(F.PING, 0, 3, bytes(8)), CLOSE)),
    Row("http2/5.4.1/2", "mistake: GOAWAY comes first", (frame(F.PING, 0, 3, bytes(8)), Due("goaway", PROTOCOL))),  # strict
    Row("http2/5.5/1", "extension", (frame(0x16, 0, 0, bytes(8)) + PING, pong())),
    Row("http2/5.5/2", "extension inside a block", (headers(1, B, 1), frame(0x16, 0, 0, bytes(8)), connection_error(PROTOCOL))),
]  # fmt: skip

FRAMES = [
    Row("http2/6.1/1", "DATA on stream 0", (data(0, b"test", end=True), connection_error(PROTOCOL))),
    Row("http2/6.1/2", "DATA on a half-closed stream", (get(1, method=b"POST"), data(1, b"test", end=True), stream_error(CLOSED))),
    Row("http2/6.1/3", "DATA with too much padding", (post(1, (b"content-length", b"4")), frame(F.DATA, 9, 1, b"\6Test"), connection_error(PROTOCOL))),
    Row("http2/6.2/1", "PRIORITY before END_HEADERS", (headers(1, B, 0), priority(1), frame(9, 4, 1, FIELD), connection_error(PROTOCOL))),
    Row("http2/6.2/2", "HEADERS of another stream before END_HEADERS", (headers(1, B, 0), get(3), frame(9, 4, 1, FIELD), connection_error(PROTOCOL))),
    Row("http2/6.2/3", "HEADERS on stream 0", (headers(0, B), connection_error(PROTOCOL))),
    Row("http2/6.2/4", "HEADERS with too much padding", (headers(1, bytes((len(B) + 2,)) + B, 0xD), stream_error(PROTOCOL))),
    Row("http2/6.3/1", "PRIORITY on stream 0", (priority(0), connection_error(PROTOCOL))),
    Row("http2/6.3/2", "PRIORITY of four bytes", (get(1), frame(F.PRIORITY, 0, 1, b"\x80\0\0\1"), stream_error(SIZE))),
    Row("http2/6.3/3", "PRIORITY of an idle stream, HEADERS of a lower one", (priority(3), get(1), HEAD)),  # strict, before 2.6.0
    Row("http2/6.4/1", "RST_STREAM on stream 0", (F.rst_stream(0, 8), connection_error(PROTOCOL))),
    Row("http2/6.4/2", "RST_STREAM on an idle stream", (F.rst_stream(1, 8), connection_error(PROTOCOL))),
    Row("http2/6.4/3", "RST_STREAM of three bytes", (get(1), frame(F.RST_STREAM, 0, 1, bytes(3)), stream_error(SIZE))),
    Row("http2/6.5/1", "acknowledgement with a payload", (frame(F.SETTINGS, 1, 0, b"\0"), connection_error(SIZE))),
    Row("http2/6.5/2", "SETTINGS on a stream", (frame(F.SETTINGS, 0, 1, n(3, 2) + n(100)), connection_error(PROTOCOL))),
    Row("http2/6.5/3", "SETTINGS of three bytes", (frame(F.SETTINGS, 0, 0, b"\0\3\0"), connection_error(SIZE))),
    Row("http2/6.5.2/1", "ENABLE_PUSH of 2", (setting(2, 2), connection_error(PROTOCOL))),
    Row("http2/6.5.2/2", "INITIAL_WINDOW_SIZE of 2**31", (setting(4, 2**31), connection_error(FLOW))),
    Row("http2/6.5.2/3", "MAX_FRAME_SIZE of 2**14 - 1", (setting(5, 16_383), connection_error(PROTOCOL))),
    Row("http2/6.5.2/4", "MAX_FRAME_SIZE of 2**24", (setting(5, 2**24), connection_error(PROTOCOL))),
    Row("http2/6.5.2/5", "unknown setting", (setting(0xFF, 1) + PING, pong())),
    Row("http2/6.5.3/1", "INITIAL_WINDOW_SIZE twice in a frame", (frame(F.SETTINGS, 0, 0, n(4, 2) + n(100) + n(4, 2) + n(1)), SETTINGS_ACK, get(1), ONE_BYTE)),
    Row("http2/6.5.3/2", "SETTINGS are acknowledged", (setting(2, 0), SETTINGS_ACK)),
    Row("http2/6.7/1", "PING", (F.ping(b"h2spec\0\0", ack=False), pong(b"h2spec\0\0"))),
    Row("http2/6.7/2", "acknowledgement of no PING", (F.ping(b"invalid\0", ack=True), F.ping(b"h2spec\0\0", ack=False), pong(b"h2spec\0\0"))),
    Row("http2/6.7/3", "PING on a stream", (frame(F.PING, 0, 1, bytes(8)), connection_error(PROTOCOL))),
    Row("http2/6.7/4", "PING of six bytes", (frame(F.PING, 0, 0, bytes(6)), connection_error(SIZE))),
    Row("http2/6.8/1", "GOAWAY on a stream", (frame(F.GOAWAY, 0, 1, bytes(8)), connection_error(PROTOCOL))),
    Row("http2/6.9/1", "WINDOW_UPDATE of 0 for the connection", (F.window_update(0, 0), connection_error(PROTOCOL))),
    Row("http2/6.9/2", "WINDOW_UPDATE of 0 for a stream", (post(1), F.window_update(1, 0), stream_error(PROTOCOL))),
    Row("http2/6.9/3", "WINDOW_UPDATE of three bytes", (frame(F.WINDOW_UPDATE, 0, 0, b"\0\0\1"), connection_error(SIZE))),
    Row("http2/6.9.1/1", "a window of one byte", (setting(4, 1), SETTINGS_ACK, get(1), ONE_BYTE)),
    Row("http2/6.9.1/2", "window of the connection above 2**31-1", (F.window_update(0, 2**31 - 1) * 2, Due("goaway", FLOW))),
    Row("http2/6.9.1/3", "window of a stream above 2**31-1", (post(1), F.window_update(1, 2**31 - 1), F.window_update(1, 2**31 - 1), Due("reset", FLOW, 1))),
    Row("http2/6.9.2/1", "window widened after HEADERS", (NOTHING, SETTINGS_ACK, get(1), setting(4, 1), SETTINGS_ACK, ONE_BYTE)),
    Row("http2/6.9.2/2", "window below 0", (setting(4, 3), SETTINGS_ACK, get(1), BODY, setting(4, 2), SETTINGS_ACK, F.window_update(1, 2), ONE_BYTE)),
    Row("http2/6.9.2/3", "window above 2**31-1 by SETTINGS", (setting(4, 2**31), connection_error(FLOW))),
    Row("http2/6.10/1", "CONTINUATION twice", (headers(1, B, 1), frame(9, 0, 1, FIELD), frame(9, 4, 1, FIELD), HEAD)),
    Row("http2/6.10/2", "DATA behind CONTINUATION", (headers(1, B, 0), frame(9, 0, 1, FIELD), data(1, b"test", end=True), connection_error(PROTOCOL))),
    Row("http2/6.10/3", "CONTINUATION on stream 0", (headers(1, B, 1), frame(9, 4, 0, FIELD), connection_error(PROTOCOL))),
    Row("http2/6.10/4", "CONTINUATION behind HEADERS that end", (get(1), frame(9, 4, 1, FIELD), connection_error(PROTOCOL))),
    Row("http2/6.10/5", "CONTINUATION behind CONTINUATION that ends", (headers(1, B, 1), frame(9, 4, 1, FIELD), frame(9, 4, 1, FIELD), connection_error(PROTOCOL))),
    Row("http2/6.10/6", "CONTINUATION behind DATA", (headers(1, B, 0), data(1, b"test", end=True), frame(9, 0, 1, FIELD), connection_error(PROTOCOL))),
]  # fmt: skip

MESSAGES = [
    Row("http2/7/1", "GOAWAY with an unknown code", (F.goaway(0, 0xFF), CLOSE)),
    Row("http2/7/2", "RST_STREAM with an unknown code", (post(1), F.rst_stream(1, 0xFF), PING, pong())),
    Row("http2/8.1/1", "trailers without END_STREAM", (post(1), data(1, b"test"), headers(1, TRAILERS, F.END_HEADERS), stream_error(PROTOCOL))),
    malformed(get(1, (b"X-TEST", b"ok")), "http2/8.1.2/1", "upper case"),
    malformed(get(1, (b":test", b"ok")), "http2/8.1.2.1/1", "unknown pseudo-header field"),
    malformed(get(1, (b":status", b"200")), "http2/8.1.2.1/2", "pseudo-header field of responses"),
    Row("http2/8.1.2.1/3", "pseudo-header field in trailers", (post(1), data(1, b"test"), headers(1, METHOD, F.END_HEADERS), stream_error(PROTOCOL))),
    malformed(headers(1, TRAILERS + B), "http2/8.1.2.1/4", "pseudo-header field behind others"),
    malformed(get(1, (b"connection", b"keep-alive")), "http2/8.1.2.2/1", "field of HTTP/1's connections"),
    malformed(get(1, (b"trailers", b"test"), (b"te", b"trailers, deflate")), "http2/8.1.2.2/2", "te"),
    malformed(get(1, path=b""), "http2/8.1.2.3/1", "empty :path"),
    malformed(get(1, method=None), "http2/8.1.2.3/2", "no :method"),
    malformed(get(1, scheme=None), "http2/8.1.2.3/3", "no :scheme"),
    malformed(get(1, path=None), "http2/8.1.2.3/4", "no :path"),
    malformed(get(1, (b":method", b"GET")), "http2/8.1.2.3/5", ":method twice"),
    malformed(get(1, (b":scheme", b"http")), "http2/8.1.2.3/6", ":scheme twice"),
    malformed(get(1, (b":path", b"/")), "http2/8.1.2.3/7", ":path twice"),
    malformed(post(1, (b"content-length", b"1")) + data(1, b"test", end=True), "http2/8.1.2.6/1", "content-length of one DATA frame"),
    malformed(post(1, (b"content-length", b"1")) + data(1, b"test") + data(1, b"test", end=True), "http2/8.1.2.6/2", "content-length of several"),
    Row("http2/8.2/1", "PUSH_PROMISE", (frame(F.PUSH_PROMISE, 4, 1, n(3) + B), connection_error(PROTOCOL))),
]  # fmt: skip

HPACK = [
    Row("hpack/2.3.3/1", "index in no table", (literal("c6"), connection_error(COMPRESSION))),
    Row("hpack/2.3.3/2", "index of a name in no table", (literal("7f0700"), connection_error(COMPRESSION))),
    Row("hpack/4.2/1", "new size at the end of a block", (literal("21"), connection_error(COMPRESSION))),
    Row("hpack/5.2/1", "padding of more than seven bits", (literal("0085f2b24a84ff8449509fff"), connection_error(COMPRESSION))),
    Row("hpack/5.2/2", "padding of zeros", (literal("0085f2b24a84ff83495090"), connection_error(COMPRESSION))),
    Row("hpack/5.2/3", "EOS", (literal("0085f2b24a87fffffffd25427f"), connection_error(COMPRESSION))),
    Row("hpack/6.1/1", "index 0", (literal("80"), connection_error(COMPRESSION))),
    Row("hpack/6.3/1", "table larger than allowed", (headers(1, b"\x3f\xe2\x1f" + B), connection_error(COMPRESSION))),
]  # fmt: skip

ROWS = GENERIC + PREFACE_TO_STATES + FRAMES + MESSAGES + HPACK

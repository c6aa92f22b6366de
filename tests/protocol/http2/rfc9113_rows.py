# ruff: noqa: E501 - a table
"""Bytes of clients and what is due to them, by the section of RFC 9113. Each row begins after preface and SETTINGS."""

from typing import NamedTuple

from aserver.protocol.http2 import frames
from tests.protocol.http2.wire import OPENING, block, data, frame, get, post

F = frames
END = F.END_STREAM
WHOLE = F.END_STREAM | F.END_HEADERS


class Row(NamedTuple):
    section: str
    name: str
    raw: bytes
    #: "goaway CODE"; or what the client is told, with spaces and commas: "head 1, reset 3 CODE"
    due: str
    opening: bytes = OPENING


def n(value: int, size: int = 4) -> bytes:
    return value.to_bytes(size, "big")


def headers(stream: int, payload: bytes, flags: int = WHOLE) -> bytes:
    return frame(F.HEADERS, flags, stream, payload)


def setting(name: int, value: int) -> bytes:
    return frame(F.SETTINGS, 0, 0, n(name, 2) + n(value))


B = block()
BODY = b"12345678"
ROWS = [
    Row("3.4", "another preface", b"", "goaway PROTOCOL_ERROR", b"GET / HTTP/1.1\r\n\r\n"),
    Row("3.4", "preface spoilt at its end", b"", "goaway PROTOCOL_ERROR", F.PREFACE[:-1] + b"x"),
    Row("3.4", "no SETTINGS first", get(1), "goaway PROTOCOL_ERROR", F.PREFACE),
    Row("3.4", "acknowledgement first", F.SETTINGS_ACK, "goaway PROTOCOL_ERROR", F.PREFACE),
    Row("4.1", "reserved bit of the stream is ignored", B"".join((headers(1, B)[:5], b"\x80\0\0\1", B)), "head 1"),
    Row("4.1", "unknown type", frame(0x42, 0xFF, 1, b"x") + get(1), "head 1"),
    Row("4.1", "unknown type on stream 0", frame(0x42, 0xFF, 0, b"x") + get(1), "head 1"),
    Row("4.1", "unknown flags", headers(1, B, WHOLE | 0x80 | 0x10 | 0x02), "head 1"),
    Row("4.2", "frame above the limit", F.head(16_385, F.DATA, 0, 1), "goaway FRAME_SIZE_ERROR"),
    Row("4.3", "block that cannot be decoded", headers(1, b"\x80"), "goaway COMPRESSION_ERROR"),
    Row("4.3", "frame between the parts of a block", headers(1, B, END) + F.ping(BODY, ack=False), "goaway PROTOCOL_ERROR"),
    Row("4.3", "unknown frame between the parts", headers(1, B, END) + frame(0x42, 0, 0), "goaway PROTOCOL_ERROR"),
    Row("4.3", "block of another stream between the parts", headers(1, B, END) + get(3), "goaway PROTOCOL_ERROR"),
    Row("4.3", "block in three parts", headers(1, B[:3], END) + frame(9, 0, 1, B[3:9]) + frame(9, 4, 1, B[9:]), "head 1"),
    Row("5.1", "DATA on an idle stream", data(1, b"x"), "goaway PROTOCOL_ERROR"),
    Row("5.1", "RST_STREAM on an idle stream", F.rst_stream(1, 8), "goaway PROTOCOL_ERROR"),
    Row("5.1", "WINDOW_UPDATE on an idle stream", F.window_update(1, 1), "goaway PROTOCOL_ERROR"),
    Row("5.1", "PRIORITY on an idle stream", frame(F.PRIORITY, 0, 5, n(0) + b"\1") + get(1), "head 1"),
    Row("5.1", "DATA after the end of the stream", post(1) + data(1, end=True) + data(1, b"x"), "head 1, goaway STREAM_CLOSED"),
    Row("5.1", "HEADERS after both ends", get(1) + get(1), "head 1, goaway STREAM_CLOSED"),
    Row("5.1", "RST_STREAM after both ends", get(1) + F.rst_stream(1, 8), "head 1"),
    Row("5.1", "WINDOW_UPDATE after both ends", get(1) + F.window_update(1, 9), "head 1"),
    Row("5.1", "DATA after RST_STREAM", post(1) + F.rst_stream(1, 8) + data(1, b"x"), "goaway STREAM_CLOSED"),
    Row("5.1", "HEADERS after RST_STREAM", post(1) + F.rst_stream(1, 8) + get(1), "goaway STREAM_CLOSED"),
    Row("5.1", "frames for a stream that we have reset", post(1) + F.window_update(1, 0) + data(1, b"x") + F.window_update(1, 1)
        + headers(1, block(method=None, path=None, scheme=None, authority=None) + b"") + F.rst_stream(1, 0) + get(3),
        "reset 1 PROTOCOL_ERROR, head 3"),
    Row("5.1", "DATA after both have reset the stream", post(1) + F.window_update(1, 0) + F.rst_stream(1, 8) + data(1, b"x"),
        "reset 1 PROTOCOL_ERROR, goaway STREAM_CLOSED"),
    Row("5.1.1", "even stream", get(2), "goaway PROTOCOL_ERROR"),
    Row("5.1.1", "even stream below the last", get(5) + get(4), "head 5, goaway PROTOCOL_ERROR"),
    Row("5.1.1", "stream 0", get(0), "goaway PROTOCOL_ERROR"),
    Row("5.1.1", "a lower number", get(5) + get(3), "head 5, goaway STREAM_CLOSED"),
    Row("5.1.1", "numbers may be left out", get(1) + get(99), "head 1, head 99"),
    Row("5.1.1", "DATA on a number left out", get(5) + data(3, b"x"), "head 5, goaway STREAM_CLOSED"),
    Row("5.1.2", "more streams than allowed", post(1) + post(3) + get(5) + data(1, end=True) + get(7),
        "reset 5 REFUSED_STREAM, head 1, head 7"),
    Row("5.3.2", "priority in HEADERS", headers(1, n(0) + b"\xff" + B, WHOLE | F.PRIORITIZED), "head 1"),
    Row("5.3.2", "HEADERS without the priority they promise", headers(1, b"\0\0\0\0", WHOLE | F.PRIORITIZED), "goaway FRAME_SIZE_ERROR"),
    Row("5.3.2", "stream that depends on itself", frame(F.PRIORITY, 0, 1, n(1) + b"\1"), "reset 1 PROTOCOL_ERROR"),
    Row("5.3.2", "HEADERS that depend on themselves", headers(1, n(1) + b"\1" + B, WHOLE | F.PRIORITIZED), "goaway PROTOCOL_ERROR"),
    Row("6.1", "DATA on stream 0", data(0, b"x"), "goaway PROTOCOL_ERROR"),
    Row("6.1", "padded DATA", post(1, (b"content-length", b"1")) + frame(F.DATA, F.PADDED | END, 1, b"\2x\0\0"), "head 1"),
    Row("6.1", "padding as long as the payload", post(1) + frame(F.DATA, F.PADDED, 1, b"\4xyz"), "goaway PROTOCOL_ERROR"),
    Row("6.1", "all padding", post(1) + frame(F.DATA, F.PADDED | END, 1, b"\3xyz"), "head 1"),
    Row("6.1", "padded DATA without a length", post(1) + frame(F.DATA, F.PADDED, 1, b""), "goaway FRAME_SIZE_ERROR"),
    Row("6.2", "HEADERS on stream 0", headers(0, B), "goaway PROTOCOL_ERROR"),
    Row("6.2", "padded HEADERS", headers(1, b"\3" + B + b"\0\0\0", WHOLE | F.PADDED), "head 1"),
    Row("6.2", "padded HEADERS with priority", headers(1, b"\1" + n(0) + b"\0" + B + b"\0", WHOLE | F.PADDED | F.PRIORITIZED), "head 1"),
    Row("6.2", "padding too long", headers(1, b"\xff" + B, WHOLE | F.PADDED), "goaway PROTOCOL_ERROR"),
    Row("6.3", "PRIORITY on stream 0", frame(F.PRIORITY, 0, 0, n(1) + b"\1"), "goaway PROTOCOL_ERROR"),
    Row("6.3", "PRIORITY of four bytes", post(1) + frame(F.PRIORITY, 0, 1, n(0)), "reset 1 FRAME_SIZE_ERROR"),
    Row("6.4", "RST_STREAM on stream 0", frame(F.RST_STREAM, 0, 0, n(0)), "goaway PROTOCOL_ERROR"),
    Row("6.4", "RST_STREAM of three bytes", post(1) + frame(F.RST_STREAM, 0, 1, b"\0\0\0"), "goaway FRAME_SIZE_ERROR"),
    Row("6.5", "acknowledgement with a payload", frame(F.SETTINGS, F.ACK, 0, b"\0" * 6), "goaway FRAME_SIZE_ERROR"),
    Row("6.5", "SETTINGS on a stream", frame(F.SETTINGS, 0, 1), "goaway PROTOCOL_ERROR"),
    Row("6.5", "SETTINGS of five bytes", frame(F.SETTINGS, 0, 0, b"\0" * 5), "goaway FRAME_SIZE_ERROR"),
    Row("6.5.2", "ENABLE_PUSH of 2", setting(F.ENABLE_PUSH, 2), "goaway PROTOCOL_ERROR"),
    Row("6.5.2", "window above 2**31-1", setting(F.INITIAL_WINDOW_SIZE, 2**31), "goaway FLOW_CONTROL_ERROR"),
    Row("6.5.2", "frame size below 2**14", setting(F.MAX_FRAME_SIZE, 16_383), "goaway PROTOCOL_ERROR"),
    Row("6.5.2", "frame size above 2**24-1", setting(F.MAX_FRAME_SIZE, 2**24), "goaway PROTOCOL_ERROR"),
    Row("6.5.2", "unknown setting", setting(0x99, 1), "settings ack"),
    Row("6.5.3", "acknowledged in order", setting(F.HEADER_TABLE_SIZE, 0) + F.ping(BODY, ack=False), "settings ack, pong 12345678"),
    Row("6.6", "PUSH_PROMISE", frame(F.PUSH_PROMISE, F.END_HEADERS, 1, n(2) + B), "goaway PROTOCOL_ERROR"),
    Row("6.7", "PING is answered", F.ping(BODY, ack=False), "pong 12345678"),
    Row("6.7", "acknowledgement is not answered", F.ping(BODY, ack=True) + get(1), "head 1"),
    Row("6.7", "PING on a stream", frame(F.PING, 0, 1, BODY), "goaway PROTOCOL_ERROR"),
    Row("6.7", "PING of seven bytes", frame(F.PING, 0, 0, BODY[1:]), "goaway FRAME_SIZE_ERROR"),
    Row("6.8", "GOAWAY on a stream", frame(F.GOAWAY, 0, 1, b"\0" * 8), "goaway PROTOCOL_ERROR"),
    Row("6.8", "GOAWAY of seven bytes", frame(F.GOAWAY, 0, 0, b"\0" * 7), "goaway FRAME_SIZE_ERROR"),
    Row("6.8", "GOAWAY leaves streams as they are", post(1) + F.goaway(0, 0, b"bye") + data(1, end=True), "head 1"),
    Row("6.9", "increment 0 for the connection", F.window_update(0, 0), "goaway PROTOCOL_ERROR"),
    Row("6.9", "increment 0 for a stream", post(1) + F.window_update(1, 0), "reset 1 PROTOCOL_ERROR"),
    Row("6.9", "WINDOW_UPDATE of three bytes", frame(F.WINDOW_UPDATE, 0, 0, b"\0\0\1"), "goaway FRAME_SIZE_ERROR"),
    Row("6.9.1", "window of the connection above 2**31-1", F.window_update(0, 2**31 - 1), "goaway FLOW_CONTROL_ERROR"),
    Row("6.9.1", "window of a stream above 2**31-1", post(1) + F.window_update(1, 2**31 - 1), "reset 1 FLOW_CONTROL_ERROR"),
    Row("6.9.2", "window of a stream above it by SETTINGS", post(1) + F.window_update(1, 2**30) + setting(4, 2**30 + 65_536),
        "goaway FLOW_CONTROL_ERROR"),
    Row("6.10", "CONTINUATION of nothing", frame(F.CONTINUATION, F.END_HEADERS, 1, B), "goaway PROTOCOL_ERROR"),
    Row("6.10", "CONTINUATION after the end of a block", post(1) + frame(F.CONTINUATION, 4, 1, B), "goaway PROTOCOL_ERROR"),
    Row("6.10", "CONTINUATION on stream 0", headers(1, B, END) + frame(F.CONTINUATION, 4, 0, B), "goaway PROTOCOL_ERROR"),
    Row("7", "unknown code in RST_STREAM", post(1) + F.rst_stream(1, 0xFFFFFFFF) + get(3), "head 3"),
    Row("7", "unknown code in GOAWAY", F.goaway(0, 0xFFFFFFFF) + get(1), "head 1"),
    Row("8.1", "trailers", post(1) + data(1, b"x") + headers(1, block(method=None, scheme=None, path=None, authority=None)), "head 1"),
    Row("8.1", "trailers that do not end", post(1) + headers(1, b"", F.END_HEADERS), "reset 1 PROTOCOL_ERROR"),
    Row("8.1", "pseudo-header field in trailers", post(1) + headers(1, B), "reset 1 PROTOCOL_ERROR"),
    Row("8.2.2", "te in trailers", post(1) + headers(1, block((b"te", b"gzip"), method=None, scheme=None, path=None, authority=None)),
        "reset 1 PROTOCOL_ERROR"),
    Row("8.1", "trailers behind the end", post(1) + data(1, end=True) + headers(1, b""), "head 1, goaway STREAM_CLOSED"),
    Row("8.1.1", "DATA above content-length", post(1, (b"content-length", b"1")) + data(1, b"xx"), "reset 1 PROTOCOL_ERROR"),
    Row("8.1.1", "DATA below content-length", post(1, (b"content-length", b"2")) + data(1, b"x", end=True), "reset 1 PROTOCOL_ERROR"),
    Row("8.1.1", "trailers below content-length", post(1, (b"content-length", b"2")) + headers(1, b""), "reset 1 PROTOCOL_ERROR"),
    Row("8.1.1", "no DATA for content-length", get(1, (b"content-length", b"2")), "reset 1 PROTOCOL_ERROR"),
    Row("8.1.1", "frames behind a malformed head", frames.headers(1, block((b"A", b"b")), end=False) + data(1, b"x") + get(3), "reset 1 PROTOCOL_ERROR, head 3"),
    Row("8.1.1", "content-length 0", get(1, (b"content-length", b"0")), "head 1"),
    Row("RFC 9218 2.1", "SETTINGS_NO_RFC7540_PRIORITIES changes", setting(9, 1), "goaway PROTOCOL_ERROR"),
    Row("RFC 9218 2.1", "it comes again", setting(9, 0) + get(1), "settings ack, head 1"),
    Row("RFC 9218 7.1", "PRIORITY_UPDATE", frame(F.PRIORITY_UPDATE, 0, 0, n(1) + b"u=0, i") + get(1), "head 1"),
    Row("RFC 9218 7.1", "PRIORITY_UPDATE of stream 0", frame(F.PRIORITY_UPDATE, 0, 0, n(0) + b"u=0"), "goaway PROTOCOL_ERROR"),
    Row("RFC 9218 7.1", "PRIORITY_UPDATE on a stream", frame(F.PRIORITY_UPDATE, 0, 1, n(1)), "goaway PROTOCOL_ERROR"),
    Row("RFC 9218 7.1", "PRIORITY_UPDATE of three bytes", frame(F.PRIORITY_UPDATE, 0, 0, b"\0\0\1"), "goaway FRAME_SIZE_ERROR"),
]  # fmt: skip

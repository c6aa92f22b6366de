"""Frames by RFC section, and by Autobahn's case where it has one: as a whole, cut at every byte, byte by byte."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aserver.protocol.websocket.frames import ViolationError
from aserver.protocol.websocket.reader import PIECES, FrameReader
from tests.protocol.websocket.peers import BINARY, CLOSE, CONTINUATION, MASK, PING, PONG, TEXT, Told, feed, frame

LIMIT = 100_000


def read(*pieces: bytes, limit: int = LIMIT) -> list[Any]:
    """What a reader tells of the pieces; a violation is the last event."""
    told = Told()
    reader = FrameReader(told, limit)
    try:
        for piece in pieces:
            feed(reader, piece)
    except ViolationError as error:
        told.events.append(("violation", error.code))
    return told.events


def violation(code: int) -> tuple[str, int]:
    return "violation", code


HELLO = "Hello-µ@ßöäüàá-UTF-8!!"  # Autobahn 6
RAW = HELLO.encode()
LONG = bytes(range(256)) * 257  # 65,792 bytes


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


#: (id, bytes, what comes of them). RFC sections are RFC 6455's.
CASES: list[tuple[str, bytes, list[Any]]] = [
    # 5.6 data frames
    ("1.1.1 empty text", frame(TEXT), [""]),
    ("1.1.2 text of 125", frame(TEXT, b"*" * 125), ["*" * 125]),
    ("1.1.3 text of 126", frame(TEXT, b"*" * 126), ["*" * 126]),
    ("1.1.4 text of 127", frame(TEXT, b"*" * 127), ["*" * 127]),
    ("1.1.5 text of 128", frame(TEXT, b"*" * 128), ["*" * 128]),
    ("1.1.6 text of 65535", frame(TEXT, b"*" * 65535), ["*" * 65535]),
    ("1.1.7 text of 65536", frame(TEXT, b"*" * 65536), ["*" * 65536]),
    ("1.2.1 empty binary", frame(BINARY), [b""]),
    ("1.2.2 binary of 125", frame(BINARY, b"\xfe" * 125), [b"\xfe" * 125]),
    ("1.2.3 binary of 126", frame(BINARY, b"\xfe" * 126), [b"\xfe" * 126]),
    ("1.2.7 binary of 65792", frame(BINARY, LONG), [LONG]),
    ("5.2 length not in its shortest form", b"\x82\xfe\x00\x03" + MASK + frame(BINARY, b"abc")[6:], [b"abc"]),
    ("5.2 64-bit length not in its shortest form", b"\x82\xff" + bytes(7) + b"\x03" + MASK + frame(BINARY, b"abc")[6:],
     [b"abc"]),
    ("5.3 key of zeros", frame(BINARY, b"abc", key=bytes(4)), [b"abc"]),
    ("two messages", frame(TEXT, b"one") + frame(BINARY, b"two"), ["one", b"two"]),
    ("binary of what looks like a frame", frame(BINARY, frame(TEXT, b"in"), key=bytes(4)), [frame(TEXT, b"in")]),
    ("ping of what looks like a frame", frame(PING, frame(TEXT, b"in"), key=bytes(4)), [("ping", frame(TEXT, b"in"))]),
    ("fragment of nothing, then what looks like a whole message",
     frame(BINARY, fin=False) + frame(BINARY, b"in"), [violation(1002)]),
    # 5.5.2, 5.5.3 pings and pongs
    ("2.1 empty ping", frame(PING), [("ping", b"")]),
    ("2.3 binary ping", frame(PING, bytes(range(248, 256))), [("ping", bytes(range(248, 256)))]),
    ("2.4 ping of 125", frame(PING, b"\xfe" * 125), [("ping", b"\xfe" * 125)]),
    ("2.5 ping of 126", frame(PING, b"\xfe" * 126), [violation(1002)]),
    ("2.7 pong nobody asked for", frame(PONG), [("pong", b"")]),
    ("2.10 ten pings", b"".join(frame(PING, b"%d" % n) for n in range(10)), [("ping", b"%d" % n) for n in range(10)]),
    # 5.2 reserved bits
    ("3.1 RSV 1", frame(TEXT, b"x", rsv=1), [violation(1002)]),
    ("3.2 message, then RSV 2", frame(TEXT, b"ok") + frame(TEXT, b"x", rsv=2) + frame(PING), ["ok", violation(1002)]),
    ("3.4 RSV 4 without deflate", frame(TEXT, b"x", rsv=4), [violation(1002)]),
    ("3.5 RSV 5 in binary", frame(BINARY, b"x", rsv=5), [violation(1002)]),
    ("3.6 RSV 6 in ping", frame(PING, b"x", rsv=6), [violation(1002)]),
    ("3.7 RSV 7 in close", frame(CLOSE, rsv=7), [violation(1002)]),
    # 5.2 reserved opcodes
    *[(f"4.1 opcode {code}", frame(code, b"x"), [violation(1002)]) for code in range(3, 8)],
    *[(f"4.2 opcode {code}", frame(code, b"x"), [violation(1002)]) for code in range(11, 16)],
    ("5.2 length with its highest bit", b"\x82\xff\x80" + bytes(7) + MASK, [violation(1002)]),
    ("5.1 not masked", b"\x81\x05Hello", [violation(1002)]),
    ("5.1 ping not masked", b"\x89\x00", [violation(1002)]),
    # 5.4 fragmentation
    ("5.1 ping in two fragments", frame(PING, b"a", fin=False) + frame(CONTINUATION, b"b"), [violation(1002)]),
    ("5.2 pong in two fragments", frame(PONG, b"a", fin=False) + frame(CONTINUATION, b"b"), [violation(1002)]),
    ("5.3 text in two", frame(TEXT, b"frag", fin=False) + frame(CONTINUATION, b"ment"), ["fragment"]),
    ("5.6 text with a ping inside",
     frame(TEXT, b"frag", fin=False) + frame(PING, b"p") + frame(CONTINUATION, b"ment"), [("ping", b"p"), "fragment"]),
    ("5.9 continuation of nothing", frame(CONTINUATION, b"x") + frame(TEXT, b"y"), [violation(1002)]),
    ("5.12 continuation of nothing, not final", frame(CONTINUATION, b"x", fin=False), [violation(1002)]),
    ("5.15 continuation after a whole message",
     frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b") + frame(CONTINUATION, b"c", fin=False),
     ["ab", violation(1002)]),
    ("5.18 text inside a text", frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), [violation(1002)]),
    ("5.18 binary inside a text", frame(TEXT, b"a", fin=False) + frame(BINARY, b"b"), [violation(1002)]),
    ("5.19 five fragments with pings",
     frame(TEXT, b"1", fin=False) + frame(CONTINUATION, b"2", fin=False) + frame(PING, b"a")
     + frame(CONTINUATION, b"3", fin=False) + frame(CONTINUATION, b"4", fin=False) + frame(PING, b"b")
     + frame(CONTINUATION, b"5"), [("ping", b"a"), ("ping", b"b"), "12345"]),
    ("RSV on a continuation", frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", rsv=4), [violation(1002)]),
    ("binary in fragments, one empty",
     frame(BINARY, b"a", fin=False) + frame(CONTINUATION, fin=False) + frame(CONTINUATION), [b"a"]),
    # 8.1 UTF-8
    ("6.1.1 empty text", frame(TEXT), [""]),
    ("6.1.2 empty fragments", frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) + frame(CONTINUATION), [""]),
    ("6.1.3 something between empty ones",
     frame(TEXT, fin=False) + frame(CONTINUATION, b"m", fin=False) + frame(CONTINUATION), ["m"]),
    ("6.2.1 UTF-8", frame(TEXT, RAW), [HELLO]),
    ("6.2.3 UTF-8, a fragment for each byte",
     frame(TEXT, fin=False) + b"".join(frame(CONTINUATION, RAW[n : n + 1], fin=False) for n in range(len(RAW)))
     + frame(CONTINUATION), [HELLO]),
    ("6.3.1 surrogate", frame(TEXT, "κόσμε".encode() + b"\xed\xa0\x80edited"), [violation(1007)]),
    ("6.6.1 incomplete at the end", frame(TEXT, b"\xce"), [violation(1007)]),
    ("6.6.1 incomplete at the end of fragments", frame(TEXT, b"\xce", fin=False) + frame(CONTINUATION),
     [violation(1007)]),
    ("6.8.1 sequence of five", frame(TEXT, b"\xf8\x88\x80\x80\x80"), [violation(1007)]),
    ("6.12 lone continuation", frame(TEXT, b"\x80"), [violation(1007)]),
    ("6.14 overlong", frame(TEXT, b"\xc0\xaf"), [violation(1007)]),
    ("6.16 overlong", frame(TEXT, b"\xf0\x8f\xbf\xbf"), [violation(1007)]),
    ("6.20 noncharacters are allowed", frame(TEXT, "\ufffe\uffff\U0010ffff".encode()), ["\ufffe\uffff\U0010ffff"]),
    ("6.21 above U+10FFFF", frame(TEXT, b"\xf4\x90\x80\x80"), [violation(1007)]),
    ("binary need not be UTF-8", frame(BINARY, b"\xff", fin=False) + frame(CONTINUATION, b"\xff"), [b"\xff\xff"]),
    # 5.5.1, 7.4 closing
    ("7.1.5 close inside a message", frame(TEXT, b"a", fin=False) + close(1000) + frame(CONTINUATION, b"b"),
     [("close", 1000, "")]),
    ("7.1.3 ping after close", close(1000) + frame(PING), [("close", 1000, "")]),
    ("7.3.1 close without payload", frame(CLOSE), [("close", 1005, "")]),
    ("7.3.2 close of one byte", frame(CLOSE, b"a"), [violation(1002)]),
    ("7.3.3 close", close(1000), [("close", 1000, "")]),
    ("7.3.4 close with reason", close(1000, RAW), [("close", 1000, HELLO)]),
    ("7.3.5 reason of 123", close(1000, b"*" * 123), [("close", 1000, "*" * 123)]),
    ("7.3.6 reason of 124", close(1000, b"*" * 124), [violation(1002)]),
    ("7.5.1 reason not UTF-8", close(1000, b"\xce\xba\xed\xa0\x80"), [violation(1007)]),
    *[(f"7.7 close {code}", close(code), [("close", code, "")])
      for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)],
    *[(f"7.9 close {code}", close(code), [violation(1002)])
      for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)],
]  # fmt: skip

EACH = pytest.mark.parametrize(("data", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])


@EACH
def test_whole(data: bytes, expected: list[Any]) -> None:
    assert read(data) == expected


@EACH
def test_cut_at_every_byte(data: bytes, expected: list[Any]) -> None:
    # Where long frames are cut makes no difference but near their ends.
    for at in {*range(min(len(data), 600)), *range(max(0, len(data) - 20), len(data) + 1)}:
        assert read(data[:at], data[at:]) == expected, at


@EACH
def test_byte_by_byte(data: bytes, expected: list[Any]) -> None:
    assert read(*(data[at : at + 1] for at in range(len(data)))) == expected


# ── as early as can be ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("bad", "after"),
    [
        pytest.param(b"\xce\xba\xf4\x90\x80\x80", 4, id="6.4.1 above U+10FFFF, told by its second byte"),
        pytest.param(b"a\xed\xa0\x80", 4, id="surrogate, which Python tells by its third byte"),
        pytest.param(b"ab\xff", 3, id="never in UTF-8"),
        pytest.param(b"\xc3\x28", 2, id="continuation missing"),
    ],
)
@pytest.mark.parametrize("fragmented", [False, True])
def test_bad_text_is_refused_when_it_is_read(bad: bytes, after: int, fragmented: bool) -> None:
    whole = frame(TEXT, bad + bytes(1000), fin=not fragmented)
    start = len(whole) - len(bad) - 1000
    assert read(whole[: start + after - 1]) == []
    assert read(whole[: start + after]) == [violation(1007)]


def test_a_frame_too_big_is_refused_by_its_head() -> None:
    whole = frame(BINARY, bytes(101))
    assert read(whole[:6], limit=100) == [violation(1009)]
    assert read(whole, limit=100) == [violation(1009)]
    assert read(frame(BINARY, bytes(100)), limit=100) == [bytes(100)]


def test_the_limit_holds_over_fragments() -> None:
    first = frame(BINARY, bytes(60), fin=False)
    assert read(first + frame(CONTINUATION, bytes(40)), limit=100) == [bytes(100)]
    assert read(first + frame(CONTINUATION, bytes(41))[:6], limit=100) == [violation(1009)]
    assert read(first + frame(CONTINUATION, bytes(40)) * 1 + frame(BINARY, bytes(100)), limit=100) == [
        bytes(100),
        bytes(100),
    ]


def test_a_message_in_tiny_fragments_is_kept_in_few_pieces() -> None:
    told = Told()
    reader = FrameReader(told, LIMIT)
    reader.feed(frame(BINARY, b"ab", fin=False))
    for _ in range(3 * PIECES):
        reader.feed(frame(CONTINUATION, b"cd", fin=False))
    assert 0 < reader.kept < PIECES
    reader.feed(frame(CONTINUATION, b"ef"))
    assert told.events == [b"ab" + b"cd" * 3 * PIECES + b"ef"]


# ── pausing ──────────────────────────────────────────────────────────────────────────────────


class Pausing(Told):
    """A sink that pauses its reader with each message."""

    reader: FrameReader

    def on_message(self, kind: str, data: str | bytes) -> None:
        super().on_message(kind, data)
        self.reader.paused = True


@pytest.mark.parametrize("step", [5, 7], ids=["anyhow", "frame by frame"])
def test_a_paused_reader_keeps_what_comes(step: int) -> None:
    told = Pausing()
    reader = told.reader = FrameReader(told, LIMIT)
    data = b"".join(frame(TEXT, b"%d" % number) for number in range(4))
    for at in range(0, len(data), step):
        reader.feed(data[at : at + step])
    assert told.events == ["0"]
    for expected in ("1", "2", "3"):
        reader.paused = False
        reader.feed(b"")
        assert told.events[-1] == expected


def test_a_paused_reader_takes_more_behind_what_it_has_begun() -> None:
    told = Pausing()
    reader = told.reader = FrameReader(told, LIMIT)
    data = b"".join(frame(TEXT, b"%d" % number) for number in range(6))
    reader.feed(data[:30])
    reader.paused = False
    reader.feed(b"")
    reader.feed(data[30:])
    while len(told.events) < 6:
        reader.paused = False
        reader.feed(b"")
    assert told.events == ["0", "1", "2", "3", "4", "5"]


def test_pausing_inside_a_frame() -> None:
    told = Told()
    reader = FrameReader(told, LIMIT)
    data = frame(BINARY, bytes(1000))
    reader.feed(data[:500])
    reader.paused = True
    reader.feed(data[500:])
    assert told.events == []
    reader.paused = False
    reader.feed(b"")
    assert told.events == [bytes(1000)]


# ── any messages, cut anywhere ───────────────────────────────────────────────────────────────

MESSAGES = st.lists(st.one_of(st.text(max_size=300), st.binary(max_size=300)), max_size=5)


@given(MESSAGES, st.data())
def test_messages_survive_any_fragmentation_and_any_cut(messages: list[str | bytes], data: st.DataObject) -> None:
    wire = bytearray()
    for message in messages:
        raw = message.encode() if isinstance(message, str) else message
        cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=4)))
        parts = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
        opcode = TEXT if isinstance(message, str) else BINARY
        for number, part in enumerate(parts):
            key = data.draw(st.binary(min_size=4, max_size=4))
            wire += frame(CONTINUATION if number else opcode, part, fin=number == len(parts) - 1, key=key)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=10)))
    assert read(*(bytes(wire[a:b]) for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True))) == messages

"""Frames out: windows both ways, the order of writes, ends of responses."""

import pytest

from aserver.protocol.http2 import frames
from aserver.protocol.http2.encoder import BlockEncoder
from aserver.protocol.http2.errors import CANCEL
from aserver.protocol.http2.sender import PAUSE_ABOVE, TAKEN, Sender
from aserver.protocol.http2.streams import CLOSED, HALF_CLOSED_REMOTE, RESET_SENT, Stream
from aserver.protocol.semantics.response_head import REMEMBERED, Defaults
from tests.protocol.http2.rfc9113_rows import setting
from tests.protocol.http2.server import PlainServer
from tests.protocol.http2.wire import OPENING, data, get, post, take_apart, told

F = frames
WINDOW = 65_535


class Wire:
    """A server whose application is the test."""

    def __init__(self, opening: bytes = b"") -> None:
        self.server = PlainServer(silent=True)
        self.sender: Sender = self.server.sender
        self.feed(OPENING + opening)

    def feed(self, raw: bytes) -> None:
        self.server.feed(raw)
        assert self.server.fault is None

    def stream(self, number: int, raw: bytes | None = None) -> Stream:
        """Ask, answer with a head, and return the stream."""
        self.feed(get(number) if raw is None else raw)
        stream = self.server.streams.open[number]
        self.sender.head(stream, b"\x88", b"", end=False)
        self.take()
        return stream

    def take(self) -> list[tuple[int, int, bool]]:
        """Return the stream, size and end of the DATA frames that go out, and of heads -1 in place of the size."""
        found = []
        while raw := self.sender.take():
            for kind, flags, stream, payload in take_apart(raw):
                if kind in (F.DATA, F.HEADERS):
                    assert len(payload) <= F.FRAME_SIZE
                    found.append((stream, len(payload) if kind == F.DATA else -1, bool(flags & F.END_STREAM)))
                if self.sender.held:
                    return found
        return found


def sizes(frames_out: list[tuple[int, int, bool]], stream: int) -> int:
    return sum(size for number, size, _ in frames_out if number == stream)


def test_a_body_waits_for_the_streams_window() -> None:
    wire = Wire(F.window_update(0, 2**30))
    stream = wire.stream(1)
    wire.sender.data(stream, b"x" * (WINDOW + 10), end=True)
    assert sizes(wire.take(), 1) == WINDOW
    assert stream.queued == 10
    wire.feed(F.window_update(1, 4))
    wire.feed(F.window_update(1, 100))
    assert stream.state == CLOSED
    assert stream.send_window == 94


def test_a_body_waits_for_the_connections_window_and_ends_do_not() -> None:
    wire = Wire()
    first, second, third = wire.stream(1), wire.stream(3), wire.stream(5)
    wire.sender.data(first, b"x" * WINDOW, end=False)
    wire.sender.data(second, b"y", end=True)
    assert sum(size for _, size, _ in wire.take()) == WINDOW
    wire.sender.data(third, b"", end=True)
    assert (5, 0, True) in wire.take()
    wire.feed(F.window_update(0, 10))
    assert (first.state, first.queued, second.state) == (HALF_CLOSED_REMOTE, 0, CLOSED)


def test_a_slow_stream_does_not_hold_up_the_others() -> None:
    wire = Wire(F.window_update(0, 2**30))
    slow, fast = wire.stream(1), wire.stream(3)
    wire.sender.data(slow, b"x" * 200_000, end=True)
    wire.sender.data(fast, b"y" * 1000, end=True)
    out = wire.take()
    assert sizes(out, 1) == WINDOW
    assert sizes(out, 3) == 1000


def test_settings_change_the_windows_of_open_streams() -> None:
    """RFC 9113 section 6.9.2, with a window below zero in between."""
    wire = Wire(F.window_update(0, 2**30))
    stream = wire.stream(1)
    wire.sender.data(stream, b"x" * 70_000, end=True)
    wire.take()
    wire.feed(setting(F.INITIAL_WINDOW_SIZE, 10))
    assert stream.send_window == 10 - WINDOW
    wire.feed(F.window_update(1, WINDOW - 10))
    assert stream.send_window == 0
    wire.feed(setting(F.INITIAL_WINDOW_SIZE, 100_000))
    assert stream.state == CLOSED
    wire.feed(get(3))
    assert wire.server.streams.open[3].send_window == 100_000


def test_urgent_streams_come_first_and_incremental_ones_share() -> None:
    wire = Wire(F.window_update(0, 2**30) + setting(F.INITIAL_WINDOW_SIZE, 2**20))
    plain = [wire.stream(number) for number in (1, 3)]
    late = wire.stream(5, get(5, (b"priority", b"u=5")))
    urgent = [wire.stream(number, get(number, (b"priority", b"u=0"))) for number in (7, 9)]
    for stream in (late, *plain, *urgent):
        wire.sender.data(stream, b"x" * 40_000, end=True)
    order = [stream for stream, _, _ in wire.take()]
    assert order == [7, 7, 7, 9, 9, 9, 1, 3, 1, 3, 1, 3, 5, 5, 5]


def test_a_priority_update_moves_a_stream_that_waits() -> None:
    wire = Wire(F.window_update(0, 2**30))
    first, second = wire.stream(1), wire.stream(3)
    for stream in (first, second):
        wire.sender.data(stream, b"x" * 20_000, end=True)
    wire.sender.held = True
    wire.feed(F.head(7, F.PRIORITY_UPDATE, 0, 0) + b"\0\0\0\3u=1")
    wire.sender.held = False
    assert [stream for stream, _, _ in wire.take()] == [3, 3, 1, 1]


def test_while_the_transport_is_full_only_heads_go() -> None:
    wire = Wire(F.window_update(0, 2**30))
    stream = wire.stream(1)
    wire.sender.held = True
    wire.sender.data(stream, b"x", end=True)
    wire.feed(get(3))
    wire.sender.head(wire.server.streams.open[3], b"\x88", b"y", end=True)
    assert wire.take() == [(3, -1, False)]
    wire.sender.held = False
    assert wire.take() == [(1, 1, True), (3, 1, True)]


def test_a_piece_at_a_time_is_taken() -> None:
    """So that a more urgent stream can overtake. Fails without TAKEN."""
    wire = Wire(F.window_update(0, 2**30) + setting(F.INITIAL_WINDOW_SIZE, 2**20))
    stream = wire.stream(1)
    wire.sender.data(stream, b"x" * 500_000, end=True)
    assert TAKEN <= len(wire.sender.take()) <= TAKEN + F.FRAME_SIZE + 100
    urgent = Stream(3, WINDOW)
    urgent.urgency = 0
    wire.server.streams.open[3] = urgent
    wire.sender.data(urgent, b"y", end=False)
    assert wire.take()[0] == (3, 1, False)


def test_the_application_waits_above_the_high_water() -> None:
    wire = Wire(F.window_update(0, 2**30))
    stream = wire.stream(1)
    wire.sender.data(stream, b"x" * (PAUSE_ABOVE + 70_000), end=False)
    assert stream.write_paused
    wire.take()
    assert not wire.server.writable
    wire.feed(F.window_update(1, 60_000))
    assert wire.server.writable == [1]
    assert not stream.write_paused


@pytest.mark.parametrize("body", [b"", b"x" * 100_000], ids=["alone", "behind a body that waits"])
def test_trailers_end_a_response(body: bytes) -> None:
    wire = Wire(F.window_update(0, 2**30))
    stream = wire.stream(1)
    wire.sender.data(stream, body, end=False)
    wire.sender.trailers(stream, b"\0\1a\1b")
    out = wire.take()
    if body:
        assert (1, -1, True) not in out
        wire.feed(F.window_update(1, 100_000))
        out = [(1, -1, bool(flags & F.END_STREAM)) for _, flags, _, _ in take_apart(wire.server.sent)]
    assert out[-1] == (1, -1, True)
    assert stream.state == CLOSED


def test_a_large_block_goes_in_parts() -> None:
    wire = Wire()
    wire.feed(get(1))
    wire.sender.head(wire.server.streams.open[1], b"\x88" + b"\0\1a\1b" * 8000, b"", end=True)
    kinds = [(kind, flags) for kind, flags, _, _ in take_apart(wire.sender.take())]
    assert kinds == [(F.HEADERS, F.END_STREAM), (F.CONTINUATION, 0), (F.CONTINUATION, F.END_HEADERS)]


def test_the_clients_reset_drops_what_waits() -> None:
    wire = Wire()
    stream = wire.stream(1)
    wire.sender.data(stream, b"x" * 100_000, end=True)
    wire.feed(F.rst_stream(1, CANCEL) + F.window_update(0, 100_000))
    assert wire.server.resets == [(1, CANCEL)]
    wire.server.sent = b""
    wire.sender.data(stream, b"x", end=True)
    wire.sender.head(stream, b"\x88", b"x", end=True)
    wire.sender.trailers(stream, b"")
    wire.sender.reset(stream, CANCEL)
    wire.feed(F.window_update(1, 100_000))
    assert wire.take() == []
    assert wire.server.sent == b""


def test_a_response_before_its_request_ends_in_a_reset_without_error() -> None:
    """RFC 9113 section 8.1; frames that are under way then are ignored."""
    wire = Wire()
    stream = wire.stream(1, post(1))
    wire.sender.data(stream, b"x", end=True)
    assert told(wire.sender.take()) == ["reset 1 NO_ERROR"]
    assert stream.state == RESET_SENT
    wire.feed(data(1, b"y") + data(1, end=True) + get(3))


def test_credit_for_a_stream_is_given_when_the_body_is_taken() -> None:
    """And for the connection at once, so that a body which is not taken keeps no other waiting."""
    wire = Wire()
    stream = wire.stream(1, post(1))
    wire.server.credit = lambda stream, size: None
    wire.server.sent = b""
    for _ in range(4):
        wire.feed(data(1, b"x" * 16_383))
    wire.feed(data(1, b"x" * 3))
    assert stream.incoming is not None
    assert stream.incoming.window == 0
    assert [each for each in told(wire.server.sent) if each.startswith("window 1")] == []
    assert wire.server.streams.receive_window > 2**29
    wire.sender.credit(stream, 1000)
    wire.sender.credit(stream, 10)
    assert told(wire.sender.take()) == ["window 1 1000"]
    wire.sender.credit(stream, 40_000)
    assert told(wire.sender.take()) == ["window 1 40010"]
    assert stream.incoming.window == 41_010


def test_beyond_the_window_is_a_fault_of_the_stream() -> None:
    wire = Wire()
    wire.stream(1, post(1))
    wire.server.credit = lambda stream, size: None
    for _ in range(4):
        wire.feed(data(1, b"x" * 16_384))
    assert told(wire.server.sent)[-1] == "reset 1 FLOW_CONTROL_ERROR"


def test_padding_is_given_back() -> None:
    """Fails without credit for bytes that no application takes."""
    wire = Wire()
    stream = wire.stream(1, post(1))
    for _ in range(600):
        wire.feed(F.head(250, F.DATA, F.PADDED, 1) + b"\xf0" + b"x" * 9 + b"\0" * 240)
    assert stream.incoming is not None
    assert stream.incoming.window > 30_000


def test_a_wider_window() -> None:
    server = PlainServer(window=2**20)
    server.sender.begin({F.MAX_CONCURRENT_STREAMS: 100})
    first = next(take_apart(server.sender.take()))
    assert first[3].hex() == "000300000064" + "000400100000"
    server.feed(OPENING + post(1))
    incoming = server.streams.open[1].incoming
    assert incoming is not None
    assert incoming.window == 2**20


def test_leaving_in_two_steps() -> None:
    """RFC 9113 section 6.8: streams that were under way are served, later ones are ignored and change the table."""
    wire = Wire()
    wire.sender.goaway(last=F.LARGEST_STREAM)
    wire.sender.ping(b"leaving!")
    sent = list(take_apart(wire.sender.take()))
    assert [payload[:4] for kind, _, _, payload in sent if kind == F.GOAWAY] == [b"\x7f\xff\xff\xff"]
    wire.feed(get(1) + F.ping(b"leaving!", ack=True))
    assert wire.server.pongs == [b"leaving!"]
    wire.sender.goaway()
    assert [payload[:4] for _, _, _, payload in take_apart(wire.sender.take())] == [b"\0\0\0\1"]
    wire.feed(post(3) + data(3, b"x") + F.window_update(3, 1) + F.rst_stream(3, 0) + F.ping(b"12345678", ack=False))
    assert len(wire.server.requests) == 1
    assert told(wire.server.sent)[-1] == "pong 12345678"


def test_frames_beyond_a_portion_wait() -> None:
    """Fails without FRAMES_PER_TURN: a loop would be held up by 256 KB of the smallest frames."""
    server = PlainServer()
    server.refill = False
    server.feed(OPENING + F.window_update(0, 1) * 1000)
    assert server.reader.spent
    done = server.streams.send_window - WINDOW
    assert 100 < done < 500
    server.reader.feed(F.window_update(0, 1), 0.0)
    assert server.streams.send_window == WINDOW + done
    while server.reader.spent:
        server.reader.refill()
        server.reader.feed(b"", 0.0)
    assert server.streams.send_window == WINDOW + 1001


def test_when_a_head_is_awaited() -> None:
    server = PlainServer()
    assert server.reader.in_head
    server.feed(OPENING)
    assert not server.reader.in_head
    raw = get(1)
    server.feed(raw[:12])
    assert server.reader.in_head
    server.feed(raw[12:])
    assert not server.reader.in_head
    server.feed(post(3) + data(3, b"xyz")[:10])
    assert not server.reader.in_head
    server.feed(b"yz" + F.head(1, F.HEADERS, 0, 5) + b"\x82")
    assert server.reader.in_head


# ── whole answers ────────────────────────────────────────────────────────────────────────────


def test_a_whole_answer_is_two_frames_or_waits() -> None:
    """Fails without one of the conditions in Sender.whole, and with frames that are remembered beyond the date."""
    defaults = Defaults([], b"Thu, 01 Jan 1970 00:00:00 GMT")
    encoder = BlockEncoder(defaults)
    head = encoder.heads.make(200, [(b"content-length", b"5")])
    framed = encoder.frame(head)
    assert framed is not None
    assert encoder.framed[head] == framed
    defaults.renew(b"Thu, 01 Jan 1970 00:00:01 GMT")
    encoder.renew()
    assert not encoder.framed
    wire = Wire(get(1) + get(3) + setting(F.INITIAL_WINDOW_SIZE, 4) + get(5))
    narrow, first, held = (wire.server.streams.open[number] for number in (5, 1, 3))
    for stream in (first, held):
        stream.send_window = 5
    assert not wire.sender.whole(narrow, framed, b"hello")
    wire.sender.held = True
    assert not wire.sender.whole(held, framed, b"hello")
    wire.sender.held = False
    assert wire.sender.whole(first, framed, b"hello")
    assert first.state == CLOSED
    assert [*wire.server.streams.open] == [3, 5]
    assert wire.take() == [(1, -1, False), (1, 5, True)]
    wire.server.streams.send_window = 4
    assert not wire.sender.whole(held, framed, b"hello")


def test_heads_that_never_come_again_are_not_kept() -> None:
    """Fails without the bound in BlockEncoder.frame."""
    encoder = BlockEncoder(Defaults([], None))
    for number in range(2 * REMEMBERED):
        assert encoder.frame(encoder.heads.make(200, [(b"etag", b"%d" % number), (b"content-length", b"5")]))
    assert len(encoder.framed) <= REMEMBERED
    assert encoder.frame(encoder.heads.make(200, [(b"content-length", b"99999")])) is None
    assert encoder.frame(encoder.heads.make(200, [])) is None

"""The reader of requests alone: bytes in, calls of a sink out."""

from collections.abc import Mapping
from typing import Any

import pytest

from aserver.errors import ClientError
from aserver.protocol.http1.framing import ReadPhase
from aserver.protocol.http1.head import CHUNKED, HeadCache
from aserver.protocol.http1.reader import PORTION_BYTES, RequestReader
from aserver.protocol.semantics.limits import RequestLimits

GET = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
OFFER = b"GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


class Told:
    """A sink that keeps what it is told."""

    def __init__(self, *, takes_offers: bool = False, limit: int = 1000, cache: HeadCache | None = None) -> None:
        self.requests: list[tuple[str, bytes, str, int]] = []
        self.fields: list[list[tuple[bytes, bytes]]] = []
        self.bodies: list[bytes] = []
        self.pieces: list[bytes] = []
        self.ends = self.spent = 0
        self._takes_offers = takes_offers
        self.limit = limit
        limits = RequestLimits(line=8190, fields=100, field_size=8190, body=1_000_000)
        self.reader = RequestReader(self, limits, HeadCache() if cache is None else cache)

    def on_request(
        self,
        method: str,
        target: bytes,
        version: str,
        headers: list[tuple[bytes, bytes]],
        keep_alive: bool,
        forwarding: Mapping[bytes, bytes],
        framing: Mapping[bytes, bytes] | None,
        length: int,
    ) -> None:
        self.requests.append((method, target, version, length))
        self.fields.append(headers)
        self.bodies.append(b"")
        self.reader.paused = len(self.requests) >= self.limit

    def on_body(self, data: bytes) -> None:
        self.bodies[-1] += data
        self.pieces.append(data)

    def on_end(self) -> None:
        self.ends += 1

    def on_offer(self) -> bool:
        return self._takes_offers

    def on_spent(self) -> None:
        self.spent += 1

    def feed_slowly(self, data: bytes) -> "Told":
        """Byte by byte, with as many turns as are asked for."""
        for at in range(len(data)):
            self.reader.feed(data[at : at + 1])
            while self.reader.spent:
                self.reader.spent = False
                self.reader.feed(b"")
        return self


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (GET, ("GET", b"/", "1.1", 0)),
        (b"BREW *a HTTP/1.0\r\n\r\n".replace(b"*", b"/"), ("BREW", b"/a", "1.0", 0)),
        (b"POST /p HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc", ("POST", b"/p", "1.1", 3)),
        (
            b"POST /c HTTP/1.1\r\nHost:t\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\na: b\r\n\r\n",
            ("POST", b"/c", "1.1", CHUNKED),
        ),
    ],
)
def test_a_request_is_told_alike_whole_and_byte_by_byte(data: bytes, told: tuple[Any, ...]) -> None:
    whole = Told()
    whole.reader.feed(data)
    for each in (whole, Told().feed_slowly(data)):
        assert each.requests == [told]
        assert each.bodies == [b"abc" if told[3] else b""]
        assert each.ends == bool(told[3])
        assert each.reader.phase is (ReadPhase.OVER if told[2] == "1.0" else ReadPhase.BETWEEN)


def test_the_phase_says_where_the_reader_stands() -> None:
    told = Told()
    reader = told.reader
    phases = []
    for piece in (b"", b"POS", b"T / HTTP/1.1\r\nHo", b"st: t\r\nContent-Length: 2\r\n\r\n", b"a", b"b", LAST, GET):
        reader.feed(piece)
        phases.append((reader.phase.name, reader.in_head))
    assert phases == [
        ("BETWEEN", False),
        ("LINE", True),
        ("FIELDS", True),
        ("BODY", False),
        ("BODY", False),
        ("BETWEEN", False),
        ("OVER", False),
        ("OVER", False),
    ]
    assert [request[1] for request in told.requests] == [b"/", b"/last"]


def test_a_piece_that_is_all_body_is_not_copied() -> None:
    """Fails without `BodyReader.counted`."""
    told = Told()
    told.reader.feed(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 300\r\n\r\n" + b"a" * 100)
    middle, last = b"b" * 100, b"c" * 100
    told.reader.feed(middle)
    told.reader.feed(last + LAST)
    assert told.pieces[1] is middle
    assert told.bodies[0] == b"a" * 100 + middle + last
    assert [request[1] for request in told.requests] == [b"/", b"/last"]


@pytest.mark.parametrize("offer", [b"", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"])
@pytest.mark.parametrize("coding", [b"Content-Length: 50", b"Transfer-Encoding: chunked"])
def test_after_a_body_the_parser_begins_anew(offer: bytes, coding: bytes) -> None:
    """Fails without `_end_body`: the parser waits for a body that it was not given."""
    head = b"POST / HTTP/1.1\r\nHost: t\r\n" + offer + coding + b"\r\n\r\n"
    body = b"a" * 50 if b"Length" in coding else b"32\r\n" + b"a" * 50 + b"\r\n0\r\n\r\n"
    for cut in (0, 1, len(body)):
        told = Told()
        for piece in (head + body[:cut], body[cut:], GET, head + body[:cut], body[cut:] + LAST):
            told.reader.feed(piece)
        assert [request[1] for request in told.requests] == [b"/", b"/", b"/", b"/last"]
        assert told.bodies == [b"a" * 50, b"", b"a" * 50, b""]
        assert told.ends == 2


def test_one_call_reads_a_portion_and_what_is_left_waits() -> None:
    told = Told()
    head = b"GET / HTTP/1.1\r\nHost: t\r\n" + b"A: %s\r\n" % (b"x" * 8000) * 4
    told.reader.feed(head + b"\r\n")
    assert told.spent == 1
    assert told.reader.spent
    assert told.reader.phase is ReadPhase.WAITING
    assert told.reader.in_head
    assert len(head) > PORTION_BYTES
    assert told.reader.unread
    told.reader.feed(GET)  # kept behind the rest
    assert not told.requests
    while told.reader.spent:
        told.reader.spent = False
        told.reader.feed(b"")
    assert len(told.requests) == 2
    assert not told.reader.unread


def test_a_paused_reader_begins_no_other_request() -> None:
    told = Told(limit=2)
    told.reader.feed(GET * 5)
    assert len(told.requests) == 2
    told.reader.feed(GET)
    assert len(told.requests) == 2
    told.reader.paused = False
    told.limit = 1000
    told.reader.feed(b"")
    assert len(told.requests) == 6


@pytest.mark.parametrize("taken", [True, False])
def test_an_offer_of_another_protocol(taken: bool) -> None:
    """What follows it is the other protocol's if the sink takes the offer, else the next request."""
    told = Told(takes_offers=taken)
    told.reader.feed(GET + OFFER + LAST)
    told.reader.feed(b"more")
    assert [request[1] for request in told.requests] == [b"/", b"/ws", *([] if taken else [b"/last"])]
    assert told.reader.phase is (ReadPhase.OFFER if taken else ReadPhase.OVER)
    assert told.reader.take_rest() == (LAST + b"more" if taken else b"")


def test_nothing_is_read_after_an_error() -> None:
    told = Told()
    with pytest.raises(ClientError) as error:
        told.reader.feed(GET + b"GET  / HTTP/1.1\r\n\r\n" + GET)
    assert error.value.status == 400
    assert told.reader.phase is ReadPhase.OVER
    told.reader.feed(GET)
    assert len(told.requests) == 1


def test_a_closed_reader_may_be_closed_and_fed_again() -> None:
    told = Told()
    told.reader.feed(GET[:5])
    for _ in range(2):
        told.reader.close()
        told.reader.feed(GET)
    assert not told.requests


def test_readers_learn_heads_from_each_other() -> None:
    cache = HeadCache()
    Told(cache=cache).reader.feed(GET)
    told = Told(cache=cache)
    told.reader.feed(b"GET /other HTTP/1.1\r\nHost: t\r\n\r\n")
    assert told.requests == [("GET", b"/other", "1.1", 0)]
    assert told.fields == [[(b"host", b"t")]]

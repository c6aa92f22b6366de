"""permessage-deflate: which offers are accepted, and what a hostile client cannot do (RFC 7692)."""

import os
import random
import tracemalloc
import zlib
from typing import Any

import pytest

from aserver.protocol.websocket import deflate
from aserver.protocol.websocket.deflate import Deflater, Inflater, negotiate
from aserver.protocol.websocket.frames import ViolationError
from aserver.protocol.websocket.reader import FrameReader
from tests.protocol.websocket.peers import (
    BINARY,
    CONTINUATION,
    PING,
    RSV1,
    TAIL,
    TEXT,
    Told,
    agreement,
    compress,
    feed,
    frame,
)

# ── negotiation, section 7.1 ─────────────────────────────────────────────────────────────────

P = b"permessage-deflate"


@pytest.mark.parametrize(
    ("offers", "answer"),
    [
        pytest.param([P], P + b"; server_max_window_bits=12", id="13.1 plain"),
        pytest.param([P.upper()], P + b"; server_max_window_bits=12", id="names are case-insensitive"),
        pytest.param(
            [P + b"; client_max_window_bits"],
            P + b"; server_max_window_bits=12; client_max_window_bits=12",
            id="browsers",
        ),
        pytest.param(
            [P + b";client_max_window_bits=9"],
            P + b"; server_max_window_bits=12; client_max_window_bits=9",
            id="a smaller window of the client",
        ),
        pytest.param([P + b"; server_max_window_bits=8"], P + b"; server_max_window_bits=8", id="13.3 window of 256"),
        pytest.param([P + b"; server_max_window_bits=15"], P + b"; server_max_window_bits=12", id="13.4 window of 32K"),
        pytest.param([P + b'; server_max_window_bits="10"'], P + b"; server_max_window_bits=10", id="quoted"),
        pytest.param(
            [P + b"; server_no_context_takeover; client_no_context_takeover"],
            P + b"; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12",
            id="13.2 no context takeover",
        ),
        pytest.param([b"x-webkit-deflate-frame, " + P], P + b"; server_max_window_bits=12", id="behind an unknown one"),
        pytest.param([b"foo; bar=1", P], P + b"; server_max_window_bits=12", id="in a second field"),
        pytest.param(
            [P + b"; server_max_window_bits=99, " + P + b"; server_max_window_bits=9"],
            P + b"; server_max_window_bits=9",
            id="behind an offer to decline",
        ),
        pytest.param([], None, id="none"),
        pytest.param([b""], None, id="empty"),
        pytest.param([P + b"; foo"], None, id="unknown parameter"),
        pytest.param([P + b"; foo=1"], None, id="unknown parameter with a value"),
        pytest.param([P + b"; server_max_window_bits"], None, id="value missing"),
        pytest.param([P + b"; server_max_window_bits=7"], None, id="window too small"),
        pytest.param([P + b"; server_max_window_bits=16"], None, id="window too big"),
        pytest.param([P + b"; server_max_window_bits=08"], None, id="leading zero"),
        pytest.param([P + b"; client_max_window_bits="], None, id="empty value"),
        pytest.param([P + b"; server_no_context_takeover=1"], None, id="value where there is none"),
        pytest.param(
            [P + b"; client_no_context_takeover; client_no_context_takeover"], None, id="parameter given twice"
        ),
    ],
)
def test_negotiation(offers: list[bytes], answer: bytes | None) -> None:
    agreed = negotiate(offers)
    assert (agreed.answer if agreed is not None else None) == answer


# ── compression ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("bits", range(8, 13))
def test_a_client_with_the_agreed_window_can_read(bits: int) -> None:
    deflater = Deflater(agreement(P + b"; server_max_window_bits=%d" % bits))
    client = zlib.decompressobj(wbits=-bits)
    rng = random.Random(bits)
    words = [rng.randbytes(40) for _ in range(30)]
    for _ in range(50):
        message = b"".join(rng.choices(words, k=100))
        payload = deflater.message(message)
        # Small pieces of output, so that zlib has to look into the window it was given and not into the output.
        read = client.decompress(payload + TAIL, 16)
        while client.unconsumed_tail:
            read += client.decompress(client.unconsumed_tail, 16)
        assert read == message


def test_the_context_is_taken_over_unless_the_client_says_no() -> None:
    message = os.urandom(500)
    deflater = Deflater(agreement())
    assert len(deflater.message(message)) > 500 > 100 > len(deflater.message(message))
    deflater = Deflater(agreement(P + b"; server_no_context_takeover"))
    assert len(deflater.message(message)) > 500
    assert len(deflater.message(message)) > 500


# ── inflation ────────────────────────────────────────────────────────────────────────────────


def read(*pieces: bytes, limit: int = 1000, offer: bytes = P) -> list[Any]:
    told = Told()
    reader = FrameReader(told, limit, Inflater(agreement(offer)))
    try:
        for piece in pieces:
            feed(reader, piece)
    except ViolationError as error:
        told.events.append(error.code)
    return told.events


HELLO = bytes.fromhex("f248cdc9c90700")  # section 7.2.3.1


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(frame(TEXT, HELLO, rsv=RSV1), ["Hello"], id="7.2.3.1 one block"),
        pytest.param(
            frame(TEXT, HELLO[:3], fin=False, rsv=RSV1) + frame(CONTINUATION, HELLO[3:]), ["Hello"], id="fragmented"
        ),
        pytest.param(
            frame(TEXT, HELLO, rsv=RSV1) + frame(TEXT, bytes.fromhex("f200110000"), rsv=RSV1),
            ["Hello", "Hello"],
            id="7.2.3.2 window shared",
        ),
        pytest.param(frame(TEXT, bytes.fromhex("000500faff48656c6c6f00"), rsv=RSV1), ["Hello"], id="7.2.3.3 stored"),
        pytest.param(frame(TEXT, bytes.fromhex("f348cdc9c9070000"), rsv=RSV1), ["Hello"], id="7.2.3.4 BFINAL"),
        pytest.param(
            frame(TEXT, bytes.fromhex("f348cdc9c9070000"), rsv=RSV1) + frame(TEXT, HELLO, rsv=RSV1),
            ["Hello", "Hello"],
            id="a message after BFINAL",
        ),
        pytest.param(
            frame(TEXT, bytes.fromhex("f248050000 00ffff cac9c90700".replace(" ", "")), rsv=RSV1),
            ["Hello"],
            id="7.2.3.5 two blocks",
        ),
        pytest.param(frame(BINARY, b"\x00", rsv=RSV1), [b""], id="7.2.3.6 empty"),
        pytest.param(frame(TEXT, b"plain"), ["plain"], id="not compressed"),
        pytest.param(
            frame(TEXT, HELLO[:3], fin=False, rsv=RSV1) + frame(PING, b"p") + frame(CONTINUATION, HELLO[3:]),
            [("ping", b"p"), "Hello"],
            id="a ping inside",
        ),
        pytest.param(frame(PING, HELLO, rsv=RSV1), [1002], id="a compressed ping"),
        pytest.param(
            frame(TEXT, HELLO[:3], fin=False, rsv=RSV1) + frame(CONTINUATION, HELLO[3:], rsv=RSV1),
            [1002],
            id="RSV1 on a continuation",
        ),
        pytest.param(frame(TEXT, HELLO, rsv=RSV1 | 1), [1002], id="another bit beside RSV1"),
        pytest.param(frame(TEXT, b"\xff\xff\xff", rsv=RSV1), [1007], id="no deflate"),
        pytest.param(frame(TEXT, compress(b"\xff\xfe"), rsv=RSV1), [1007], id="not UTF-8 when inflated"),
    ],
)
def test_inflation(data: bytes, expected: list[Any]) -> None:
    assert read(data) == expected
    for at in range(len(data)):
        assert read(data[:at], data[at:]) == expected, at
    assert read(*(data[at : at + 1] for at in range(len(data)))) == expected


def test_without_context_takeover_each_message_stands_alone() -> None:
    offer = P + b"; client_no_context_takeover"
    second = bytes.fromhex("f200110000")  # refers to the first
    assert read(frame(TEXT, HELLO, rsv=RSV1), frame(TEXT, HELLO, rsv=RSV1), offer=offer) == ["Hello", "Hello"]
    assert read(frame(TEXT, HELLO, rsv=RSV1), frame(TEXT, second, rsv=RSV1), offer=offer) == ["Hello", 1007]


def test_the_limit_holds_after_inflation() -> None:
    assert read(frame(BINARY, compress(bytes(1000)), rsv=RSV1)) == [bytes(1000)]
    assert read(frame(BINARY, compress(bytes(1001)), rsv=RSV1)) == [1009]
    parts = compress(bytes(1001))
    assert read(frame(BINARY, parts[:4], fin=False, rsv=RSV1), frame(CONTINUATION, parts[4:])) == [1009]


def test_the_limit_holds_for_what_the_end_of_a_message_makes() -> None:
    """The last block says that 4 bytes follow, and gets the 4 that RFC 7692 section 7.2.2 appends."""
    unfinished = b"\x00\x00\xff\xff" + b"\x00\x04\x00\xfb\xff"
    assert read(frame(BINARY, compress(bytes(996)) + unfinished, rsv=RSV1)) == [bytes(998) + b"\xff\xff"]
    assert read(frame(BINARY, compress(bytes(997)) + unfinished, rsv=RSV1)) == [1009]


def test_a_bomb_is_not_inflated() -> None:
    bomb = frame(BINARY, compress(bytes(100_000_000)), rsv=RSV1)
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        assert read(bomb) == [1009]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_a_flood_of_final_blocks_is_refused() -> None:
    final_and_empty = b"\x03\x00"
    assert read(frame(BINARY, final_and_empty * deflate.FINAL_BLOCKS + b"\x00", rsv=RSV1)) == [b""]
    assert read(frame(BINARY, final_and_empty * 1000 + b"\x00", rsv=RSV1)) == [1007]


def test_what_follows_a_final_block_may_refer_to_the_message_before_it() -> None:
    """Wherever the frame is cut: fails where only what one piece has made is known."""
    first = b"".join(b"%d " % number for number in range(50))
    context = zlib.compressobj(wbits=-15)
    final = context.compress(first) + context.flush()
    again = compress(first, zlib.compressobj(wbits=-15, zdict=first))
    assert len(again) < 10
    data = frame(BINARY, final + again, rsv=RSV1)
    assert read(data) == [first * 2]
    for at in range(len(data)):
        assert read(data[:at], data[at:]) == [first * 2], at
    assert read(*(data[at : at + 1] for at in range(len(data)))) == [first * 2]


def test_a_message_that_is_made_in_steps() -> None:
    """Final blocks and back references on both sides of a step's end. Fails with a window of the last step only."""
    words = b"".join(b"%d " % number for number in range(3000))
    for size in range(deflate.STEP - 3, deflate.STEP + 4):
        first = (words * 3)[:size]
        context = zlib.compressobj(wbits=-15)
        final = context.compress(first) + context.flush()
        again = compress(words, zlib.compressobj(wbits=-15, zdict=first))
        expected = [first + words, "after"]
        data = frame(BINARY, final + again, rsv=RSV1) + frame(TEXT, compress(b"after"), rsv=RSV1)
        assert read(data, limit=100_000) == expected
        for at in (len(final) // 2, len(final) + 8, len(data) - 20):
            assert read(data[:at], data[at:], limit=100_000) == expected
        assert read(data, limit=size + len(words)) == expected
        assert read(data, limit=size + len(words) - 1) == [1009]


def test_a_compressed_frame_longer_than_the_limit_is_fine_if_the_message_is_not() -> None:
    context = zlib.compressobj(level=0, wbits=-15)
    payload = b"".join(context.compress(bytes(1)) + context.flush(zlib.Z_SYNC_FLUSH) for _ in range(1000))[:-4]
    assert len(payload) > 1000
    assert read(frame(BINARY, payload, rsv=RSV1)) == [bytes(1000)]

"""Series of frames, right and slightly wrong, for our pure connection and for nghttp2's (the package ngh2).

After each frame the verdicts are compared: requests with their fields, bodies, what is reset, and how a connection
ends. Both servers keep silent, so that streams stay as the client leaves them. The two may differ where the RFC leaves
a choice: `ALLOWED` says which and why. Frames are drawn from a seeded generator, so that a seed repeats a series.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import hpack
import ngh2

from aserver.protocol.http2 import frames as F  # noqa: N812 - as in rfc9113_rows
from tests.protocol.http2.server import PlainServer
from tests.protocol.http2.wire import CODES, OPENING, frame, take_apart

Field = tuple[bytes, bytes]

GOOD: Final[list[Field]] = [
    *((b"x-a", b"1"), (b"x-a", b"2"), (b"accept", b"*/*"), (b"cookie", b"a=b"), (b"te", b"trailers")),
    *((b"content-length", b"3"), (b"content-length", b"0"), (b"host", b"t"), (b"x-long", b"y" * 300)),
    *((b"priority", b"u=1, i"), (b"x-empty", b""), (b"expect", b"100-continue")),
]
BAD: Final[list[Field]] = [
    *((b"X-Upper", b"1"), (b"connection", b"close"), (b"te", b"gzip"), (b"x-nul", b"a\0b"), (b"x-cr", b"a\rb")),
    *(
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"content-length", b"x"),
        (b":path", b"/"),
        (b"", b""),
    ),
    *(
        (b":status", b"200"),
        (b":odd", b""),
        (b"x y", b"1"),
        (b"host", b"other"),
        (b"keep-alive", b"1"),
        (b"x-sp", b" a"),
    ),
    *((b"x-tab", b"a\t"), (b"proxy-connection", b"x"), (b"x-del", b"\x7f"), (b"x-high", b"\xff")),
]
CONTROL: Final = (
    F.SETTINGS,
    F.PING,
    F.PRIORITY,
    F.RST_STREAM,
    F.WINDOW_UPDATE,
    F.GOAWAY,
    F.PUSH_PROMISE,
    F.CONTINUATION,
)


@dataclass
class Client:
    """Draws frames."""

    chance: random.Random
    encoder: hpack.Encoder = field(default_factory=hpack.Encoder)
    last: int = -1
    fields: list[Field] = field(default_factory=list)  # of the last header block

    def frames(self) -> Iterator[bytes]:
        """Yield whole frames; those of a header block come together."""
        for _ in range(self.chance.randrange(1, 12)):
            kinds = [self.request, self.body, self.control, self.trailers, self.odd]
            yield self.chance.choices(kinds, [6, 5, 5, 1, 1])[0]()

    def stream(self) -> int:
        """Return a stream, mostly one that has begun."""
        numbers = [self.last, max(self.last - 2, 1), self.last + 2, self.last + 1, 0]
        return max(0, self.chance.choices(numbers, [12, 6, 1, 1, 1])[0])

    def block(self, fields: list[Field]) -> bytes:
        self.fields = fields
        return bytes(self.encoder.encode(fields, huffman=self.chance.random() < 0.5))

    def headers(self, stream: int, fields: list[Field], *, end: bool) -> bytes:
        chance = self.chance
        block = self.block(fields)
        flags = F.END_STREAM if end else 0
        before = after = b""
        if chance.random() < 0.1:
            flags |= F.PADDED
            before, after = b"\3", bytes(3)
        if chance.random() < 0.1:
            flags |= F.PRIORITIZED
            before += chance.choice([0, 0, stream]).to_bytes(4, "big") + b"\x0f"
        cut = chance.randrange(len(block) + 1) if chance.random() < 0.2 else len(block)
        if cut == len(block):
            return frame(F.HEADERS, flags | F.END_HEADERS, stream, before + block + after)
        rest = frame(F.CONTINUATION, F.END_HEADERS, stream, block[cut:])
        return frame(F.HEADERS, flags, stream, before + block[:cut] + after) + rest

    def request(self) -> bytes:
        chance = self.chance
        fields: dict[bytes, bytes] = {b":method": b"GET", b":scheme": b"http", b":path": b"/a", b":authority": b"t"}
        if chance.random() < 0.3:
            fields[b":method"] = chance.choice([b"POST", b"HEAD", b"OPTIONS", b"CONNECT", b"a b", b""])
        if chance.random() < 0.15:
            fields[b":path"] = chance.choice([b"", b"*", b"x", b"/a?b", b"/%", b"/ "])
        if chance.random() < 0.1:
            fields[b":authority"] = chance.choice([b"", b"u@t", b"t:80", b"[::1]"])
        if chance.random() < 0.1:
            del fields[chance.choice(list(fields))]
        pairs = [*fields.items(), *chance.sample(GOOD, chance.randrange(4))]
        if chance.random() < 0.15:
            pairs.insert(chance.randrange(len(pairs) + 1), chance.choice(BAD))
        number = self.last + chance.choices([2, 4, 1, 0, -2], [20, 2, 0.3, 0.3, 0.3])[0]
        self.last = max(self.last, number)
        return self.headers(max(number, 0), pairs, end=chance.random() < 0.4)

    def trailers(self) -> bytes:
        return self.headers(self.stream(), self.chance.sample(GOOD[:3] + BAD[:3], 1), end=self.chance.random() < 0.9)

    def body(self) -> bytes:
        chance = self.chance
        flags = F.END_STREAM if chance.random() < 0.4 else 0
        payload = chance.choice([b"", b"abc", b"abc", b"x" * 100, b"x" * 16_384])
        if chance.random() < 0.2:
            flags |= F.PADDED
            payload = bytes((chance.choice([0, 3, 3, 200]),)) + payload[:16_000] + bytes(3)
        return frame(F.DATA, flags, self.stream(), payload)

    def control(self) -> bytes:
        chance = self.chance
        stream = self.stream()
        setting = chance.choice([1, 2, 3, 4, 5, 6, 8, 9, 99]) << 32 | chance.choice([0, 1, 5, 2**14, 2**31])
        increment = chance.choice([0, 1, 2**31 - 1, 2**31 + 5])
        return chance.choice((
            frame(F.PING, chance.choice([0, F.ACK]), 0, b"12345678"),
            frame(F.RST_STREAM, 0, stream, chance.choice([0, 8, 99]).to_bytes(4, "big")),
            frame(F.WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big")),
            frame(F.PRIORITY, 0, stream, chance.choice([0, stream, 1]).to_bytes(4, "big") + b"\1"),
            frame(F.SETTINGS, 0, 0, setting.to_bytes(6, "big")),
            frame(F.SETTINGS, F.ACK, 0),
            frame(F.PRIORITY_UPDATE, 0, 0, stream.to_bytes(4, "big") + b"u=2"),
            frame(chance.choice([0xA, 0xC, 0x20, 0xFF]), chance.randrange(256), stream, b"zz"),
        ))  # fmt: skip

    def odd(self) -> bytes:
        """A frame of a length, or at a place, that may be wrong."""
        chance = self.chance
        payload = bytes(chance.choice([0, 1, 3, 4, 5, 6, 7, 8, 9]))
        return frame(chance.choice(CONTROL), chance.choice([0, 1, 4]), chance.choice([0, self.stream()]), payload)


@dataclass(frozen=True)
class Verdict:
    """The answer to a frame: `faults` in words, and what an application is told."""

    faults: tuple[str, ...]
    told: list[tuple[Any, ...]] = field(default_factory=list)


def _sent(raw: bytes) -> tuple[list[str], list[tuple[Any, ...]]]:
    """What a server has sent that a client would act upon: faults, and acknowledgements."""
    faults: list[str] = []
    acknowledged: list[tuple[Any, ...]] = []
    for kind, flags, stream, payload in take_apart(raw):
        if kind == F.RST_STREAM:
            faults.append(f"reset {CODES[int.from_bytes(payload, 'big')]}")
        elif kind == F.GOAWAY:
            faults.append(f"goaway {CODES[int.from_bytes(payload[4:8], 'big')]}")
        elif kind in (F.SETTINGS, F.PING):
            acknowledged.append((F.NAMES[kind], flags, stream, payload))
    return faults, acknowledged


class Ours:
    """The pure half of our connection."""

    def __init__(self) -> None:
        self.server = PlainServer(silent=True)
        self.feed(OPENING)

    def feed(self, data: bytes) -> Verdict:
        """Return the verdict on a frame."""
        server = self.server
        complete = {number for number, stream in server.streams.open.items() if stream.complete}
        server.requests, server.refused, server.bodies, server.sent = [], [], {}, b""
        server.feed(data)
        faults, told = _sent(server.sent)
        if server.refused:
            faults = [f"refused {server.refused[0][1]}"]
        if server.fault is not None:
            faults.append(f"goaway {CODES[server.fault.code]}")
        told += [("request", each.method, each.target, sorted(each.headers)) for each in server.requests]
        told += [("body", number, body) for number, body in server.bodies.items()]
        told += [("end", each.id) for each in server.streams.open.values() if each.complete and each.id not in complete]
        return Verdict(tuple(faults), told)


class Theirs:
    """nghttp2's session."""

    def __init__(self) -> None:
        self.connection = ngh2.Connection(ngh2.Role.SERVER)
        self.connection.initiate_connection(
            {F.MAX_CONCURRENT_STREAMS: 100, F.ENABLE_CONNECT_PROTOCOL: 1, F.NO_RFC7540_PRIORITIES: 1}
        )
        self.feed(OPENING)

    def feed(self, data: bytes) -> Verdict | None:
        """Return the verdict on a frame, None if the session has ended."""
        try:
            self.connection.receive_data(data)
        except ngh2.ConnectionStateError:  # the client has said GOAWAY, and no stream is open
            return None
        told: list[tuple[Any, ...]] = []
        for event in self.connection.events():
            if isinstance(event, ngh2.RequestReceived):
                told.append(_request([(bytes(each[0]), bytes(each[1])) for each in event.headers]))
            elif isinstance(event, ngh2.DataReceived) and event.data:
                told.append(("body", event.stream_id, bytes(event.data)))
            if isinstance(event, ngh2.TrailersReceived) or (
                isinstance(event, ngh2.RequestReceived | ngh2.DataReceived) and event.end_stream
            ):
                told.append(("end", event.stream_id))
        faults, acknowledged = _sent(self.connection.data_to_send())
        return Verdict(tuple(faults), acknowledged + told)


def _request(fields: list[Field]) -> tuple[Any, ...]:
    """What we make of the fields of a request: `host` for :authority, cookies joined."""
    values = dict(fields)
    headers = [each for each in fields if each[0][:1] != b":" and each[0] != b"cookie"]
    if b"host" not in values:
        headers.append((b"host", values[b":authority"]))
    if crumbs := [value for name, value in fields if name == b"cookie"]:
        headers.append((b"cookie", b"; ".join(crumbs)))
    return ("request", values[b":method"].decode(), values.get(b":path", b""), sorted(headers))


@dataclass(frozen=True)
class Difference:
    """A frame on which the verdicts differ."""

    kind: int
    flags: int
    ours: Verdict
    theirs: Verdict
    fields: list[Field]

    def is_about(self, ours: str, theirs: str, *kinds: int) -> bool:
        """Whether it is a frame of these kinds and has these faults; * for any, and none for none."""
        if kinds and self.kind not in kinds:
            return False
        found = (" ".join(self.ours.faults) or "none", " ".join(self.theirs.faults) or "none")
        return all(each in (is_, "*") for each, is_ in zip((ours, theirs), found, strict=True))


def _hosts_differ(it: Difference) -> bool:
    values = dict(it.fields)
    return b"host" in values and values.get(b":authority", values[b"host"]) != values[b"host"]


#: What may differ, and why. Sections are of RFC 9113 unless another is named.
ALLOWED: Final[dict[str, Callable[[Difference], bool]]] = {
    "5.1, half-closed (remote): an error of the stream; nghttp2 ends the connection":
        lambda it: it.is_about("reset STREAM_CLOSED", "goaway STREAM_CLOSED", F.DATA, F.HEADERS),
    "5.1, closed: an error of the connection where the client has ended the stream itself; nghttp2 ignores the frame":
        lambda it: it.is_about("goaway STREAM_CLOSED", "none", F.DATA, F.HEADERS),
    "6.1, padding of more than the frame, on a stream that is gone: either mistake may be said; nghttp2 may say none":
        lambda it: it.kind == F.DATA and bool(it.flags & F.PADDED)
        and it.ours.faults in {("goaway PROTOCOL_ERROR",), ("goaway STREAM_CLOSED",)},
    "RFC 7540 5.3.1, a stream depends on itself; 6.3, PRIORITY of stream 0 or another length: nghttp2 reads none of it":
        lambda it: it.kind == F.PRIORITY or (it.kind == F.HEADERS and bool(it.flags & F.PRIORITIZED)
        and it.ours.faults == ("goaway PROTOCOL_ERROR",)),
    "RFC 9218 7.1: PRIORITY_UPDATE for stream 0, or one that a client cannot begin; nghttp2 ignores it":
        lambda it: it.is_about("goaway PROTOCOL_ERROR", "none", F.PRIORITY_UPDATE),
    "the length and the place of a frame are wrong, and either may be said":
        lambda it: it.is_about("goaway PROTOCOL_ERROR", "goaway FRAME_SIZE_ERROR", *CONTROL),
    "6.9: an error of the stream; nghttp2 ends the connection":
        lambda it: it.is_about("reset PROTOCOL_ERROR", "goaway PROTOCOL_ERROR", F.WINDOW_UPDATE)
        or it.is_about("reset FLOW_CONTROL_ERROR", "goaway FLOW_CONTROL_ERROR", F.WINDOW_UPDATE),
    "6.5: an acknowledgement of SETTINGS that nobody asked for; the section names no error":
        lambda it: it.is_about("none", "goaway PROTOCOL_ERROR", F.SETTINGS) and bool(it.flags & F.ACK),
    "8.1.1: a request without an authority is answered 400; nghttp2 resets it":
        lambda it: it.is_about("refused 400", "reset PROTOCOL_ERROR", F.HEADERS),
    "8.3.1: host differs from :authority, which a server should not accept; nghttp2 does":
        lambda it: it.is_about("reset PROTOCOL_ERROR", "none", F.HEADERS) and _hosts_differ(it),
}  # fmt: skip


def compare(seed: int) -> str | Difference | None:
    """Run a series. Return the reason for which the verdicts differ, the difference if there is none, or None."""
    client, ours, theirs = Client(random.Random(seed)), Ours(), Theirs()
    for raw in client.frames():
        verdict, other = ours.feed(raw), theirs.feed(raw)
        if other is None:
            return None
        if verdict != other:
            difference = Difference(raw[3], raw[4], verdict, other, client.fields)
            return next((why for why, holds in ALLOWED.items() if holds(difference)), difference)
        if any(fault.startswith("goaway") for fault in verdict.faults):
            return None
    return None

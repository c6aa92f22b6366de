"""The PROXY protocol: every form of header cut at every place, what is refused, and the front before a connection."""

import asyncio
import functools
import ipaddress
import json
import logging
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import anyio
import pytest
import trustme
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from aserver.errors import ClientError
from aserver.launch.run import serve
from aserver.metrics.page import Awaited
from aserver.protocol.peer.proxy_protocol import (
    LONGEST_LINE,
    SIGNATURE,
    Address,
    Mode,
    Proxied,
    ProxyHeader,
)
from aserver.protocol.peer.trust import Peers
from aserver.protocol.transport.handshakes import Handshakes
from aserver.protocol.transport.reception import Front, Reception
from tests.apps.connection import app

FOUR = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"
FOUR_ENDS = (("192.0.2.1", 56324), ("198.51.100.2", 443))


def v2(command: int, family: int, block: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(block) if length is None else length) + block


BLOCK_4 = bytes([192, 0, 2, 1, 198, 51, 100, 2]) + struct.pack("!HH", 56324, 443)
BLOCK_6 = ipaddress.ip_address("2001:db8::1").packed + ipaddress.ip_address("::1").packed + struct.pack("!HH", 1, 65535)
TLV = b"\x04\x00\x03abc"
NOBODY = (None, None)
GOOD: list[tuple[bytes, tuple[Address | None, Address | None]]] = [
    (FOUR, FOUR_ENDS),
    (b"PROXY TCP6 2001:DB8:0::1 ::1 1 65535\r\n", (("2001:db8::1", 1), ("::1", 65535))),
    (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 0\r\n", (("0.0.0.0", 0), ("255.255.255.255", 0))),
    (b"PROXY UNKNOWN\r\n", NOBODY),
    (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", NOBODY),
    (b"PROXY UNKNOWN " + b"x" * (LONGEST_LINE - 16) + b"\r\n", NOBODY),
    (v2(0x21, 0x11, BLOCK_4), FOUR_ENDS),
    (v2(0x21, 0x12, BLOCK_4 + TLV), FOUR_ENDS),
    (v2(0x21, 0x21, BLOCK_6 + TLV * 1000), (("2001:db8::1", 1), ("::1", 65535))),
    (v2(0x21, 0x31, b"/a".ljust(108, b"\0") * 2), NOBODY),
    (v2(0x21, 0x00, b""), NOBODY),
    (v2(0x21, 0x00, TLV), NOBODY),
    (v2(0x21, 0x10, b""), NOBODY),
    (v2(0x20, 0x00, b""), NOBODY),
    (v2(0x20, 0x11, BLOCK_4), NOBODY),  # a health check's addresses are not looked at
    (v2(0x20, 0xFF, b"x"), NOBODY),
]
BAD = [
    b"GET / HTTP/1.1\r\n",
    b"\x16\x03\x01\x02\x00",
    b"proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
    b"PROXY\r\n",
    b"PROXY \r\n",
    b"PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\nGET",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\rGET",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\r\n",
    b"PROXY UNKNOWN \r \r\n",
    b"PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
    b"PROXY TCP4 1.1.1.1  2.2.2.2 1 2\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 -1 2\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 1_0 2\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 000000000001 2\r\n",
    b"PROXY TCP4 1.1.1.1 2.2.2.2 \xb2 2\r\n",
    b"PROXY TCP4 1.1.1.01 2.2.2.2 1 2\r\n",
    b"PROXY TCP4 1.1.1 2.2.2.2 1 2\r\n",
    b"PROXY TCP4 ::1 2.2.2.2 1 2\r\n",
    b"PROXY TCP6 ::1 2.2.2.2 1 2\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    b"PROXY TCP4 \xff.1.1.1 2.2.2.2 1 2\r\n",
    b"PROXY UNKNOWN " + b"x" * (LONGEST_LINE - 15) + b"\r\n",
    b"PROXY UNKNOWN " + b"x" * 1000,
    SIGNATURE + b"\x11",
    SIGNATURE + b"\x22",
    SIGNATURE + b"\x2f",
    v2(0x21, 0x41, b"x" * 12),
    v2(0x21, 0x13, BLOCK_4),
    v2(0x21, 0x11, BLOCK_4[:-1]),
    v2(0x21, 0x21, BLOCK_6[:-1]),
    v2(0x21, 0x31, b"x" * 215),
    b"\r\n\r\nGET / HTTP/1.1\r\n",
]


def parse(pieces: list[bytes], mode: Mode = "auto") -> Proxied | None:
    """What comes of the pieces; once there is a result, the remaining ones are behind the header."""
    header = ProxyHeader(mode)
    for index, piece in enumerate(pieces):
        if (found := header.feed(piece)) is not None:
            return found._replace(rest=found.rest + b"".join(pieces[index + 1 :]))
    return None


# ── the parser ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("header", "ends"), GOOD)
def test_good_headers_cut_at_every_byte(header: bytes, ends: tuple[Address | None, Address | None]) -> None:
    data = header + b"\r\nGET / HTTP/1.1\r\n"
    wanted = Proxied(*ends, b"\r\nGET / HTTP/1.1\r\n")
    for cut in range(len(data) if len(data) < 500 else 60):
        assert parse([data[:cut], data[cut:]]) == wanted
    assert parse([data[at : at + 1] for at in range(len(data))]) == wanted
    for cut in range(len(header)):
        assert parse([header[:cut]]) is None


@pytest.mark.parametrize("data", BAD)
def test_bad_headers_cut_at_every_byte(data: bytes) -> None:
    for cut in range(len(data)):
        with pytest.raises(ClientError):
            parse([data[:cut], data[cut:]])
    with pytest.raises(ClientError):
        parse([data[at : at + 1] for at in range(len(data))])


@pytest.mark.parametrize(("header", "_"), GOOD)
def test_a_mode_takes_its_own_version_only(header: bytes, _: object) -> None:
    mine: Mode = "v2" if header.startswith(SIGNATURE) else "v1"
    other: Mode = "v1" if mine == "v2" else "v2"
    assert parse([header], mine) == parse([header])
    with pytest.raises(ClientError, match=rf"no PROXY header \({other}\)"):
        parse([header[:1]], other)


@pytest.mark.parametrize("mode", ["own", "auto"])
@pytest.mark.parametrize(("header", "ends"), GOOD)
def test_who_reads_what_is_wanted_reads_nothing_behind_the_header(
    header: bytes, ends: tuple[Address | None, Address | None], mode: str
) -> None:
    own: Mode = "v2" if header.startswith(SIGNATURE) else "v1"
    reader, data, found, reads = ProxyHeader(own if mode == "own" else "auto"), header + b"secret", None, 0
    while found is None:
        wanted = reader.wanted
        assert wanted > 0
        found, data, reads = reader.feed(data[:wanted]), data[wanted:], reads + 1
    assert (found, data) == (Proxied(*ends, b""), b"secret")
    assert reads <= LONGEST_LINE // 2


@given(st.ip_addresses(), st.data(), st.binary(max_size=50), st.binary(max_size=300))
def test_any_pair_of_addresses_comes_through_both_versions(
    source: ipaddress.IPv4Address | ipaddress.IPv6Address, data: st.DataObject, tlvs: bytes, rest: bytes
) -> None:
    destination = data.draw(st.ip_addresses(v=source.version))
    ports = data.draw(st.tuples(*[st.integers(0, 65535)] * 2))
    text = f"PROXY TCP{source.version} {source} {destination} {ports[0]} {ports[1]}\r\n".encode()
    block = source.packed + destination.packed + struct.pack("!HH", *ports) + tlvs
    wanted = Proxied((str(source), ports[0]), (str(destination), ports[1]), rest)
    for header in (text, v2(0x21, 0x11 if source.version == 4 else 0x21, block)):
        cut = data.draw(st.integers(0, len(header)))
        assert parse([header[:cut], header[cut:] + rest]) == wanted


@given(st.lists(st.binary(max_size=40), max_size=20), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE]))
def test_garbage_is_refused_or_waited_for_and_the_cut_makes_no_difference(pieces: list[bytes], start: bytes) -> None:
    def outcome(given_pieces: list[bytes]) -> object:
        try:
            return parse(given_pieces)
        except ClientError:
            return "refused"

    assert outcome([start, *pieces]) == outcome([start + b"".join(pieces)])


# ── who is trusted ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("allowed", "peer", "trusted"),
    [
        (["127.0.0.1", "::1", "unix"], ("127.0.0.1", 1), True),
        (["127.0.0.1", "::1", "unix"], ("::1", 1, 0, 0), True),
        (["127.0.0.1", "::1", "unix"], "", True),
        (["127.0.0.1"], "", False),
        (["127.0.0.1"], None, False),
        (["unix"], ("127.0.0.1", 1), False),
        (["10.0.0.0/8", "fd00::/8"], ("10.255.0.1", 1), True),
        (["10.0.0.0/8", "fd00::/8"], ("fdab::1", 1, 0, 0), True),
        (["10.0.0.0/8"], ("11.0.0.1", 1), False),
        (["10.0.0.0/8"], ("::ffff:10.0.0.1", 1, 0, 0), True),
        (["fe80::/10"], ("fe80::1%eth0", 1, 0, 2), True),
        (["*"], ("203.0.113.1", 1), True),
        (["*"], "", True),
        ([], ("127.0.0.1", 1), False),
    ],
)
def test_trusted_peers(allowed: list[str], peer: object, trusted: bool) -> None:
    assert (peer in Peers(allowed)) is trusted


# ── in front of a connection ─────────────────────────────────────────────────────────────────

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
Use = Callable[[int], Awaitable[None]]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def with_server(request: pytest.FixtureRequest) -> Iterator[Callable[..., None]]:
    """Serve in a loop of each kind, and use the server there."""
    with asyncio.Runner(loop_factory=request.param) as runner:

        def run(use: Use, **settings: Any) -> None:
            async def main() -> None:
                async with anyio.create_task_group() as group:
                    (address,) = await group.start(functools.partial(serve, app, bind="127.0.0.1:0", **settings))
                    with anyio.fail_after(20):
                        await use(address[1])
                    group.cancel_scope.cancel()

            runner.run(main())

        yield run


async def send(port: int, *pieces: bytes) -> dict[str, Any] | None:
    """What the app is told of a connection on which the pieces were sent one by one; None if it is cut off instead."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)  # so that they arrive as pieces; nothing depends on it
        answer = await reader.read()
    except ConnectionError:
        return None
    finally:
        writer.close()
    if not answer:
        return None
    told: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return told


@pytest.mark.parametrize("header", [FOUR, v2(0x21, 0x11, BLOCK_4 + TLV)])
def test_the_application_is_told_of_the_client_behind_the_proxy(
    with_server: Callable[..., None], header: bytes
) -> None:
    async def use(port: int) -> None:
        for pieces in ([header + REQUEST], [header, REQUEST], [header[:5], header[5:20], header[20:] + REQUEST]):
            told = await send(port, *pieces)
            assert told is not None
            assert (tuple(told["client"]), tuple(told["server"])) == FOUR_ENDS

    with_server(use, proxy_protocol="auto")


def test_a_proxy_that_speaks_for_itself_is_the_client(with_server: Callable[..., None]) -> None:
    async def use(port: int) -> None:
        for header in (b"PROXY UNKNOWN\r\n", v2(0x20, 0, b"")):
            told = await send(port, header + REQUEST)
            assert told is not None
            assert told["client"][0] == "127.0.0.1"
            assert told["server"] == ["127.0.0.1", port]

    with_server(use, proxy_protocol="auto")


def test_a_trusted_peer_without_a_header_is_cut_off_and_the_log_says_what_it_sent(
    with_server: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "aserver.error")

    async def use(port: int) -> None:
        assert await send(port, REQUEST) is None

    with_server(use, proxy_protocol="auto")
    (message,) = caplog.messages
    assert message.startswith("trusted peer ('127.0.0.1', ")
    assert "no PROXY header (auto) but b'GET / HTTP/1.1" in message


def test_nobody_else_is_listened_to(with_server: Callable[..., None]) -> None:
    async def use(port: int) -> None:
        told = await send(port, REQUEST)
        assert told is not None
        assert told["client"][0] == "127.0.0.1"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(FOUR + REQUEST)
        assert (await reader.read()).startswith((b"HTTP/1.1 400", b"HTTP/1.1 501"))
        writer.close()

    with_server(use, proxy_protocol="auto", forwarded_allow_ips="192.0.2.0/24")


def test_half_a_header_is_waited_for_no_longer_than_a_head(with_server: Callable[..., None]) -> None:
    async def use(port: int) -> None:
        assert await send(port, FOUR[:20]) is None

    with_server(use, proxy_protocol="v1", header_timeout="200ms")


@pytest.mark.parametrize("ends", ["header", "loss"])
def test_the_time_for_the_header_ends_with_it(ends: str) -> None:
    """Else it would cut off the connection that came of it. Fails without `end` in _receive and connection_lost."""
    transport, connection = mock.Mock(), mock.Mock()
    handshakes = Handshakes(mock.Mock(**{"time.return_value": 50.0}), 10.0)
    front = Front(Reception(lambda: connection, "v1", Peers(["*"]), handshakes, None))
    front.connection_made(transport)
    assert handshakes.owed == [Awaited.PROXY_HEADER]
    if ends == "header":
        front.get_buffer(-1)[:] = FOUR[:15]
        front.buffer_updated(15)
        assert len(handshakes) == 1
        for byte in FOUR[15:]:
            front.get_buffer(-1)[:1] = bytes([byte])
            front.buffer_updated(1)
        connection.connection_made.assert_called_once_with(transport)
    else:
        front.connection_lost(None)
    assert not len(handshakes)
    handshakes.sweep(10_000.0)
    transport.abort.assert_not_called()


@pytest.mark.parametrize("trusted", [True, False])
def test_tls_begins_behind_the_header(tmp_path: Path, with_server: Callable[..., None], trusted: bool) -> None:
    ca = trustme.CA()
    issued = ca.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert")
    issued.private_key_pem.write_to_path(tmp_path / "key")
    context = ssl.create_default_context()
    ca.configure_trust(context)

    def talk(port: int, header: bytes) -> dict[str, Any]:
        """The header and the first bytes of the handshake in one packet, as proxies send them."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with socket.create_connection(("127.0.0.1", port), 10) as sock:
            begun, answer = header, b""
            steps: list[Callable[[], Any]] = [client.do_handshake, lambda: client.write(REQUEST)]
            while not answer.endswith(b"}"):
                try:
                    if steps:
                        steps[0]()
                        steps.pop(0)
                        continue
                    answer += client.read()
                except ssl.SSLWantReadError:
                    if outgoing.pending or begun:
                        sock.sendall(begun + outgoing.read())
                        begun = b""
                    data = sock.recv(65536)
                    assert data, "closed by the server"
                    incoming.write(data)
        told: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
        return told

    async def use(port: int) -> None:
        for header in (FOUR, v2(0x21, 0x11, BLOCK_4)) if trusted else (b"",):
            told = await asyncio.to_thread(talk, port, header)
            assert told["scheme"] == "https"
            assert (tuple(told["client"]) == FOUR_ENDS[0]) is trusted

    allowed = "127.0.0.1" if trusted else "192.0.2.1"
    files = {"certfile": str(tmp_path / "cert"), "keyfile": str(tmp_path / "key")}
    with_server(use, proxy_protocol="auto", forwarded_allow_ips=allowed, **files)

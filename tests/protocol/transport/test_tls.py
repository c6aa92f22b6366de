"""TLS by `transport/tls.py`, on every loop and in all pieces. Each docstring says how the test was seen to fail."""

import asyncio
import contextlib
import gc
import random
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trustme
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from aserver.config import Config, Layer, build
from aserver.protocol.transport.handshakes import Handshakes, TlsHandshake, become
from aserver.protocol.transport.tls import RECORD, TlsTransport
from aserver.tls import Certificates, extension
from aserver.worker.native_server import SocketPoll, poll_of
from tests.harness.waiting import PATIENCE, eventually, turns_of_the_loop

#: Enough for many buffers of the transport and of the kernel.
LONG = random.Random(1).randbytes(8 << 20)
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
KINDS = [*LOOPS, *(["native"] if SocketPoll is not None else [])]


@pytest.fixture
def ca(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    return made


class Echo(asyncio.Protocol):
    """Answers the first bytes with LONG and closes; notes all that it is told."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.got = b""
        self.told: list[object] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.got += data
        self.transport.write(LONG)
        self.transport.close()

    def eof_received(self) -> bool:
        self.told.append("eof")
        return True

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append(exc if exc is None else type(exc))


class Stage:
    """A loop of a kind, and clients whose handshakes begin on it."""

    def __init__(self, kind: str) -> None:
        loop = asyncio.get_running_loop()
        self.poll = poll_of(loop) if kind == "native" else None
        self.handshakes = Handshakes(loop, 10)

    async def begin(self, certificates: Certificates, echo: Echo) -> tuple[socket.socket, TlsHandshake]:
        """Return a client's socket, and the handshake that waits for the client."""
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        handshake = TlsHandshake(self.handshakes, lambda transport: become(echo, transport), certificates)
        if self.poll is not None:
            self.poll.adopt(far, lambda: handshake.below)
        else:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: handshake.below, far)
        return near, handshake


@pytest.fixture(params=KINDS)
def run(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    kind = request.param

    async def staged(main: Callable[[Stage], Any]) -> None:
        stage = Stage(kind)
        try:
            async with asyncio.timeout(PATIENCE):
                await main(stage)
            await turns_of_the_loop()
        finally:
            if stage.poll is not None:
                stage.poll.close()

    with asyncio.Runner(loop_factory=LOOPS.get(kind, uvloop.new_event_loop)) as runner:
        yield lambda main: runner.run(staged(main))


def issue(ca: trustme.CA, directory: Path, *names: str) -> dict[str, Any]:
    """Settings with a pair of files for each name."""
    for name in names:
        issued = ca.issue_cert(name)
        issued.private_key_and_cert_chain_pem.write_to_path(directory / f"{name}.pem")
    files = [str(directory / f"{name}.pem") for name in names]
    return {"certfile": files, "keyfile": files}


def configured(**values: object) -> Config:
    return build([Layer("test", values)]).config


def trusting(ca: trustme.CA, version: str = "TLSv1_3") -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    context.maximum_version = ssl.TLSVersion[version]
    ca.configure_trust(context)
    return context


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_all_comes_whole_and_in_order(tmp_path: Path, ca: trustme.CA, run: Callable[..., Any], version: str) -> None:
    """Fails without the close_notify, the flow control of the transport below, or a record of `writelines`."""
    certificates = Certificates(configured(**issue(ca, tmp_path, "a.test")))

    async def main(stage: Stage) -> None:
        echo = Echo()
        sock, handshake = await stage.begin(certificates, echo)
        reader, writer = await asyncio.open_connection(sock=sock, ssl=trusting(ca, version), server_hostname="a.test")
        await handshake.over
        told = extension(echo.transport.get_extra_info("ssl_object"))
        assert told["server_cert"] == certificates.context.certificate
        assert told["tls_version"] == {"TLSv1_2": 0x0303, "TLSv1_3": 0x0304}[version]
        assert echo.transport.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        writer.write(b"hello")
        assert await reader.read() == LONG  # to the close_notify
        assert (echo.got, echo.told[0]) == (b"hello", "pause")
        writer.close()
        await eventually(lambda: None in echo.told)

    run(main)


@pytest.mark.parametrize("why", ["several pairs", "clients' certificates", "a renewed pair"])
def test_each_client_gets_its_certificate(tmp_path: Path, ca: trustme.CA, run: Callable[..., Any], why: str) -> None:
    """Fails with a context that is no longer that of `Certificates`, whose callback chooses."""
    names = ["a.test", "b.test"] if why == "several pairs" else ["a.test"]
    config: dict[str, Any] = issue(ca, tmp_path, *names)
    if why == "clients' certificates":
        config |= {"ca_certs": str(tmp_path / "ca.pem"), "cert_reqs": "required"}
    certificates = Certificates(configured(**config))
    context = trusting(ca)
    if why == "a renewed pair":
        issue(ca, tmp_path, "a.test")
        certificates.look(patient=False)
    elif why == "clients' certificates":
        ca.issue_cert("client@x.test").configure_cert(context)

    async def main(stage: Stage) -> None:
        echo = Echo()
        sock, handshake = await stage.begin(certificates, echo)
        _, writer = await asyncio.open_connection(sock=sock, ssl=context, server_hostname=names[-1])
        await handshake.over
        assert writer.get_extra_info("ssl_object").getpeercert()["subjectAltName"] == (("DNS", names[-1]),)
        assert bool(extension(echo.transport.get_extra_info("ssl_object"))["client_cert_chain"]) == (
            why == "clients' certificates"
        )
        writer.transport.abort()
        echo.transport.abort()

    run(main)


def test_a_client_that_speaks_no_tls_hears_an_alert(tmp_path: Path, ca: trustme.CA, run: Callable[..., Any]) -> None:
    """Fails without the flush before the abort; without `TlsHandshake.connection_lost` its deadline stays."""
    certificates = Certificates(configured(**issue(ca, tmp_path, "a.test")))

    async def main(stage: Stage) -> None:
        echo = Echo()
        sock, handshake = await stage.begin(certificates, echo)
        reader, writer = await asyncio.open_connection(sock=sock)
        writer.write(b"\x16\x03\x01\x00\x05hello")
        alert = await reader.read()
        assert alert[0] == 21
        await handshake.over
        assert not stage.handshakes.owed
        assert echo.told == []
        writer.close()

    run(main)


@pytest.mark.parametrize("cut", ["in the handshake", "while it closes"])
def test_nothing_is_left_of_a_client_that_was_cut_off(
    tmp_path: Path, ca: trustme.CA, run: Callable[..., Any], cut: str
) -> None:
    """Fails if `connection_lost` keeps the protocol and its method: a cycle, for which the collector has to run."""
    certificates = Certificates(configured(**issue(ca, tmp_path, "a.test")))

    async def main(stage: Stage) -> None:
        gc.collect()
        gc.disable()
        try:
            await cut_off(stage)
            await eventually(
                lambda: not [each for each in gc.get_objects() if type(each) in (TlsTransport, ssl.SSLObject, Echo)]
            )
        finally:
            gc.enable()

    async def cut_off(stage: Stage) -> None:
        echo = Echo()
        sock, handshake = await stage.begin(certificates, echo)
        if cut == "in the handshake":
            handshake.give_up()
            await handshake.over
            sock.close()
            return
        sock.setblocking(True)

        def read_little() -> None:
            with trusting(ca).wrap_socket(sock, server_hostname="a.test") as client:
                client.sendall(b"hello")
                client.recv(1)

        await asyncio.to_thread(read_little)  # it closes with much unread
        await eventually(lambda: echo.told and echo.told[-1] not in ("pause", "resume"))

    run(main)


# ── in memory: every cut of the bytes ────────────────────────────────────────────────────────────


class Below:
    """The transport below: notes what is written, and whether it is read and open."""

    def __init__(self) -> None:
        self.written = b""
        self.reading, self.end = True, ""

    def write(self, data: bytes) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def write_eof(self) -> None:
        self.end = "half-close"

    def close(self) -> None:
        self.end = "close"

    def abort(self) -> None:
        self.end = "abort"


class Ear(asyncio.Protocol):
    """Notes what it is told, and pauses after each piece if it `dozes`."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.dozes = False

    def connection_made(self, transport: Any) -> None:
        self.heard.append("made")
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard.append(data)
        if self.dozes:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self.heard.append("eof")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.heard.append(exc)


class Pair:
    """A server's side and a client's, in memory."""

    def __init__(self, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
        self.soon: list[Callable[[], None]] = []
        self.below, self.ear = Below(), Ear()
        loop = cast("asyncio.AbstractEventLoop", SimpleNamespace(call_soon=self.soon.append))
        self.server = TlsTransport(loop, contexts[0], self.ear)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = contexts[1].wrap_bio(self._in, self._out, server_hostname="a.test")
        self.server.connection_made(cast("asyncio.BaseTransport", self.below))

    def to_client(self) -> None:
        """Move what the server has written."""
        if self.below.written:
            self._in.write(self.below.written)
            self.below.written = b""

    def from_client(self) -> bytes:
        """Take what the client has written."""
        return self._out.read()

    def shake_hands(self) -> None:
        """Complete the handshake on both sides."""
        for _ in range(6):
            with contextlib.suppress(ssl.SSLWantReadError):
                self.client.do_handshake()
            self.server.data_received(self.from_client())
            self.to_client()
        assert self.ear.heard == ["made"]
        self.ear.heard.clear()


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("a.test").configure_cert(server)
    return server, trusting(authority)


@given(
    messages=st.lists(st.integers(1, 3 * RECORD), min_size=1, max_size=4),
    cuts=st.lists(st.integers(1, 2 * RECORD + 500), min_size=1, max_size=6),
    dozes=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_bytes_come_in_order_however_they_are_cut(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], messages: list[int], cuts: list[int], dozes: bool
) -> None:
    """Fails without `_rest`: what OpenSSL keeps of a record that came in two pieces is not read until more comes. Fails
    without the call of `_go_on` in `resume_reading`.
    """
    pair = Pair(contexts)
    pair.shake_hands()
    pair.ear.dozes = dozes
    sent = b"".join(bytes([index + 1]) * size for index, size in enumerate(messages))
    position = 0
    while position < len(sent):
        position += pair.client.write(sent[position:])
    wire, index = pair.from_client(), 0
    while wire:
        size = cuts[index % len(cuts)]
        index += 1
        pair.server.data_received(wire[:size])
        wire = wire[size:]
    while not pair.below.reading:
        pair.server.resume_reading()
        soon, pair.soon[:] = pair.soon[:], []
        for call in soon:
            call()
    assert b"".join(pair.ear.heard) == sent
    assert all(len(piece) <= RECORD for piece in pair.ear.heard)


def test_a_paused_protocol_hears_nothing_more(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """Fails without the look at the pause in `_read`."""
    pair = Pair(contexts)
    pair.shake_hands()
    pair.ear.dozes = True
    pair.client.write(b"a")
    pair.client.write(b"b")
    pair.server.data_received(pair.from_client())
    assert (pair.ear.heard, pair.below.reading) == ([b"a"], False)
    pair.server.resume_reading()
    assert len(pair.soon) == 1
    pair.soon[0]()
    assert pair.ear.heard == [b"a", b"b"]


def test_writes_reach_the_client_and_none_follows_the_end(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """Fails with a close that sends no close_notify, or a write after it."""
    pair = Pair(contexts)
    pair.shake_hands()
    pair.server.write(b"one ")
    pair.server.writelines([b"two ", b"three"])
    pair.server.close()
    pair.server.write(b"late")
    pair.server.writelines([b"late"])
    pair.to_client()
    read = b""
    while piece := pair.client.read(100):
        read += piece
    assert (read, pair.below.end) == (b"one two three", "close")
    pair.server.connection_lost(None)
    assert pair.ear.heard == [None]


def test_after_the_last_answer_the_client_reads_the_end_while_it_still_sends(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    """Fails without the close_notify of `write_eof`; what comes after it is an error to OpenSSL."""
    pair = Pair(contexts)
    pair.shake_hands()
    pair.server.write(b"413")
    pair.server.write_eof()
    pair.client.write(b"more")
    pair.server.data_received(pair.from_client())
    pair.server.write(b"late")
    pair.to_client()
    assert (pair.client.read(9), pair.client.read(9), pair.below.end) == (b"413", b"", "half-close")
    pair.server.close()
    assert (pair.ear.heard, pair.below.end) == ([], "close")


@pytest.mark.parametrize("end", ["close_notify", "garbage", "EOF"])
def test_the_client_ends_it(contexts: tuple[ssl.SSLContext, ssl.SSLContext], end: str) -> None:
    """Fails without the error that is kept for `connection_lost`: a broken record would look like a good end."""
    pair = Pair(contexts)
    pair.shake_hands()
    if end == "close_notify":
        with pytest.raises(ssl.SSLWantReadError):
            pair.client.unwrap()
        pair.server.data_received(pair.from_client())
        assert (pair.ear.heard, pair.below.end) == (["eof"], "close")
    elif end == "garbage":
        pair.server.data_received(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        assert pair.below.end == "abort"
        assert pair.below.written  # an alert
        pair.server.connection_lost(None)
        assert isinstance(pair.ear.heard[0], ssl.SSLError)
    else:
        assert not pair.server.eof_received()
        assert pair.ear.heard == []


def test_a_client_is_given_up_before_its_transport_is_there(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """Fails without the look at the phase in `connection_made`."""
    below, ear = Below(), Ear()
    server = TlsTransport(cast("asyncio.AbstractEventLoop", None), contexts[0], ear)
    server.abort()
    server.close()
    assert server.is_closing()
    server.connection_made(cast("asyncio.BaseTransport", below))
    assert below.end == "abort"

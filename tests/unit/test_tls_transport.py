"""TLS by aiofastnet: who is served by it, and what 1.2.0 would do to a worker where it is not kept from it."""

import asyncio
import gc
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop

from aserver.config import Config, Layer, build
from aserver.tls import Certificates, extension

pytest.importorskip("aiofastnet", exc_type=ImportError)

PATIENCE = 20.0
#: Enough for many buffers of the transport and of the kernel.
LONG = 8 << 20


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner.run


@pytest.fixture
def ca(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    return made


class Echo(asyncio.Protocol):
    """Sends LONG bytes for the first that come; keeps its transport."""

    transport: asyncio.Transport
    got = b""
    paused = 0
    lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.got += data
        self.transport.write(b"x" * LONG)
        self.transport.close()

    def pause_writing(self) -> None:
        self.paused += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


def issue(ca: trustme.CA, directory: Path, *names: str) -> dict[str, Any]:
    """Settings with a pair of files for each name."""
    for name in names:
        issued = ca.issue_cert(name)
        issued.private_key_and_cert_chain_pem.write_to_path(directory / f"{name}.pem")
    files = [str(directory / f"{name}.pem") for name in names]
    return {"certfile": files, "keyfile": files}


def settings(**values: object) -> Config:
    return build([Layer("test", values)]).config


def trusting(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    ca.configure_trust(context)
    return context


def begin(certificates: Certificates, echo: Echo) -> tuple[socket.socket, asyncio.Task[None]]:
    """A client's socket, and the handshake that waits for the client."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    loop = asyncio.get_running_loop()
    return near, loop.create_task(certificates.connect(loop, lambda: echo, far))


def library(echo: Echo) -> str:
    """The package of the transport."""
    return type(echo.transport).__module__.partition(".")[0]


def test_the_only_pair_is_served_by_aiofastnet_whole_and_in_order(
    tmp_path: Path, ca: trustme.CA, run: Callable[..., Any]
) -> None:
    certificates = Certificates(settings(**issue(ca, tmp_path, "a.test")))

    async def main() -> None:
        echo = Echo()
        sock, handshake = begin(certificates, echo)
        reader, writer = await asyncio.open_connection(sock=sock, ssl=trusting(ca), server_hostname="a.test")
        await handshake
        assert library(echo) == "aiofastnet"
        told = extension(echo.transport.get_extra_info("ssl_object"))
        assert (told["server_cert"], told["tls_version"]) == (certificates.context.certificate, 0x0304)
        assert echo.transport.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        writer.write(b"hello")
        assert await reader.read() == b"x" * LONG  # to the close_notify
        assert (echo.got, bool(echo.paused)) == (b"hello", True)
        writer.close()

    run(asyncio.wait_for(main(), PATIENCE))


@pytest.mark.parametrize("why", ["several pairs", "clients' certificates", "a renewed pair"])
def test_where_aiofastnet_would_crash_or_write_files_the_loop_serves(
    tmp_path: Path, ca: trustme.CA, run: Callable[..., Any], why: str
) -> None:
    """If aiofastnet served them, the first would crash this process, in the ssl module's callback for SNI."""
    names = ["a.test", "b.test"] if why == "several pairs" else ["a.test"]
    config: dict[str, Any] = issue(ca, tmp_path, *names)
    if why == "clients' certificates":
        config |= {"ca_certs": str(tmp_path / "ca.pem"), "cert_reqs": "optional"}
    certificates = Certificates(settings(**config))
    if why == "a renewed pair":
        issue(ca, tmp_path, "a.test")
        certificates.look(patient=False)

    async def main() -> None:
        echo = Echo()
        sock, handshake = begin(certificates, echo)
        _, writer = await asyncio.open_connection(sock=sock, ssl=trusting(ca), server_hostname=names[-1])
        await handshake
        assert library(echo) in ("asyncio", "uvloop")
        assert writer.get_extra_info("ssl_object").getpeercert()["subjectAltName"] == (("DNS", names[-1]),)
        writer.transport.abort()
        echo.transport.abort()

    run(asyncio.wait_for(main(), PATIENCE))


def test_a_client_that_connects_before_a_renewal_and_greets_after_it_is_served(
    tmp_path: Path, ca: trustme.CA, run: Callable[..., Any]
) -> None:
    """A crash, if a context of aiofastnet's connections ever got a callback: OpenSSL looks for it at the greeting."""
    certificates = Certificates(settings(**issue(ca, tmp_path, "a.test")))

    async def main() -> None:
        echo = Echo()
        sock, handshake = begin(certificates, echo)
        await asyncio.sleep(0)  # the transport is there
        issue(ca, tmp_path, "a.test")
        certificates.look(patient=False)
        _, writer = await asyncio.open_connection(sock=sock, ssl=trusting(ca), server_hostname="a.test")
        await handshake
        writer.transport.abort()
        echo.transport.abort()

    run(asyncio.wait_for(main(), PATIENCE))


@pytest.mark.parametrize("cut", ["in the handshake", "while it closes"])
def test_nothing_is_left_of_a_client_that_was_cut_off(
    tmp_path: Path, ca: trustme.CA, run: Callable[..., Any], cut: str
) -> None:
    """Fails without `_WithoutTimers`: a timer of an hour keeps the transport, its buffers and OpenSSL's connection."""
    certificates = Certificates(settings(**issue(ca, tmp_path, "a.test")))

    async def main() -> None:
        echo = Echo()
        sock, handshake = begin(certificates, echo)
        if cut == "in the handshake":
            await asyncio.sleep(0)
            handshake.cancel()
            await asyncio.wait([handshake])
            sock.close()
        else:
            connecting = asyncio.open_connection(sock=sock, ssl=trusting(ca), server_hostname="a.test", limit=1)
            _, client = await connecting
            await handshake
            echo.data_received(b"")  # more than the client reads
            echo.transport.abort()
            while not echo.lost:
                await asyncio.sleep(0.01)
            client.transport.abort()
        del echo, handshake
        await asyncio.sleep(0.01)
        gc.collect()
        assert [each for each in gc.get_objects() if type(each).__name__ == "SSLTransport_Socket"] == []

    run(asyncio.wait_for(main(), PATIENCE))

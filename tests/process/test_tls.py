"""TLS of the real server: who is shown which certificate, what is refused, and what a change of files does.

Certificates are trustme's; clients are Python's ssl, curl and `openssl s_client`.
"""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from aserver.errors import ExitCode
from tests.harness import ServerProcess
from tests.harness.certificates import Authority, Pair
from tests.harness.client import RawConnection
from tests.harness.tools import require_tool
from tests.harness.waiting import PATIENCE

pytestmark = pytest.mark.process

APP = "tests.apps.connection:app"
Start = Callable[..., ServerProcess]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.issue("localhost", "127.0.0.1")


class TlsClient(RawConnection):
    """A raw connection whose handshake asks for a name of the test's choice and may resume a session."""

    def __init__(
        self, server: ServerProcess, context: ssl.SSLContext, name: str = "localhost", session: Any = None
    ) -> None:
        super().__init__(server.where)
        self.tls = context.wrap_socket(self.sock, server_hostname=name, session=session)
        self.sock = self.tls

    def ask(self) -> dict[str, Any]:
        """What the app is told, and who answers."""
        told: dict[str, Any] = json.loads(self.request().body)
        return told


def shown(server: ServerProcess, context: ssl.SSLContext, name: str) -> set[str]:
    """The names in the certificate that a client which asks for `name` is shown."""
    context.check_hostname = False
    with TlsClient(server, context, name) as client:
        certificate = client.tls.getpeercert()
    assert certificate is not None
    names: Any = certificate["subjectAltName"]
    return {value for _, value in names}


# ── what is served ───────────────────────────────────────────────────────────────────────────


def test_tls_plain_and_unix_listeners_side_by_side(
    server: Start, authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    binds = ["127.0.0.1:0", "http://127.0.0.1:0", "https://127.0.0.1:0", f"unix:{tmp_path}/a.sock"]
    running = server(APP, *pair.options, bind=binds)
    assert [address.scheme for address in running.addresses] == ["https", "http", "https", "http"]
    for address in running.addresses:
        tls = authority.client() if address.scheme == "https" else None
        with RawConnection(address.where, tls=tls) as client:
            assert json.loads(client.request().body)["scheme"] == address.scheme
    # A client that speaks plain HTTP to a TLS address learns nothing.
    with running.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP/" not in client.read_to_end()


def test_curl_and_openssl_agree(server: Start, authority: Authority, pair: Pair) -> None:
    running = server(APP, *pair.options)
    url = running.url.replace("127.0.0.1", "localhost")
    curl = subprocess.run(
        [require_tool("curl"), "-sSv", "--http1.1", "--resolve", f"localhost:{running.where[1]}:127.0.0.1", "--cacert",
         str(authority.file), url],
        capture_output=True, text=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    assert json.loads(curl.stdout)["scheme"] == "https"
    assert "http/1.1" in curl.stderr.lower()
    assert isinstance(running.where, tuple)
    openssl = subprocess.run(
        [require_tool("openssl"), "s_client", "-connect", f"127.0.0.1:{running.where[1]}", "-alpn", "h2,http/1.1",
         "-CAfile", str(authority.file), "-verify_return_error", "-verify_hostname", "localhost"],
        input="", capture_output=True, text=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    assert "Verify return code: 0 (ok)" in openssl.stdout
    assert "ALPN protocol: h2" in openssl.stdout


def test_sni_chooses_and_the_first_certificate_is_for_everybody_else(
    server: Start, authority: Authority, pair: Pair
) -> None:
    wild = authority.issue("*.example.org", "example.org", file="wild")
    running = server(APP, *pair.options, *wild.options)
    first, second = {"localhost", "127.0.0.1"}, {"*.example.org", "example.org"}
    wanted = {
        "localhost": first,
        "example.org": second,
        "WWW.Example.ORG": second,
        "a.b.example.org": first,  # an asterisk is one label
        "elsewhere.test": first,
        "127.0.0.1": first,  # an address is not sent as SNI
    }
    assert {name: shown(running, authority.client(), name) for name in wanted} == wanted


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_trap_19_sessions_resume_on_any_worker(
    server: Start, authority: Authority, pair: Pair, version: ssl.TLSVersion
) -> None:
    """Fails with the contexts made in each worker, whose ticket keys differ."""
    running = server(APP, *pair.options, "--workers", "2")
    context = authority.client()
    context.maximum_version = version
    with TlsClient(running, context) as client:
        first = client.ask()["pid"]
        session = client.tls.session  # TLS 1.3 sends the tickets after the handshake: the answer has brought them
        assert not client.tls.session_reused

    def another_worker_answers() -> bool:
        with TlsClient(running, context, session=session) as client:
            other = client.ask()["pid"]
            assert client.tls.session_reused
            assert client.tls.version() == version.name.replace("_", ".")
            return bool(other != first)

    running.wait_for(another_worker_answers, what="a connection to the other worker")


def test_an_encrypted_key_is_read_with_its_password(server: Start, authority: Authority, pair: Pair) -> None:
    _encrypt(pair.key, b"hunter2")
    running = server(APP, *pair.options, env={"ASERVER_KEYFILE_PASSWORD": "hunter2"})
    with TlsClient(running, authority.client()) as client:
        assert client.request().status == 200
    assert "hunter2" not in running.log


def _encrypt(key: Path, password: bytes) -> None:
    private = load_pem_private_key(key.read_bytes(), None)
    encryption = BestAvailableEncryption(password)
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))


def test_the_oldest_version_and_the_ciphers_are_the_settings(server: Start, authority: Authority, pair: Pair) -> None:
    cipher = "ECDHE-ECDSA-AES128-GCM-SHA256"
    old = authority.client()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    strict = server(APP, *pair.options, "--tls-min-version", "1.3")
    with pytest.raises(ssl.SSLError):
        TlsClient(strict, old)
    chosen = server(APP, *pair.options, "--ciphers", cipher)
    with TlsClient(chosen, old) as client:
        assert (client.tls.cipher() or ("",))[0] == cipher


# ── clients' certificates ────────────────────────────────────────────────────────────────────


def _answer_or_refusal(server: ServerProcess, context: ssl.SSLContext) -> int | None:
    """The status of a request; None if the handshake was refused, which TLS 1.3 clients learn after their half."""
    try:
        with TlsClient(server, context) as client:
            return client.request().status
    except (ssl.SSLError, ConnectionError, AssertionError):
        return None


@pytest.mark.parametrize(("asked", "without"), [("required", None), ("optional", 200)])
def test_clients_certificates(
    server: Start, authority: Authority, pair: Pair, asked: str, without: int | None, tmp_path: Path
) -> None:
    (tmp_path / "strangers").mkdir()
    mine = authority.issue(file="client", common_name="Alice, Admin", organization_name="Test")
    strange = Authority(tmp_path / "strangers").issue(file="client", common_name="Mallory")
    running = server(APP, *pair.options, "--ca-certs", str(authority.file), "--cert-reqs", asked)
    assert _answer_or_refusal(running, authority.client(mine)) == 200
    assert _answer_or_refusal(running, authority.client()) == without
    assert _answer_or_refusal(running, authority.client(strange)) is None


def test_the_application_is_told_of_the_client(server: Start, authority: Authority, pair: Pair) -> None:
    mine = authority.issue(file="client", common_name="Alice, Admin", organization_name="Test")
    running = server(APP, *pair.options, "--ca-certs", str(authority.file), "--cert-reqs", "optional")
    with TlsClient(running, authority.client(mine)) as client:
        for _ in range(2):
            told = client.ask()["tls"]
            assert told["client_cert_name"].startswith(r"CN=Alice\, Admin,")
            # ssl tells what the client sent beside its certificate since Python 3.13; before, its certificate alone.
            leaf, *others = told["client_cert_chain"]
            assert others == [authority.file.read_text()] * (sys.version_info >= (3, 13)), others
            assert ssl.PEM_cert_to_DER_cert(leaf) == ssl.PEM_cert_to_DER_cert(mine.cert.read_text())
            assert told["server_cert"] in pair.cert.read_text()
            assert (told["tls_version"], told["client_cert_error"]) == (0x0304, None)
            assert told["cipher_suite"] >> 8 == 0x13  # RFC 8446 appendix B.4
    with TlsClient(running, authority.client()) as client:
        told = client.ask()["tls"]
        assert (told["client_cert_name"], told["client_cert_chain"]) == (None, [])


# ── what is refused ──────────────────────────────────────────────────────────────────────────


def _spoil_missing(pair: Pair, _: Authority) -> str:
    pair.key.unlink()
    return f"keyfile {pair.key} cannot be read by uid {os.getuid()}: No such file"


def _spoil_other_key(pair: Pair, authority: Authority) -> str:
    authority.issue("localhost", file="other")[1].replace(pair.key)
    return f"keyfile {pair.key} is not the key of the certificate in {pair.cert}"


def _spoil_no_certificate(pair: Pair, _: Authority) -> str:
    pair.cert.write_text("hello")
    return f"certfile {pair.cert} holds no PEM certificate"


def _spoil_no_key(pair: Pair, _: Authority) -> str:
    pair.key.write_bytes(pair.cert.read_bytes())
    return f"keyfile {pair.key} holds no PEM private key"


def _spoil_no_password(pair: Pair, _: Authority) -> str:
    _encrypt(pair.key, b"hunter2")
    return f"keyfile {pair.key} is encrypted, and keyfile_password is not set"


SPOILERS = [_spoil_missing, _spoil_other_key, _spoil_no_certificate, _spoil_no_key, _spoil_no_password]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_a_bad_pair_refuses_to_start(
    server: Start, authority: Authority, pair: Pair, spoil: Callable[[Pair, Authority], str]
) -> None:
    says = spoil(pair, authority)
    running = server(APP, *pair.options, ready=False)
    assert running.wait_exit() == ExitCode.CONFIG
    assert says in running.log.replace("\n", " ")
    assert "listening" not in running.log


def test_a_wrong_password_refuses_to_start(server: Start, pair: Pair) -> None:
    _encrypt(pair.key, b"hunter2")
    running = server(APP, *pair.options, ready=False, env={"ASERVER_KEYFILE_PASSWORD": "password1"})
    assert running.wait_exit() == ExitCode.CONFIG
    assert f"keyfile {pair.key} cannot be decrypted with this keyfile_password" in running.log
    assert "password1" not in running.log


def test_a_bad_pair_refuses_a_reload_and_the_old_generation_serves(
    server: Start, authority: Authority, pair: Pair
) -> None:
    running = server(APP, *pair.options)
    with TlsClient(running, authority.client()) as client:
        before = client.ask()["pid"]
    pair.key.write_text("nothing")
    running.signal(signal.SIGHUP)
    running.wait_log(f"keyfile {pair.key} holds no PEM private key")
    with TlsClient(running, authority.client()) as client:
        assert client.ask()["pid"] == before


def test_an_address_stays_tls_or_plain_until_a_restart(
    server: Start, authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    settings = tmp_path / "aserver.toml"
    settings.write_text(f'certfile = "{pair.cert}"\nkeyfile = "{pair.key}"\n')
    running = server(APP, "-c", str(settings))
    settings.write_text("")
    running.signal(signal.SIGHUP)
    running.wait_log("certfile is not set now, but https://.* was bound to be TLS; restart to change")
    with TlsClient(running, authority.client()) as client:
        assert client.request().status == 200


# ── changed files ────────────────────────────────────────────────────────────────────────────


def test_a_renewed_certificate_is_taken_up_by_every_worker_without_a_restart(
    server: Start, authority: Authority, pair: Pair
) -> None:
    running = server(APP, *pair.options, "--workers", "2")
    workers = running.workers()
    with TlsClient(running, authority.client()) as old:
        authority.issue("localhost", "renewed.test")
        running.wait_log("server.pem has changed and is used for new handshakes", count=2)
        assert shown(running, authority.client(), "localhost") == {"localhost", "renewed.test"}
        assert old.request().status == 200
    assert running.workers() == workers


def test_a_bad_renewal_changes_nothing_until_it_is_mended(server: Start, authority: Authority, pair: Pair) -> None:
    running = server(APP, *pair.options)
    good = pair.key.read_bytes()
    pair.key.write_text("nothing")
    running.wait_log("changed certificate not taken up: .* holds no PEM private key")
    assert shown(running, authority.client(), "localhost") == {"localhost", "127.0.0.1"}
    pair.key.write_bytes(good)
    running.wait_log("server.pem has changed and is used")


def test_a_worker_forked_after_a_renewal_shows_the_new_certificate_at_once(
    server: Start, authority: Authority, pair: Pair
) -> None:
    """Fails without the look that the worker takes before it accepts: the zygote knows the old certificate only."""
    running = server(APP, *pair.options)
    authority.issue("localhost", "renewed.test")
    os.kill(running.workers()[0].pid, signal.SIGKILL)
    running.wait_log(r"worker 1 .* is ready", count=2)
    assert shown(running, authority.client(), "localhost") == {"localhost", "renewed.test"}


# ── time ─────────────────────────────────────────────────────────────────────────────────────


def test_a_client_that_says_nothing_is_not_waited_for(server: Start, pair: Pair) -> None:
    """Fails at the default of 10 s, too."""
    running = server(APP, *pair.options, "--header-timeout", "500ms")
    with running.connect(9.5) as client:
        client.expect_close()


def test_clients_that_say_nothing_count_as_connections(server: Start, pair: Pair) -> None:
    """Each has a descriptor. Fails if `limit_connections` counts those only whose handshake is over."""
    running = server(APP, *pair.options, "--limit-connections", "3")
    with running.connect(), running.connect(), running.connect():
        running.wait_log(r"3 connections are open, as many as may be \(limit_connections\)")


class Handshake:
    """A client that can be stopped in the middle of its handshake."""

    def __init__(self, server: ServerProcess, context: ssl.SSLContext) -> None:
        self.socket = socket.create_connection(server.where, PATIENCE)  # type: ignore[arg-type]
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")

    def begin(self) -> None:
        """Say hello and hear the server's answer to it, which shows that a worker has accepted."""
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.do_handshake()
        self.socket.sendall(self._out.read())
        self._in.write(self.socket.recv(65536))

    def finish(self) -> bytes:
        """Complete the handshake; returns what comes in answer to a request."""
        self._drive(self._tls.do_handshake)
        self._tls.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer: bytes = self._drive(lambda: self._tls.read(65536))
        return answer

    def _drive(self, step: Callable[[], Any]) -> Any:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self._flush()
                data = self.socket.recv(65536)
                assert data, "the server has closed in the middle of it"
                self._in.write(data)
            finally:
                self._flush()

    def _flush(self) -> None:
        if self._out.pending:
            self.socket.sendall(self._out.read())


def test_a_handshake_under_way_is_not_cut_off_by_a_recycle(server: Start, authority: Authority, pair: Pair) -> None:
    """Fails without a look at `handshakes` before the worker leaves: the worker has no connection, and leaves."""
    running = server(APP, *pair.options, "--min-lifetime", "0")
    handshake = Handshake(running, authority.client())
    with handshake.socket:
        handshake.begin()
        os.kill(running.workers()[0].pid, signal.SIGTERM)
        running.wait_log(r"worker 1 .* is ready", count=2)
        answer = handshake.finish()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer.lower()


def test_idle_and_silent_clients_do_not_hold_up_a_stop(server: Start, authority: Authority, pair: Pair) -> None:
    """Fails where the close_notify of a client that does not read is waited for: the stop takes graceful_timeout."""
    running = server(APP, *pair.options, "--idle-grace", "0", "--graceful-timeout", "10m", "--header-timeout", "10m")
    with TlsClient(running, authority.client()) as idle, running.connect():
        assert idle.request().status == 200
        assert running.stop() == ExitCode.OK

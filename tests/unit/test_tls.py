"""Certificates and contexts without a server: names, dates, refusals, renewals, and both loops in one process."""

import asyncio
import contextlib
import functools
import logging
import os
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import anyio
import pytest
import trustme
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from aserver import tls
from aserver.asgi import Receive, Scope, Send
from aserver.config import Config, Layer, build
from aserver.errors import ConfigError
from aserver.launch.run import serve
from aserver.tls import Certificates

Settings = dict[str, Any]


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "aserver.error")
    return caplog


def write(directory: Path, issued: trustme.LeafCert, name: str = "server") -> Settings:
    cert, key = directory / f"{name}.pem", directory / f"{name}.key"
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return {"certfile": [str(cert)], "keyfile": [str(key)]}


def settings(**values: object) -> Config:
    return build([Layer("test", values)]).config


def shake_hands(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str | None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = client.wrap_bio(down, up, server_hostname=name), server.wrap_bio(up, down, server_side=True)
    for _ in range(10):
        for side in sides:
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return sides


def trusting(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    context.check_hostname = False
    return context


def shown(certificates: Certificates, ca: trustme.CA, name: str | None) -> set[str]:
    client, _ = shake_hands(certificates.context, trusting(ca), name)
    decoded: Any = client.getpeercert()
    return {value for _, value in decoded["subjectAltName"]}


# ── choosing ─────────────────────────────────────────────────────────────────────────────────


def test_who_asks_for_no_name_is_shown_the_first(tmp_path: Path, ca: trustme.CA) -> None:
    first, second = (
        write(tmp_path, ca.issue_cert("a.test"), "a"),
        write(tmp_path, ca.issue_cert("*.b.test", "c.test"), "b"),
    )
    certificates = Certificates(settings(**{key: first[key] + second[key] for key in first}))
    for names, wanted in (
        ((None, "A.test", "b.test", "x.y.b.test"), {"a.test"}),
        (("x.b.test", "X.B.test", "c.test", "C.Test"), {"*.b.test", "c.test"}),
    ):
        assert [shown(certificates, ca, name) for name in names] == [wanted] * 4


def test_a_certificate_that_is_never_shown_is_named(
    tmp_path: Path, ca: trustme.CA, errors: pytest.LogCaptureFixture
) -> None:
    first, second = write(tmp_path, ca.issue_cert("a.test"), "a"), write(tmp_path, ca.issue_cert("a.test"), "b")
    Certificates(settings(**{key: first[key] + second[key] for key in first}))
    assert errors.messages == [f"{tmp_path}/b.pem is never shown: a certificate before it has all of its names"]


def test_relative_files_are_found_in_the_directory(tmp_path: Path, ca: trustme.CA) -> None:
    write(tmp_path, ca.issue_cert("a.test"))
    assert shown(Certificates(settings(certfile="server.pem", keyfile="server.key"), tmp_path), ca, None) == {"a.test"}


@pytest.mark.parametrize(
    ("offered", "http2", "agreed"),
    [
        (["h2", "http/1.1"], True, "h2"),
        (["http/1.1", "h2"], True, "h2"),
        (["http/1.1"], True, "http/1.1"),
        (["h2", "http/1.1"], False, "http/1.1"),
        (["h2"], False, None),
    ],
)
def test_alpn(tmp_path: Path, ca: trustme.CA, offered: list[str], http2: bool, agreed: str | None) -> None:
    client_context = trusting(ca)
    client_context.set_alpn_protocols(offered)
    certificates = Certificates(settings(http2=http2, **write(tmp_path, ca.issue_cert("a.test"))))
    client, _ = shake_hands(certificates.context, client_context, "a.test")
    assert client.selected_alpn_protocol() == agreed


@pytest.mark.parametrize(
    ("decoded", "names"),
    [
        ({"subjectAltName": (("DNS", "A.test"), ("IP Address", "::1"), ("DNS", "*.b"))}, ["a.test", "*.b"]),
        ({"subjectAltName": (("IP Address", "::1"),), "subject": ((("commonName", "x"),),)}, []),
        ({"subject": ((("organizationName", "o"),), (("commonName", "X.test"),))}, ["x.test"]),
        ({"subject": ((("commonName", "127.0.0.1"),),)}, []),
    ],
)
def test_names(decoded: dict[str, Any], names: list[str]) -> None:
    assert list(tls.sni_names(decoded)) == names


def test_nobody_may_negotiate_again(tmp_path: Path, ca: trustme.CA) -> None:
    """OpenSSL 3 refuses it by itself; with 1.1 a client could keep the server computing."""
    pairs = [write(tmp_path, ca.issue_cert(f"{name}.test"), name) for name in ("a", "b")]
    certificates = Certificates(settings(**{key: pairs[0][key] + pairs[1][key] for key in pairs[0]}))
    handshake = Mock(context=None)
    choose: Any = certificates.context.sni_callback
    choose(handshake, "b.test", certificates.context)
    for context in (certificates.context, handshake.context):
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


# ── refusing ─────────────────────────────────────────────────────────────────────────────────


def test_authorities_that_hold_no_certificate_are_refused(tmp_path: Path, ca: trustme.CA) -> None:
    pair = write(tmp_path, ca.issue_cert("a.test"))
    (tmp_path / "ca").write_text("hello")
    with pytest.raises(ConfigError, match=r"ca_certs .*/ca holds no PEM certificate"):
        Certificates(settings(**pair, ca_certs=str(tmp_path / "ca"), cert_reqs="required"))
    with pytest.raises(ConfigError, match=r"ca_certs .*/none cannot be read by uid \d+: No such file"):
        Certificates(settings(**pair, ca_certs=str(tmp_path / "none"), cert_reqs="required"))
    (tmp_path / "ca").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(ConfigError, match=r"ca_certs .*/ca cannot be used: "):
        Certificates(settings(**pair, ca_certs=str(tmp_path / "ca"), cert_reqs="required"))


def test_a_damaged_certificate_and_unknown_ciphers_are_refused(tmp_path: Path, ca: trustme.CA) -> None:
    pair = write(tmp_path, ca.issue_cert("a.test"))
    with pytest.raises(ConfigError, match="ciphers = 'nonsense': OpenSSL knows no cipher of that name"):
        Certificates(settings(**pair, ciphers="nonsense"))
    Path(pair["certfile"][0]).write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(ConfigError, match=r"certfile .*server.pem with keyfile .*server.key cannot be used: "):
        Certificates(settings(**pair))


def test_a_key_of_another_kind_is_refused(tmp_path: Path, ca: trustme.CA) -> None:
    pair = write(tmp_path, ca.issue_cert("a.test", key_type=trustme.KeyType.RSA))
    other = write(tmp_path, ca.issue_cert("a.test", key_type=trustme.KeyType.ECDSA), "other")
    with pytest.raises(ConfigError, match=r"other.key is not the key of the certificate in .*server.pem"):
        Certificates(settings(certfile=pair["certfile"], keyfile=other["keyfile"]))


def test_a_certificate_that_is_not_for_servers_is_refused_before_a_client_finds_out(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a.test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = serialization.Encoding.PEM
    (tmp_path / "cert").write_bytes(certificate.public_bytes(form))
    encryption = serialization.NoEncryption()
    (tmp_path / "key").write_bytes(key.private_bytes(form, serialization.PrivateFormat.PKCS8, encryption))
    with pytest.raises(ConfigError, match=r"certfile .*/cert would be refused by every client: .*purpose"):
        Certificates(settings(certfile=str(tmp_path / "cert"), keyfile=str(tmp_path / "key")))


def test_ciphers_that_the_key_cannot_use_are_refused_before_a_client_finds_out(tmp_path: Path, ca: trustme.CA) -> None:
    """Only TLS 1.2 has ciphers bound to a kind of key, and it may be all that a client of 2015 speaks."""
    pair = write(tmp_path, ca.issue_cert("a.test", key_type=trustme.KeyType.ECDSA))
    with pytest.raises(ConfigError, match=r"certfile .*server.pem: with ciphers .* TLS 1.2 \(no shared cipher\)"):
        Certificates(settings(**pair, ciphers="ECDHE-RSA-AES128-GCM-SHA256"))
    Certificates(settings(**pair, ciphers="ECDHE-RSA-AES128-GCM-SHA256", tls_min_version="1.3"))


@pytest.mark.parametrize(
    ("dates", "says"),
    [
        (
            {"not_after": datetime(2020, 1, 1, tzinfo=UTC)},
            "expired on Jan  1 00:00:00 2020 GMT: clients",
        ),
        ({"not_before": datetime(2900, 1, 1, tzinfo=UTC)}, "is not valid before Jan  1 00:00:00 2900 GMT: clients"),
    ],
)
def test_an_expired_certificate_serves_and_is_complained_about(
    tmp_path: Path, ca: trustme.CA, errors: pytest.LogCaptureFixture, dates: dict[str, datetime], says: str
) -> None:
    Certificates(settings(**write(tmp_path, ca.issue_cert("a.test", **dates))))  # type: ignore[arg-type]
    (record,) = errors.records
    assert record.levelno == logging.ERROR
    assert says in record.getMessage()


# ── renewing ─────────────────────────────────────────────────────────────────────────────────


def test_a_change_is_taken_up_when_it_has_stood_still(
    tmp_path: Path, ca: trustme.CA, errors: pytest.LogCaptureFixture
) -> None:
    certificates = Certificates(settings(**write(tmp_path, ca.issue_cert("a.test"))))
    context = certificates.context
    certificates.look()
    renewed = ca.issue_cert("b.test")
    (tmp_path / "server.pem").write_bytes(renewed.cert_chain_pems[0].bytes())
    certificates.look()  # between the two files of a renewal
    renewed.private_key_pem.write_to_path(tmp_path / "server.key")
    certificates.look()
    assert shown(certificates, ca, "b.test") == {"a.test"}
    assert errors.messages == []
    certificates.look()
    assert shown(certificates, ca, "b.test") == {"b.test"}
    assert errors.messages == [f"{tmp_path}/server.pem has changed and is used for new handshakes"]
    assert certificates.context is context  # with its ticket keys


def test_a_renewed_certificate_is_found_by_its_new_names(tmp_path: Path, ca: trustme.CA) -> None:
    first, second = write(tmp_path, ca.issue_cert("a.test"), "a"), write(tmp_path, ca.issue_cert("b.test"), "b")
    certificates = Certificates(settings(**{key: first[key] + second[key] for key in first}))
    write(tmp_path, ca.issue_cert("c.test"), "b")
    certificates.look(patient=False)
    assert [shown(certificates, ca, name) for name in ("b.test", "c.test")] == [{"a.test"}, {"c.test"}]


def test_what_is_wrong_with_a_change_is_said_once_and_files_may_be_away(
    tmp_path: Path, ca: trustme.CA, errors: pytest.LogCaptureFixture
) -> None:
    certificates = Certificates(settings(**write(tmp_path, ca.issue_cert("a.test"))))
    (tmp_path / "server.key").write_text("nothing")
    for _ in range(4):
        certificates.look()
    (message,) = errors.messages
    assert message.startswith(f"changed certificate not taken up: keyfile {tmp_path}/server.key holds no PEM private")
    (tmp_path / "server.key").unlink()
    for _ in range(4):
        certificates.look()
    assert shown(certificates, ca, "a.test") == {"a.test"}
    write(tmp_path, ca.issue_cert("b.test"))
    certificates.look(patient=False)
    assert shown(certificates, ca, "a.test") == {"b.test"}
    assert len(errors.messages) == 2


def test_trust_is_that_of_the_start_whatever_the_file_says_later(tmp_path: Path, ca: trustme.CA) -> None:
    """A renewal must not bring new authorities: sessions that the old ones allowed would still resume."""
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    pair = write(tmp_path, ca.issue_cert("a.test"))
    certificates = Certificates(settings(**pair, ca_certs=str(tmp_path / "ca.pem"), cert_reqs="required"))
    (tmp_path / "ca.pem").unlink()
    write(tmp_path, ca.issue_cert("b.test"))
    certificates.look(patient=False)
    client = trusting(ca)
    ca.issue_cert(common_name="Alice").configure_cert(client)
    client.maximum_version = ssl.TLSVersion.TLSv1_2  # its handshake ends after the server has judged
    assert shake_hands(certificates.context, client, "b.test")[0].version() == "TLSv1.2"


def test_unreadable_files_are_named_after_privileges_are_dropped(
    tmp_path: Path, ca: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = Certificates(settings(**write(tmp_path, ca.issue_cert("a.test"))))
    assert certificates.unseen() is None
    monkeypatch.setattr(os, "access", lambda path, mode: path.suffix != ".key")
    assert certificates.unseen() == (
        f"uid {os.geteuid()} cannot read {tmp_path}/server.key: when it changes, a reload (SIGHUP) takes it up"
    )


# ── telling the application ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ((), ""),
        ((("countryName", "DE"),), "C=DE"),
        ((("commonName", "a,b+c\"d\\e<f>g;h"),), r"CN=a\,b\+c\"d\\e\<f\>g\;h"),
        ((("commonName", " a "),), r"CN=\ a\ "),
        ((("commonName", "#a"),), r"CN=\#a"),
        ((("commonName", " "),), "CN=\\ "),
        ((("commonName", "a\0b"),), r"CN=a\00b"),
        ((("commonName", "Zoë"),), "CN=Zoë"),
    ],
)  # fmt: skip
def test_distinguished_names(subject: tuple[tuple[str, str], ...], name: str) -> None:
    assert tls.distinguished_name({"subject": (subject,) if subject else ()}) == name


def test_a_distinguished_name_begins_with_its_last_part_and_joins_the_values_of_one() -> None:
    """RFC 4514 section 4: `OU=Sales+CN=J.  Smith,DC=example,DC=net`."""
    parts = (
        (("domainComponent", "net"),),
        (("domainComponent", "example"),),
        (("organizationalUnitName", "Sales"), ("commonName", "J.  Smith")),
    )
    assert tls.distinguished_name({"subject": parts}) == "OU=Sales+CN=J.  Smith,DC=example,DC=net"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("showing", [True, False])
def test_the_extension(tmp_path: Path, ca: trustme.CA, version: ssl.TLSVersion, showing: bool) -> None:
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    server_cert = ca.issue_cert("a.test")
    config = settings(
        **write(tmp_path, server_cert),
        ca_certs=str(tmp_path / "ca.pem"),
        cert_reqs="optional",
        ciphers="ECDHE-ECDSA-AES256-GCM-SHA384",
    )
    context, mine = trusting(ca), ca.issue_cert(common_name="Alice", organization_name="Org")
    context.maximum_version = version
    if showing:
        mine.configure_cert(context)
    _, server = shake_hands(Certificates(config).context, context, "a.test")
    told = tls.extension(server)
    unit = dict.fromkeys(("tls_version", "cipher_suite"))
    unit["tls_version"] = {"TLSv1_2": 0x0303, "TLSv1_3": 0x0304}[version.name]
    unit["cipher_suite"] = {"TLSv1_2": 0xC02C, "TLSv1_3": 0x1302}[version.name]  # RFC 5289; RFC 8446 appendix B.4
    assert {key: told[key] for key in unit} == unit
    assert told["server_cert"] == server_cert.cert_chain_pems[0].bytes().decode()
    assert told["client_cert_error"] is None
    if showing:
        chain: Any = told["client_cert_chain"]
        assert chain[0] == mine.cert_chain_pems[0].bytes().decode()
        assert str(told["client_cert_name"]).startswith("CN=Alice,")
    else:
        assert (told["client_cert_chain"], told["client_cert_name"]) == ([], None)


# ── in the caller's loop ─────────────────────────────────────────────────────────────────────


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    body = scope["scheme"].encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def _get(port: int, context: ssl.SSLContext | None) -> bytes:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost" if context else None
    )
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer.rpartition(b"\r\n\r\n")[2]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner.run


def test_an_embedded_server_speaks_tls_and_plain(tmp_path: Path, ca: trustme.CA, run: Callable[..., Any]) -> None:
    pair = write(tmp_path, ca.issue_cert("localhost"))

    async def main() -> None:
        async with anyio.create_task_group() as group:
            bind = ["127.0.0.1:0", "http://127.0.0.1:0"]
            secure, plain = await group.start(functools.partial(serve, _app, bind=bind, **pair))
            with anyio.fail_after(10):
                assert await _get(secure[1], trusting(ca)) == b"https"
                assert await _get(plain[1], None) == b"http"
            group.cancel_scope.cancel()

    run(main())


def test_an_embedded_server_refuses_a_bad_pair(tmp_path: Path, ca: trustme.CA, run: Callable[..., Any]) -> None:
    pair = write(tmp_path, ca.issue_cert("localhost"))
    Path(pair["keyfile"][0]).unlink()

    async def main() -> None:
        with pytest.raises(ConfigError, match="cannot be read"):
            await serve(_app, bind="127.0.0.1:0", **pair)

    run(main())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_resumed_session_still_tells_who_the_client_is(
    tmp_path: Path, ca: trustme.CA, version: ssl.TLSVersion
) -> None:
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    pair = write(tmp_path, ca.issue_cert("a.test"))
    certificates = Certificates(settings(**pair, ca_certs=str(tmp_path / "ca.pem"), cert_reqs="required"))
    client, mine = trusting(ca), ca.issue_cert(common_name="Alice")
    client.maximum_version = version
    mine.configure_cert(client)
    first, server = shake_hands(certificates.context, client, "a.test")
    told, again = tls.extension(server), _resumed(certificates, client, first, server)
    chain: Any = told["client_cert_chain"]
    assert told | {"client_cert_chain": chain[:1]} == again  # what the client sent above its own is not remembered


def _resumed(
    certificates: Certificates, client: ssl.SSLContext, first: ssl.SSLObject, server: ssl.SSLObject
) -> dict[str, object]:
    """What a connection that resumes the session of `first` is told."""
    server.write(b"x")  # TLS 1.3 sends its tickets with or before the first data
    assert first.read(1) == b"x"
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    again = client.wrap_bio(down, up, server_hostname="a.test", session=first.session)
    other = certificates.context.wrap_bio(up, down, server_side=True)
    for _ in range(10):
        for side in (again, other):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    assert other.session_reused
    return tls.extension(other)


def test_when_a_certificate_ends(tmp_path: Path) -> None:
    """For aserver status. Fails if the ssl module has no such decoder any more: all would be unreadable."""
    ends = datetime(2040, 1, 2, 3, 4, 5, tzinfo=UTC)
    first = write(tmp_path, trustme.CA().issue_cert("a.test", not_after=ends))
    assert tls.expiry(Path(first["certfile"][0])) == ends.timestamp()
    (tmp_path / "none.pem").write_text("no certificate")
    assert tls.expiry(tmp_path / "none.pem") is None
    assert tls.expiry(tmp_path / "missing.pem") is None

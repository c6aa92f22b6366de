"""TLS: certificates become SSL contexts, each client gets the certificate that it names, the application is told.

Certificates are loaded in the zygote, before privileges are dropped, so that all workers share the keys of session
tickets. The worker chooses one for each handshake and takes up changed files. An embedding program does both. It fails
closed: an unusable certificate raises ConfigError, and no listener ever falls back to plain HTTP.
"""

import ipaddress
import logging
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aserver.config import Config
from aserver.errors import ConfigError

log = logging.getLogger("aserver.error")

#: The protocols that are served over TLS, as ALPN names (RFC 7301). A client that offers no such name is served too.
#: Where HTTP/2 is on, it comes first.
ALPN = ("http/1.1",)
HTTP2 = "h2"
#: X509_V_FLAG_NO_CHECK_TIME (openssl/x509_vfy.h), which the ssl module does not name. An expired certificate is an
#: error in the log and no more: a server that served with it must start again when it is restarted at night.
_NO_CHECK_TIME = ssl.VerifyFlags(0x200000)
#: Flights of the longest handshake, times two.
_MOST_FLIGHTS = 10
#: The numbers for the ASGI TLS extension, from RFC 8446 appendix B.1 and RFC 5246 appendix A.1.
_VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_PRIVATE_KEY = re.compile(r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----")
_MISMATCH = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})
_REQUIREMENTS = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
#: The short names that every reader of a distinguished name must know (RFC 4514 section 3).
_SHORT_NAMES = {
    "commonName": "CN", "localityName": "L", "stateOrProvinceName": "ST", "organizationName": "O",
    "organizationalUnitName": "OU", "countryName": "C", "streetAddress": "STREET", "domainComponent": "DC",
    "userId": "UID",
}  # fmt: skip

#: Times, sizes and inodes of a pair's two files, which change when they are renewed. None while one cannot be seen.
Fingerprint = tuple[tuple[int, int, int], ...] | None


class CertificateContext(ssl.SSLContext):
    """An SSL context with the certificate that it shows; `names` are its names for SNI, in lower case."""

    certificate: str
    decoded: dict[str, Any]
    names: tuple[str, ...]
    suites: Mapping[str, int]


@dataclass(slots=True)
class _Pair:
    """The files of a certificate and its key, and a context made of their last good contents."""

    certfile: Path
    keyfile: Path
    context: CertificateContext
    tried: Fingerprint
    seen: Fingerprint


class Certificates:
    """The TLS side of a server's listeners. Call `look` about once a second.

    `context` is for every handshake. It stays the same for life, because it holds the keys of the session tickets. Its
    SNI callback chooses the certificate.
    """

    def __init__(self, config: Config, directory: Path | None = None) -> None:
        """Read and try every pair. Relative names are resolved against `directory`. Raises ConfigError."""
        root = Path.cwd() if directory is None else directory
        self._config = config
        # Read once for a generation's life. A client that resumes a session is not asked for its certificate again, so
        # withdrawn trust takes new ticket keys, and a reload makes those.
        self._authorities = _read_authorities(root / config.ca_certs) if config.ca_certs is not None else None
        self._pairs = [
            self._first_load(root / certfile, root / keyfile)
            for certfile, keyfile in zip(config.certfile, config.keyfile, strict=True)
        ]
        self.context = self._pairs[0].context
        self.context.sni_callback = self._choose
        self._by_name = self._index()
        for pair, covered in ((p, any(self._by_name[n] is p for n in p.context.names)) for p in self._pairs[1:]):
            if not covered:
                log.warning("%s is never shown: a certificate before it has all of its names", pair.certfile)

    def _first_load(self, certfile: Path, keyfile: Path) -> _Pair:
        before = _fingerprint(certfile, keyfile)
        context = self._make(certfile, keyfile)
        _check_dates(certfile, context.decoded)
        return _Pair(certfile, keyfile, context, before, before)

    def _make(self, certfile: Path, keyfile: Path) -> CertificateContext:
        context = _load_pair(certfile, keyfile, self._config)
        context.verify_mode = _REQUIREMENTS[self._config.cert_reqs]
        if self._authorities is not None:
            context.load_verify_locations(cadata=self._authorities)
        return context

    # ── choosing ─────────────────────────────────────────────────────────────────────────────

    def _index(self) -> dict[str, _Pair]:
        found: dict[str, _Pair] = {}
        for pair in self._pairs:
            for name in pair.context.names:
                found.setdefault(name, pair)
        return found

    def _choose(self, handshake: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        """Show the certificate of that name; the first one if the client gives no name, or an unknown one."""
        pair = self._by_name.get(name.lower()) if name else None
        if pair is None and name:
            # RFC 6125 section 6.4.3: the asterisk is the whole leftmost label, and no more than that.
            pair = self._by_name.get("*." + name.lower().partition(".")[2])
        chosen = (pair or self._pairs[0]).context
        if chosen is not self.context:
            handshake.context = chosen

    # ── changed files ────────────────────────────────────────────────────────────────────────

    def look(self, *, patient: bool = True) -> None:
        """Take up changed files for new handshakes. An unusable pair is logged, and the old one goes on.

        Call it about once a second. A change is taken up when the files are the same at two looks, because a
        certificate and its key are seldom replaced at one instant. Not `patient`: it is taken up at the first look.
        """
        for pair in self._pairs:
            now = _fingerprint(pair.certfile, pair.keyfile)
            quiet = now == pair.seen or not patient
            pair.seen = now
            if now is not None and now != pair.tried and quiet:
                pair.tried = now
                self._take_up(pair)

    def _take_up(self, pair: _Pair) -> None:
        try:
            pair.context = self._make(pair.certfile, pair.keyfile)
        except ConfigError as error:
            log.error(  # noqa: TRY400
                "changed certificate not taken up: %s; new handshakes go on with the one from before; mend it, or "
                "reload (SIGHUP) if only the user that started the server may read it",
                error,
            )
        else:
            _check_dates(pair.certfile, pair.context.decoded)
            self._by_name = self._index()
            log.info("%s has changed and is used for new handshakes", pair.certfile)

    def unseen(self) -> str | None:
        """A sentence if this process may not read the files again, else None; after privileges were dropped."""
        files = [file for pair in self._pairs for file in (pair.certfile, pair.keyfile)]
        hidden = [str(file) for file in files if not os.access(file, os.R_OK)]  # real and effective are the same now
        if not hidden:
            return None
        return f"uid {os.geteuid()} cannot read {', '.join(hidden)}: when it changes, a reload (SIGHUP) takes it up"


def _fingerprint(*files: Path) -> Fingerprint:
    try:
        stats = [file.stat() for file in files]
    except OSError:
        return None
    return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats)


# ── loading ──────────────────────────────────────────────────────────────────────────────────


def _read(setting: str, file: Path) -> str:
    try:
        return file.read_bytes().decode("ascii", "replace")
    except OSError as error:
        raise ConfigError(f"{setting} {file} cannot be read by uid {os.geteuid()}: {error.strerror}") from None


def _read_authorities(file: Path) -> str:
    found = _CERTIFICATE.findall(_read("ca_certs", file))
    if not found:
        raise ConfigError(f"ca_certs {file} holds no PEM certificate; no client's certificate could be checked")
    authorities = "\n".join(found)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=authorities)
    except ssl.SSLError as error:
        raise ConfigError(f"ca_certs {file} cannot be used: {_reason(error)}") from None
    return authorities


def _load_pair(certfile: Path, keyfile: Path, config: Config) -> CertificateContext:
    """Make a context, and complete a handshake with it. Raises ConfigError."""
    context = CertificateContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if config.tls_min_version == "1.3" else ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # with OpenSSL 1.1, clients could make the server work for nothing
    context.set_alpn_protocols([HTTP2, *ALPN] if config.http2 else list(ALPN))
    if config.ciphers is not None:
        try:
            context.set_ciphers(config.ciphers)
        except ssl.SSLError:
            raise ConfigError(f"ciphers = {config.ciphers!r}: OpenSSL knows no cipher of that name") from None
    chain = _CERTIFICATE.findall(_read("certfile", certfile))
    if not chain:
        raise ConfigError(f"certfile {certfile} holds no PEM certificate")
    if not _PRIVATE_KEY.search(_read("keyfile", keyfile)):
        raise ConfigError(f"keyfile {keyfile} holds no PEM private key")
    _load_chain(context, certfile, keyfile, config.keyfile_password)
    context.certificate = chain[0] + "\n"
    context.suites = {suite["name"]: suite["id"] & 0xFFFF for suite in context.get_ciphers()}
    try:
        decoded = _shake_hands(context)
    except ssl.SSLError as error:
        raise ConfigError(f"certfile {certfile} would be refused by every client: {_reason(error)}") from None
    if config.ciphers is not None and config.tls_min_version == "1.2":  # they are for TLS 1.2, each for a kind of key
        try:
            _shake_hands(context, ssl.TLSVersion.TLSv1_2)
        except ssl.SSLError as error:
            why = f"with ciphers = {config.ciphers!r} no client can connect with TLS 1.2 ({_reason(error)})"
            raise ConfigError(f"certfile {certfile}: {why}") from None
    context.decoded = decoded
    context.names = tuple(sni_names(decoded))
    return context


def _load_chain(context: CertificateContext, certfile: Path, keyfile: Path, password: str | None) -> None:
    asked = False

    def tell() -> str:  # without it OpenSSL would ask the terminal
        nonlocal asked
        asked = True
        if password is None:
            raise ConfigError(f"keyfile {keyfile} is encrypted, and keyfile_password is not set")
        return password

    try:
        context.load_cert_chain(certfile, keyfile, tell)
    except ssl.SSLError as error:
        if error.reason in _MISMATCH:
            raise ConfigError(f"keyfile {keyfile} is not the key of the certificate in {certfile}") from None
        if asked:
            raise ConfigError(f"keyfile {keyfile} cannot be decrypted with this keyfile_password") from None
        raise ConfigError(f"certfile {certfile} with keyfile {keyfile} cannot be used: {_reason(error)}") from None
    except OSError as error:  # changed since it was read a moment ago
        raise ConfigError(f"certfile {certfile}, keyfile {keyfile}: {error.strerror}") from None


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (error.reason or str(error)).replace("_", " ").lower()


def _shake_hands(
    context: CertificateContext, newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED
) -> dict[str, Any]:
    """Complete a handshake in memory and return the certificate as the client decoded it. Raises ssl.SSLError.

    It shows that certificate, key, ciphers and versions go together before the first client comes. And a verified
    handshake is the only public way to have the ssl module decode a certificate. The client trusts only this one.
    """
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.maximum_version = newest
    trusting.set_ciphers("ALL:@SECLEVEL=0")
    trusting.load_verify_locations(cadata=context.certificate)
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(down, up)
    server = context.wrap_bio(up, down, server_side=True)
    for _ in range(_MOST_FLIGHTS):
        waiting = 0
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                waiting += 1
        if not waiting:
            break
    return client.getpeercert() or {}


def sni_names(decoded: Mapping[str, Any]) -> Iterator[str]:
    """The names for SNI. A common name counts only if there is no other name (RFC 6125 section 6.4.4)."""
    alternatives = decoded.get("subjectAltName", ())
    for kind, name in alternatives:
        if kind == "DNS":
            yield name.lower()
    if not alternatives:
        for parts in decoded.get("subject", ()):
            for key, value in parts:
                if key == "commonName" and not _is_address(value):
                    yield value.lower()


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def expiry(certfile: Path) -> float | None:
    """When a certificate ends, in seconds since 1970; None if it cannot be read."""
    try:
        # The ssl module decodes a certificate that no handshake has shown by this function alone.
        decoded = ssl._ssl._test_decode_cert(str(certfile))  # type: ignore[attr-defined]
        return float(ssl.cert_time_to_seconds(decoded["notAfter"]))
    except (OSError, ValueError, KeyError, AttributeError):
        return None


def _check_dates(certfile: Path, decoded: Mapping[str, Any]) -> None:
    now = datetime.now(UTC).timestamp()
    if ssl.cert_time_to_seconds(decoded["notAfter"]) < now:
        log.error("%s expired on %s: clients will refuse it", certfile, decoded["notAfter"])
    elif ssl.cert_time_to_seconds(decoded["notBefore"]) > now:
        log.error("%s is not valid before %s: clients will refuse it", certfile, decoded["notBefore"])


# ── for the application ──────────────────────────────────────────────────────────────────────


def extension(connection: ssl.SSLObject) -> dict[str, object]:
    """`scope["extensions"]["tls"]` of a connection whose handshake is complete (ASGI TLS extension 0.2).

    The client's chain has more than its own certificate only since Python 3.13, and not in resumed sessions.
    """
    context = connection.context if isinstance(connection.context, CertificateContext) else None
    cipher = connection.cipher()
    leaf = connection.getpeercert(binary_form=True)
    chain: list[bytes] = []
    if leaf is not None:
        get_chain = getattr(connection, "get_unverified_chain", None)
        chain = (get_chain() if get_chain is not None else None) or [leaf]
    return {
        "server_cert": context.certificate if context is not None else None,
        "client_cert_chain": [ssl.DER_cert_to_PEM_cert(der) for der in chain],
        "client_cert_name": distinguished_name(connection.getpeercert() or {}) if leaf is not None else None,
        "client_cert_error": None,
        "tls_version": _VERSIONS.get(connection.version() or ""),
        "cipher_suite": context.suites.get(cipher[0]) if context is not None and cipher else None,
    }


def distinguished_name(decoded: Mapping[str, Any]) -> str:
    """The subject in the form of RFC 4514: last part first, `+` within a part, special characters escaped.

    Attributes beyond those of section 3 have OpenSSL's long names, which for the usual ones are the registered names.
    """
    parts = decoded.get("subject", ())
    return ",".join(
        "+".join(f"{_SHORT_NAMES.get(key, key)}={_escape(value)}" for key, value in part) for part in reversed(parts)
    )


def _escape(value: str) -> str:
    text = re.sub(r'([\\"+,;<>])', r"\\\1", value).replace("\0", r"\00")
    if text.startswith((" ", "#")):
        text = "\\" + text
    if text.endswith(" ") and len(value) > 1:
        text = text[:-1] + "\\ "
    return text

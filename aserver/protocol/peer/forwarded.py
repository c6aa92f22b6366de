"""The client's address and its original request, as trusted proxies report them: X-Forwarded-*, RFC 7239 `Forwarded`.

Pure. Each proxy adds an entry at the right end of a list, so the lists are read from the right, entry by entry. The
first address that is not a trusted proxy's is the client's. Nothing to the left of it is parsed: a stranger may have
written it, and an open quotation mark there could swallow a proxy's entry. Reading takes time in proportion to the
length. It must never be asked about a request whose peer is not trusted, and must never return text that has not the
shape of an address, a scheme, a host or a path.
"""

import ipaddress
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import NamedTuple

from aserver.errors import ClientError
from aserver.protocol.semantics import target
from aserver.protocol.semantics.fields import TCHAR

Address = tuple[str, int]

#: The most peers that are remembered; likewise entries of lists, and groups of fields. To parse two fields takes 5 us,
#: to find them again 0.3. When a table is full, all in it are forgotten.
REMEMBERED = 1024
#: Fields of more bytes together are not remembered, so that no client can fill the memory.
REMEMBERED_SIZE = 256

#: The most entries of a list that are read, from the right. No chain of proxies is that long, but a client may send
#: thousands of entries that look like trusted proxies, and each costs 4 us.
MOST_HOPS = 64

#: The longest address with its port is `[v6]:65535` with an IPv4 address at the end: 53 characters.
_LONGEST_NODE = 64

_SCHEMES = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}
_DEFAULT_PORTS = {"http": 80, "https": 443}
_NODE = re.compile(rb"\[([0-9A-Fa-f:.]+)\](?::([0-9]{1,5}))?|([0-9.]+)(?::([0-9]{1,5}))?|([0-9A-Fa-f:.]+)")
#: A pair `name=value` of `Forwarded` (RFC 7239 section 4) with the separator before it, in reversed bytes. Inside a
#: quoted string each quotation mark has a backslash before it, so the next mark without a backslash opens the string.
_PAIR_REVERSED = re.compile(
    rb"[ \t]*(?:\"([^\"]*(?:\"(?=\\)[^\"]*)*)\"|([!#$%&'*+\-.^_`|~0-9A-Za-z:\[\]]*))=("
    + TCHAR
    + rb"+)[ \t]*(?:([;,])|\Z)"
)
#: Empty elements of a list, which are skipped (RFC 9110 section 5.6.1.2).
_EMPTY = re.compile(rb"[ \t,]*")
_QUOTED = re.compile(rb"[^\"\\]*(?:\\.[^\"\\]*)*", re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
#: A path without empty segments: a path that begins with `//` would name another site's host in a relative URL.
_PREFIX = re.compile(rb"(?:/[A-Za-z0-9\-._~!$&'()*+,;=:@%]+)+/?")


class Origin(NamedTuple):
    """The original request, as far as it is known. None where the proxies have given no value of the right shape."""

    client: Address | None = None
    scheme: str | None = None
    host: bytes | None = None
    port: int | None = None
    prefix: str | None = None


class Forwarding:
    """Reads forwarding fields. `peers` are the trusted peers (`trust.Peers`): tuples, or a str for a unix socket."""

    def __init__(self, peers: Container[object]) -> None:
        self._peers = peers
        self._origins: dict[object, Origin] = {}
        self._known: dict[bytes, tuple[Address, bool]] = {}
        self._trusted: dict[str, bool] = {}

    @property
    def remembered(self) -> tuple[int, int, int]:
        """The numbers of peers, entries and groups of fields that are remembered."""
        return len(self._trusted), len(self._known), len(self._origins)

    def trusts(self, client: Address | None) -> bool:
        """Tell whether a peer is trusted; None is the peer on a unix socket."""
        if client is None:
            return "" in self._peers
        trusted = self._trusted.get(client[0])
        if trusted is None:
            if len(self._trusted) >= REMEMBERED:
                self._trusted.clear()
            trusted = self._trusted[client[0]] = client in self._peers
        return trusted

    def read(self, told: Mapping[bytes, bytes]) -> Origin:
        """Return the original request that a trusted peer describes.

        `told` has the fields of `fields.FORWARDING_NAMES`, each with its lines joined by commas. X-Forwarded-For wins
        over Forwarded: a proxy writes either, and the other may come from a stranger.
        """
        if sum(map(len, told.values())) > REMEMBERED_SIZE:
            return self._read(told)
        key = (*told, *told.values())
        origin = self._origins.get(key)
        if origin is None:
            origin = self._read(told)
            if len(self._origins) >= REMEMBERED:
                self._origins.clear()
            self._origins[key] = origin
        return origin

    def _read(self, told: Mapping[bytes, bytes]) -> Origin:
        forwarded = told.get(b"forwarded")
        if forwarded is not None and b"x-forwarded-for" not in told:
            read: list[dict[bytes, bytes]] = []
            client, hops = self._walk(_addresses(forwarded, read))
            element = read[hops]
            return Origin(
                client, _SCHEMES.get(element.get(b"proto", b"").lower()), _parse_host(element.get(b"host", b""))
            )
        # Cut off by [-MOST_HOPS:]: the first part, which has all entries that are not read.
        nodes = told.get(b"x-forwarded-for", b"").rsplit(b",", MOST_HOPS)[-MOST_HOPS:]
        client, hops = self._walk(node.strip() for node in reversed(nodes))

        def said(name: bytes) -> bytes:
            values = told.get(name, b"").rsplit(b",", hops + 1)
            return values[max(0, len(values) - 1 - hops)].strip()

        port = said(b"x-forwarded-port")
        prefix = said(b"x-forwarded-prefix")
        return Origin(
            client,
            _SCHEMES.get(said(b"x-forwarded-proto").lower()),
            _parse_host(said(b"x-forwarded-host")),
            int(port) if port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536 else None,
            prefix.rstrip(b"/").decode("ascii") if _PREFIX.fullmatch(prefix) else None,
        )

    def _walk(self, nodes: Iterable[bytes]) -> tuple[Address | None, int]:
        """Return the client among `nodes`, the rightmost first, and the number of trusted proxies that precede it."""
        client = None
        hops = -1
        for node in nodes:
            hops += 1
            known = self._look_up(node)
            if known is None:  # `unknown`, or a made-up name (RFC 7239 section 6): the entry before is the client
                return client, max(0, hops - 1)
            client, ours = known
            if not ours:
                return client, hops
        return client, hops

    def _look_up(self, node: bytes) -> tuple[Address, bool] | None:
        try:
            return self._known[node]
        except KeyError:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            address = parse_node(node)
            if address is None:  # not remembered, because it can have any length
                return None
            known = self._known[node] = (address, address in self._peers)
            return known


def parse_node(node: bytes) -> Address | None:
    """Return address and port (0: none given) of an entry (RFC 7239 section 6), or None if it is no address."""
    match = _NODE.fullmatch(node) if len(node) <= _LONGEST_NODE else None
    if match is None:
        return None
    v6, v6_port, v4, v4_port, bare = match.groups()
    try:
        host = str(ipaddress.ip_address((v6 or v4 or bare).decode("ascii")))
    except ValueError:
        return None
    port = int(v6_port or v4_port or 0)
    return (host, port) if port < 65536 else None


def with_port(host: bytes, port: int | None, scheme: str) -> bytes:
    """Return a Host value with `port`, unless it has a port already or the port is the scheme's default."""
    if port is None or port == _DEFAULT_PORTS.get(scheme) or host.rstrip(b"0123456789").endswith(b":"):
        return host
    return b"%b:%d" % (host, port)


def _addresses(forwarded: bytes, read: list[dict[bytes, bytes]]) -> Iterator[bytes]:
    """Go through the elements of `Forwarded` from the right: append each to `read`, then yield its `for`."""
    backwards = forwarded[::-1]
    position = 0
    while len(read) < MOST_HOPS:
        begin = _EMPTY.match(backwards, position)
        assert begin is not None
        if begin.end() == len(backwards) and read:
            return
        element, position = _parse_element(backwards, begin.end())
        read.append(element)
        yield element.get(b"for", b"")


def _parse_element(backwards: bytes, position: int) -> tuple[dict[bytes, bytes], int]:
    """Return the pairs of the element that begins at `position`, none if it is malformed, and the position of its end.

    The end of a malformed element is not known, so the caller must read nothing after it.
    """
    pairs: dict[bytes, bytes] = {}
    separator = b";"
    while separator == b";":
        match = _PAIR_REVERSED.match(backwards, position)
        if match is None:
            return {}, position
        quoted, bare, name, separator = match.groups()
        value = bare[::-1] if quoted is None else quoted[::-1]
        key = name[::-1].lower()
        if key in pairs or (quoted is not None and _QUOTED.fullmatch(value) is None):
            return {}, position
        pairs[key] = value if quoted is None else _ESCAPED.sub(rb"\1", value)
        position = match.end()
    return pairs, position


def _parse_host(host: bytes) -> bytes | None:
    try:
        target.check_host(host)
    except ClientError:
        return None
    return host

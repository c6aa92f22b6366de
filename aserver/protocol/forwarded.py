"""Who and where the client is, by what trusted proxies say: X-Forwarded-* and RFC 7239 `Forwarded`.

Pure. A proxy adds to the right of a list, so it is read from the right: the first address that is not one of ours is
the client's, and what stands left of it was written by somebody we do not trust. It must never be asked about a request
whose peer is not trusted, and must never let through what is not the shape of an address, a scheme, a host or a path.
"""

import ipaddress
import re
from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

from aserver.errors import ClientError
from aserver.protocol import wire

Address = tuple[str, int]

#: What is remembered of fields, of entries and of peers, each: the same proxies and often the same clients come again.
#: A look at two fields takes 5 us, to find it again 0.3. When full, all is forgotten.
REMEMBERED = 1024
#: Bytes of fields above which nothing is remembered, so that nobody can fill memory.
REMEMBERED_SIZE = 256

_SCHEMES = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}
_DEFAULT_PORTS = {"http": 80, "https": 443}
_NODE = re.compile(rb"\[([0-9A-Fa-f:.]+)\](?::([0-9]{1,5}))?|([0-9.]+)(?::([0-9]{1,5}))?|([0-9A-Fa-f:.]+)")
_PAIR = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+)=(?:\"((?:[^\"\\]|\\.)*)\"|([!#$%&'*+\-.^_`|~0-9A-Za-z:\[\]]*))")
#: A path of segments that are not empty: with `//` in front it would be somebody else's host in a relative URL.
_PREFIX = re.compile(rb"(?:/[A-Za-z0-9\-._~!$&'()*+,;=:@%]+)+/?")


class Origin(NamedTuple):
    """What is known of the original request; None where nobody said, or said nothing of sense."""

    client: Address | None = None
    scheme: str | None = None
    host: bytes | None = None
    port: int | None = None
    prefix: str | None = None


class Forwarding:
    """Reads the fields. `peers` holds the trusted ones, as `proxy_protocol.Peers` does: tuples, or a str for unix."""

    def __init__(self, peers: Container[object]) -> None:
        self._peers = peers
        self._origins: dict[object, Origin] = {}
        self._known: dict[bytes, tuple[Address, bool]] = {}
        self._trusted: dict[str, bool] = {}

    def trusts(self, client: Address | None) -> bool:
        """Tell whether what this peer says of others counts; None is the other end of a unix socket."""
        if client is None:
            return "" in self._peers
        trusted = self._trusted.get(client[0])
        if trusted is None:
            if len(self._trusted) >= REMEMBERED:
                self._trusted.clear()
            trusted = self._trusted[client[0]] = client in self._peers
        return trusted

    def read(self, told: Mapping[bytes, bytes]) -> Origin:
        """Put together what a trusted peer tells; `told` has the fields of `wire.FORWARDING_NAMES`, lists joined.

        X-Forwarded-For wins over Forwarded: a proxy writes one of them, and the other is from who knows whom.
        """
        key = (*told, *told.values())
        origin = self._origins.get(key)
        if origin is None:
            origin = self._read(told)
            if sum(map(len, key)) <= REMEMBERED_SIZE:
                if len(self._origins) >= REMEMBERED:
                    self._origins.clear()
                self._origins[key] = origin
        return origin

    def _read(self, told: Mapping[bytes, bytes]) -> Origin:
        forwarded = told.get(b"forwarded")
        if forwarded is not None and b"x-forwarded-for" not in told:
            elements = [_parse_element(element) for element in _split(forwarded)]
            client, hops = self._walk([element.get(b"for", b"") for element in elements])
            element = elements[-1 - hops]
            return Origin(
                client, _SCHEMES.get(element.get(b"proto", b"").lower()), _parse_host(element.get(b"host", b""))
            )
        client, hops = self._walk([part.strip() for part in told.get(b"x-forwarded-for", b"").split(b",")])

        def said(name: bytes) -> bytes:
            values = told.get(name, b"").split(b",")
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

    def _walk(self, nodes: Sequence[bytes]) -> tuple[Address | None, int]:
        """Return the client among `nodes`, and how many of ours stand to the right of it."""
        client = None
        for hops, node in enumerate(reversed(nodes)):
            known = self._look_up(node)
            if known is None:  # `unknown`, or a name of the proxy's own: what it has said before is all there is
                return client, max(0, hops - 1)
            client, ours = known
            if not ours:
                return client, hops
        return client, len(nodes) - 1

    def _look_up(self, node: bytes) -> tuple[Address, bool] | None:
        try:
            return self._known[node]
        except KeyError:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            address = parse_node(node)
            if address is None:  # not remembered: it can have any length
                return None
            known = self._known[node] = (address, address in self._peers)
            return known


def parse_node(node: bytes) -> Address | None:
    """Return address and port (0: not told) of a list's entry (RFC 7239 section 6), or None for another word."""
    match = _NODE.fullmatch(node)
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
    """Return a Host value with `port`, unless it has one already or needs none."""
    if port is None or port == _DEFAULT_PORTS.get(scheme) or re.search(rb":[0-9]*\Z", host) is not None:
        return host
    return b"%b:%d" % (host, port)


def _split(value: bytes) -> list[bytes]:
    """Split a list at the commas that are not in quotes."""
    return [part.strip() for part in re.findall(rb"(?:[^,\"]|\"(?:[^\"\\]|\\.)*\"|\")+", value)] or [b""]


def _parse_element(element: bytes) -> dict[bytes, bytes]:
    pairs: dict[bytes, bytes] = {}
    for pair in re.findall(rb"(?:[^;\"]|\"(?:[^\"\\]|\\.)*\"|\")+", element):
        match = _PAIR.fullmatch(pair.strip())
        if match is None or match[1].lower() in pairs:
            return {}
        pairs[match[1].lower()] = match[3] if match[2] is None else re.sub(rb"\\(.)", rb"\1", match[2])
    return pairs


def _parse_host(host: bytes) -> bytes | None:
    try:
        wire.check_host(host)
    except ClientError:
        return None
    return host

"""The PROXY protocol, versions 1 and 2: the address of the client behind a load balancer.

Pure. The transport's half, and the check that the peer is trusted, are in `transport/reception`. Bytes that are not a
legal header must never pass as a header. The sections that the comments cite are of HAProxy's doc/proxy-protocol.txt.
"""

import ipaddress
import struct
from typing import Literal, NamedTuple

from aserver.errors import ClientError

Address = tuple[str, int]
Mode = Literal["v1", "v2", "auto"]

#: The first bytes of version 2 (section 2.2). No other protocol begins like this.
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
#: Bytes of the longest line of version 1, and of the shortest, `PROXY UNKNOWN`, each with its CRLF (section 2.1).
LONGEST_LINE, SHORTEST_LINE = 107, 15
_FIXED = 16  # bytes of version 2 before the addresses: signature, version and command, family, length
_LOCAL, _PROXY = 0x20, 0x21
#: The layouts of IPv4's and IPv6's block: both addresses, both ports (section 2.2). The other two families have no
#: addresses that ASGI could name: UNSPEC and unix. For them the addresses of the connection itself are kept.
_LAYOUTS = {0x1: struct.Struct("!4s4sHH"), 0x2: struct.Struct("!16s16sHH")}
_LENGTHS = {0x0: 0, 0x1: 12, 0x2: 36, 0x3: 216}  # bytes of each family's block
_TRANSPORTS = (0x0, 0x1, 0x2)


class Proxied(NamedTuple):
    """The addresses in a header, and the bytes after it. Addresses are None if the connection's own are to be kept."""

    source: Address | None
    destination: Address | None
    rest: bytes


class ProxyHeader:
    """Reads a header that comes in pieces: call `feed` until it returns a `Proxied`, then let go of the reader."""

    def __init__(self, mode: Mode = "auto") -> None:
        self._mode = mode
        self._data = bytearray()  # grows in place: nothing is copied for each byte of a header that comes byte by byte

    @property
    def wanted(self) -> int:
        """The least number of bytes that the header still lacks. To read no more keeps to the header's end."""
        have = len(self._data)
        if self._mode != "v1" and SIGNATURE.startswith(bytes(self._data[:12])) and (have or self._mode == "v2"):
            if have < _FIXED:
                return _FIXED - have
            return _FIXED + int.from_bytes(self._data[14:16], "big") - have
        if have < SHORTEST_LINE:
            return SHORTEST_LINE - have
        return 1 if self._data.endswith(b"\r") else 2

    def feed(self, data: bytes) -> Proxied | None:
        """Return the header once it is complete. Raises ClientError if this is no header that `mode` allows."""
        self._data += data
        head = bytes(self._data[:12])
        if self._mode != "v1" and SIGNATURE.startswith(head):
            return self._read_v2() if head == SIGNATURE else None
        if self._mode != "v2" and b"PROXY ".startswith(head[:6]):
            return self._read_v1()
        raise ClientError(400, f"no PROXY header ({self._mode}) but {bytes(self._data[:24])!r}")

    # ── version 1 ────────────────────────────────────────────────────────────────────────────

    def _read_v1(self) -> Proxied | None:
        end = self._data.find(b"\r\n", 0, LONGEST_LINE)
        line = bytes(self._data[: LONGEST_LINE if end < 0 else end])
        # A lone CR or LF must not end the line (section 2.1): two readers could differ about where HTTP begins.
        if b"\n" in line or b"\r" in line[:-1] or (end >= 0 and b"\r" in line):
            raise ClientError(400, f"PROXY line with a lone CR or LF: {line!r}")
        if end < 0:
            if len(self._data) >= LONGEST_LINE:
                raise ClientError(400, f"PROXY line above {LONGEST_LINE} bytes: {line!r}")
            return None
        rest = bytes(self._data[end + 2 :])
        _, family, *fields = line.split(b" ")
        if family == b"UNKNOWN":  # the rest of the line must be ignored
            return Proxied(None, None, rest)
        version = {b"TCP4": 4, b"TCP6": 6}.get(family)
        if version is None or len(fields) != 4:
            raise ClientError(400, f"malformed PROXY line: {line!r}")
        try:
            hosts = [_parse_host(text, version) for text in fields[:2]]
            ports = [_parse_port(text) for text in fields[2:]]
        except ValueError:
            raise ClientError(400, f"malformed address in PROXY line: {line!r}") from None
        return Proxied((hosts[0], ports[0]), (hosts[1], ports[1]), rest)

    # ── version 2 ────────────────────────────────────────────────────────────────────────────

    def _read_v2(self) -> Proxied | None:
        data = self._data
        if len(data) > 12 and data[12] not in (_LOCAL, _PROXY):
            raise ClientError(400, f"PROXY header of version and command 0x{data[12]:02x}; known are 0x20 and 0x21")
        if len(data) < _FIXED:
            return None
        family, transport = data[13] >> 4, data[13] & 15
        length = int.from_bytes(data[14:16], "big")
        local = data[12] == _LOCAL  # a health check of the proxy: the block is skipped, whatever its family is
        if not local:
            if family not in _LENGTHS or transport not in _TRANSPORTS:
                raise ClientError(400, f"PROXY header of unknown family and transport 0x{data[13]:02x}")
            if transport and length < _LENGTHS[family]:
                raise ClientError(400, f"PROXY header of {length} bytes, family needs {_LENGTHS[family]}")
        if len(data) < _FIXED + length:
            return None
        rest = bytes(data[_FIXED + length :])
        layout = _LAYOUTS.get(family)
        if local or transport == 0 or layout is None:
            return Proxied(None, None, rest)
        source, destination, source_port, destination_port = layout.unpack_from(data, _FIXED)
        return Proxied((_host(source), source_port), (_host(destination), destination_port), rest)


def _host(packed: bytes) -> str:
    return str(ipaddress.ip_address(packed))


def _parse_host(text: bytes, version: int) -> str:
    decoded = text.decode("ascii")
    if "%" in decoded:  # an IPv6 zone, which version 1 does not allow
        raise ValueError
    address = ipaddress.ip_address(decoded)
    if address.version != version:
        raise ValueError
    return str(address)


def _parse_port(text: bytes) -> int:
    # Digits without leading zeros (section 2.1). int() alone would take `+1`, `1_0` and spaces.
    if not text.isdigit() or len(text) > 5 or (text[:1] == b"0" and text != b"0") or int(text) > 65535:
        raise ValueError
    return int(text)

"""The kinds of value that settings have: how each is read from text, and shown as text that reads back.

Pure, and imported by every process; it knows no setting by name. A parser raises ValueError, with the reason where
it has a text that is better than "expected a ...".
"""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any

from msgspec import Meta

_DURATION = re.compile(r"(\d+(?:\.\d*)?(?:e[+-]?\d+)?)\s*(ms|s|m|h)?", re.ASCII | re.IGNORECASE)
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(?:i?B)?|B)?", re.ASCII | re.IGNORECASE)
_UNITS = {"T": 1 << 40, "G": 1 << 30, "M": 1 << 20, "K": 1 << 10}
_TRUE = frozenset({"on", "true", "yes", "1"})
_FALSE = frozenset({"off", "false", "no", "0"})
#: RFC 9110 section 5.6.2 `token`; the value is section 5.5, without obs-fold.
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*:[ \t]*([\x20-\x7e\x80-\xff\t]*)")
DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8000


def parse_duration(text: str) -> float:
    """Seconds from `30`, `1.5`, `500ms`, `30s`, `5m`, `1h`; ValueError for anything else."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError
    number, unit = float(match[1]), (match[2] or "s").lower()
    return number / 1000 if unit == "ms" else number * _SECONDS[unit]


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` turns back into exactly `seconds`."""
    if 0 < seconds < 1 and round(seconds * 1000) / 1000 == seconds:
        return f"{round(seconds * 1000)}ms"
    if seconds != int(seconds):
        return f"{seconds!r}s"
    whole = int(seconds)
    for unit, length in (("h", 3600), ("m", 60)):
        if whole and whole % length == 0 and whole // length > 1 and float(whole // length) * length == seconds:
            return f"{whole // length}{unit}"
    return f"{whole}s" if whole else "0"


def parse_size(text: str) -> int:
    """Bytes from `8190`, `64K`, `512MB`, `1.5GiB`, where K is always 1024; ValueError for anything else."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError
    size = Fraction(match[1]) * (_UNITS[match[2].upper()] if match[2] else 1)
    if size.denominator != 1:
        raise ValueError(f"{text!r} is no whole number of bytes")
    return int(size)


def format_size(size: int) -> str:
    """The shortest text that `parse_size` turns back into exactly `size`."""
    for unit, length in _UNITS.items():
        if size and size % length == 0:
            return f"{size // length}{unit}iB"
    return str(size)


def _parse_switch(text: str) -> bool:
    if (word := text.strip().lower()) in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError


def _parse_octal(text: str) -> int:
    return int(text.strip(), 8)


def _parse_workers(text: str) -> int | str:
    return "auto" if text.strip().lower() == "auto" else int(text)


def _parse_text(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("it is empty or holds control characters")
    return text


def _parse_account(text: str) -> str:
    if not re.fullmatch(r"[^\s:/,]+", text):
        raise ValueError("a user or group is one name or number; each has a setting of its own")
    return text


def parse_address(text: str) -> str:
    """An address in its canonical spelling: `host:port`, `[v6]:port`, `unix:/path`, `unix:@name`, `fd://3`, `fd://name`.

    As in gunicorn `:8000` is every IPv4 interface and a bare host gets port 8000; a bare number is a port on
    127.0.0.1. `http://`, `https://` and `h2c://` before a host and port stay: they say whether it is TLS, and HTTP/2 in
    the clear. ValueError says what is wrong.
    """
    text = text.strip().removeprefix("tcp://")
    if match := re.fullmatch(r"(https?://|h2c://)(.*)", text):
        address = parse_address(match[2])
        if address.startswith(("unix:", "fd:", "http", "h2c")) or not address.endswith(match[2].rpartition(":")[2]):
            raise ValueError(f"after {match[1]} stands host:port")
        return match[1] + address
    if text.startswith("unix:"):
        path = text.removeprefix("unix:").removeprefix("//")
        if not path.startswith(("/", "@", "./", "../")) or path in {"/", "@"}:
            raise ValueError("a unix address is unix:/path or unix:@name")
        return f"unix:{path}"
    if text.startswith("fd:"):
        return _parse_descriptor(text)
    if "/" in text:
        raise ValueError(f"did you mean unix:{text}?" if text[0] in "/." else "an address has no slash")
    if text.isascii() and text.isdigit():
        host, port = DEFAULT_HOST, text
    elif match := re.fullmatch(r"\[([^\]]+)\](?::(\d+))?", text, re.ASCII):
        host, port = f"[{ipaddress.IPv6Address(match[1])}]", match[2] or str(DEFAULT_PORT)
    elif match := re.fullmatch(r"([^\s:\[\]]*)(?::(\d+))?", text, re.ASCII):
        host, port = match[1] or "0.0.0.0", match[2] or str(DEFAULT_PORT)  # noqa: S104 - gunicorn's `:8000`
    else:
        raise ValueError("an IPv6 address is written [::1]:8000" if text.count(":") > 1 else "the port is no number")
    if not text or int(port) > 65535:
        raise ValueError("a port is 0 to 65535" if text else "it is empty")
    return f"{host}:{int(port)}"


def _parse_descriptor(text: str) -> str:
    if match := re.fullmatch(r"fd:(?://)?(\d+)", text, re.ASCII):
        return f"fd://{int(match[1])}"
    if re.fullmatch(r"fd://[^\s:/,]+", text):
        return text
    raise ValueError("a descriptor is fd:// and its number, or the name under which it is passed, such as fd://3")


def _parse_statsd(text: str) -> str:
    """An address of datagrams: a bare host has statsd's port."""
    address = parse_address(f"{text}:8125" if re.fullmatch(r"[^\s:/]*[^\s:/\d][^\s:/]*", text) else text)
    if address.startswith(("http", "h2c:", "fd:")):
        raise ValueError("metrics go to HOST:PORT, or to unix:/path")
    return address


def _parse_header(text: str) -> str:
    match = _FIELD.fullmatch(text.strip())
    if match is None:
        raise ValueError("a header is `Name: value` on one line")
    return f"{match[1]}: {match[2]}"


def _parse_assignment(text: str) -> str:
    name, equals, _ = text.partition("=")
    if not equals or not name.strip() or "\0" in text:
        raise ValueError("a variable is NAME=VALUE")
    return f"{name.strip()}={text.partition('=')[2]}"


def _parse_peer(text: str) -> str:
    if (peer := text.strip()) in {"*", "unix"}:
        return peer
    return str(ipaddress.ip_network(peer) if "/" in peer else ipaddress.ip_address(peer))


def _parse_prefix(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("a path begins with /")
    return text


def _parse_static(text: str) -> str:
    prefix, equals, directory = text.partition("=")
    prefix = _parse_prefix(prefix.strip()).rstrip("/")
    if not (prefix and equals and directory.strip()):
        raise ValueError(
            "a directory is /PREFIX=DIRECTORY, and the prefix is more than /: the rest is the application's"
        )
    return f"{prefix}={directory.strip()}"


def _parse_root(text: str) -> str:
    return _parse_prefix(text).rstrip("/") if text else ""


def _parse_warmup(text: str) -> str:
    if not re.fullmatch(r"[\w.]+:[\w.]+|(GET|HEAD) /[!-~]*", text):
        raise ValueError("a warm-up is module:function, or a request such as `GET /health`")
    return text


@dataclass(frozen=True, slots=True)
class Kind:
    """How a value is read from text and shown as text; `parse` raises ValueError, with a reason or without."""

    name: str
    metavar: str
    parse: Callable[[str], object]
    show: Callable[[Any], str] = str
    numbers: bool = False  # a bare number in a file or an argument is taken as its text
    example: str = ""  # for help and documents, where a setting has none of its own


SWITCH = Kind("on or off", "", _parse_switch, lambda value: "on" if value else "off")
NUMBER = Kind("a whole number", "N", int, example="1000")
TEXT = Kind("text", "TEXT", _parse_text)
CHOICE = Kind("one of", "", lambda text: text.strip().lower(), numbers=True)
DURATION = Kind("a duration (30, 500ms, 5m, 1h)", "TIME", parse_duration, format_duration, example="90s")
SIZE = Kind("a size (8190, 64K, 512M, 1GiB)", "SIZE", parse_size, format_size, example="512K")
OCTAL = Kind("an octal number", "OCTAL", _parse_octal, "{:04o}".format, example="0660")
WORKERS = Kind("auto or a whole number", "N|auto", _parse_workers, example="auto")
ACCOUNT = Kind("a name or a number", "NAME", _parse_account, numbers=True, example="www-data")
STATSD = Kind("an address", "HOST:PORT", _parse_statsd, example="127.0.0.1:8125")
ADDRESS = Kind("an address", "ADDRESS", parse_address, example="127.0.0.1:9000")
HEADER = Kind("Name: value", "HEADER", _parse_header, example="X-Frame-Options: DENY")
ASSIGNMENT = Kind("NAME=VALUE", "NAME=VALUE", _parse_assignment, example="TZ=UTC")
PEER = Kind("an address or a network", "ADDRESS", _parse_peer, example="10.0.0.0/8,unix")
PREFIX = Kind("a path prefix", "PREFIX", _parse_prefix, example="/healthz")
ROOT = Kind("a path prefix", "PREFIX", _parse_root, example="/api")
STATIC = Kind("PREFIX=DIRECTORY", "PREFIX=DIR", _parse_static, example="/static=dist")
WARMUP = Kind("module:function or GET /path", "WARMUP", _parse_warmup, example="GET /health")

Seconds = Annotated[float, Meta(ge=0), DURATION]
SomeSeconds = Annotated[float, Meta(gt=0), DURATION]
Bytes = Annotated[int, Meta(ge=0), SIZE]
SomeBytes = Annotated[int, Meta(ge=1), SIZE]
Count = Annotated[int, Meta(ge=0), NUMBER]
SomeCount = Annotated[int, Meta(ge=1), NUMBER]
PassedFd = Annotated[int, Meta(ge=3), NUMBER]  # above standard input, output and error
#: listen(2) takes an int.
Backlog = Annotated[int, Meta(ge=1, le=2**31 - 1), NUMBER]
#: More than any machine has CPUs, and so few that the board (ipc/board) has room for a surge. The master's CPU time for
#: a start or a reload grows with the square of the number: a start of 1000 takes it 8 s, a reload 22 s. A slip of the
#: pen is refused before it has eaten the memory.
Workers = Annotated[int, Meta(ge=1, le=1000), NUMBER]
Mode = Annotated[int, Meta(ge=0, le=0o777), OCTAL]
Account = Annotated[str, ACCOUNT]

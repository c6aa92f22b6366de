"""Reading takes time in proportion to what a client sent: shown by structure and by counts, never by a clock."""

import ast
import importlib
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest

import aserver.log
import aserver.protocol
from aserver.errors import ClientError
from aserver.log.access.escape import Escaper, escape_json, escape_text
from aserver.protocol.context import COMPILED
from aserver.protocol.http1 import framing, rules
from aserver.protocol.peer.forwarded import MOST_HOPS, Forwarding, parse_node, with_port
from aserver.protocol.peer.proxy_protocol import SIGNATURE, ProxyHeader
from aserver.protocol.peer.trust import Peers
from aserver.protocol.semantics import fields, target
from aserver.protocol.websocket import deflate, handshake
from tests.protocol.ambiguity import Automaton

#: Reads formats, which are the operator's, at the start.
OPERATORS = {"aserver.log.access.format"}
#: Methods of a pattern that look for it anywhere in the text.
SEARCHING = {"search", "findall", "finditer", "sub", "subn", "split"}


def modules() -> Iterator[ModuleType]:
    for package in (aserver.protocol, aserver.log):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name not in OPERATORS:
                yield importlib.import_module(found.name)


def patterns() -> list[tuple[str, re.Pattern[Any]]]:
    return [
        (f"{module.__name__}.{name}", value)
        for module in modules()
        for name, value in vars(module).items()
        if isinstance(value, re.Pattern)
    ]


def source(module: ModuleType) -> ast.Module:
    """Its syntax; a compiled module has its source beside it."""
    assert module.__file__ is not None
    path = Path(module.__file__)
    name = path.name.partition(".")[0]
    if (path.parent / f"{name}.pyx").exists():  # Cython's own language, in which no pattern may be
        assert not re.search(r"import re\b", (path.parent / f"{name}.pyx").read_text())
        return ast.Module([], [])
    return ast.parse((path.parent / f"{name}.py").read_text())


@pytest.mark.parametrize(
    ("text", "linear"),
    [
        (r"(a+)+b", False),
        (r"a*a*b", False),
        (r"[a-z]+x?[a-z]+", False),
        (r"(a*)*", False),
        (r'(?:[^,"]|"(?:[^"\\]|\\.)*"|")+', False),
        (r"([^/?#]*)([^#]*)", False),
        (r"(?i:a+)A+b", False),
        (r"(a|b)*c", True),
        (r"(?:;[a-z]+(?:=[0-9]+)?)*\r\n", True),
        (r"(?:x|%[0-9]{2})+(?::[0-9]{0,5})?", True),
        (r"[ \t]*;[ \t]*a+(?:[ \t]*=[ \t]*b+)?", True),
    ],
)
def test_the_check_of_patterns_knows_good_and_bad(text: str, linear: bool) -> None:
    assert (Automaton(re.compile(text)).ambiguous() is None) == linear


def test_every_pattern_takes_linear_time() -> None:
    """Fails with the patterns that split `Forwarded`, and with the one that had taken an absolute target apart."""
    found = patterns()
    assert len(found) > 12
    assert {name: reason for name, each in found if (reason := Automaton(each).ambiguous())} == {}


def test_every_pattern_that_is_searched_for_takes_linear_time() -> None:
    """A search begins anew at each byte; fails with `[0-9]*x`, which would run to the end of the digits from each."""
    assert Automaton(re.compile("[0-9]*x"), searched=True).ambiguous() is not None
    searched = {
        node.func.value.id
        for module in modules()
        for node in ast.walk(source(module))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in SEARCHING
        and isinstance(node.func.value, ast.Name)
    }
    checked = [(name, each) for name, each in patterns() if name.rpartition(".")[2] in searched]
    assert len(checked) >= 2
    assert {name: reason for name, each in checked if (reason := Automaton(each, searched=True).ambiguous())} == {}


def test_every_pattern_is_one_of_those() -> None:
    """A pattern inside a call, `re.search("...", value)`, would be seen by none of the tests above."""
    inline = [
        f"{module.__name__}:{node.lineno}"
        for module in modules()
        for node in ast.walk(source(module))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "re"
        if node.attr not in {"compile", "Pattern", "Match", "DOTALL"}
    ]
    assert inline == []


# ── what is done by Python's own code ────────────────────────────────────────────────────────


def steps(call: Callable[[], object]) -> int:
    """Lines of aserver that run in a call; compiled ones have none."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except ClientError:
        pass
    finally:
        sys.settrace(before)
    return count


def forwarded(value: bytes) -> object:
    return Forwarding(Peers(["10.0.0.0/8"])).read({b"forwarded": value})


def listed(value: bytes) -> object:
    names = (b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-proto", b"x-forwarded-prefix")
    return Forwarding(Peers(["10.0.0.0/8"])).read(dict.fromkeys(names, value))


def offers(value: bytes) -> object:
    return deflate.negotiate([value])


def opening(value: bytes) -> object:
    key = (b"sec-websocket-key", b"AAAAAAAAAAAAAAAAAAAAAA==")
    return handshake.examine([(b"sec-websocket-version", b"13"), key, (b"sec-websocket-protocol", value)])


def proxy_header(value: bytes) -> object:
    header = ProxyHeader()
    for index in range(len(value)):
        header.feed(value[index : index + 1])
    return None


def chunks(value: bytes) -> object:
    walk = framing.ChunkWalk(100, 8190)
    for index in range(len(value)):
        walk.advance(value[index : index + 1], 0, 1 << 20)
    return None


UNITS = (
    b'\\"',
    b'"',
    b"\\",
    b",",
    b";",
    b"for=10.0.0.1,",
    b'for="10.0.0.1",',
    b"a=b;",
    b"10.0.0.1,",
    b" ",
    b"1",
    b":",
    b"/a",
    b"%",
)
READERS = (
    forwarded, listed, offers, opening, parse_node, fields.tokens, target.decode_path, fields.accepts_trailers,
    lambda value: with_port(value, 81, "http"), lambda value: framing.empty_lines(value, 0, len(value)),
    lambda value: framing.check_begun(value, 1 << 20), lambda value: framing.parse_request_line(value, 1 << 20),
    lambda value: target.split_target("GET", value), target.check_host, escape_text, escape_json,
    lambda value: Escaper(escape_json, 4000)[value],
    lambda value: rules.check_transfer_encoding(value, "1.1", has_length=False),
)  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("start", [b"", b'for="', b"permessage-deflate", b"/", b"http://"])
def test_sixteen_times_the_bytes_are_at_most_sixteen_times_the_steps(unit: bytes, start: bytes) -> None:
    for read in READERS:
        once = steps(lambda: read(start + unit * 500))  # noqa: B023
        more = steps(lambda: read(start + unit * 8000))  # noqa: B023
        assert more <= 16 * once + 50, (read, unit, once, more)


@pytest.mark.parametrize(
    ("read", "start", "unit"),
    [
        (proxy_header, SIGNATURE + b"\x20\x11\xff\xff", b"\0"),
        (chunks, b"", b"1\r\na\r\n"),
        (chunks, b"0\r\n", b"a: b\r\n"),
        (chunks, b"1;", b"a"),
    ],
)
def test_sixteen_times_the_pieces_are_at_most_sixteen_times_the_steps(
    read: Callable[[bytes], object], start: bytes, unit: bytes
) -> None:
    once = steps(lambda: read(start + unit * 100))
    assert steps(lambda: read(start + unit * 1600)) <= 16 * once + 50


class Looking:
    """A pattern that counts the bytes it is given."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self._pattern = pattern
        self.looked = 0

    def fullmatch(self, text: bytes, start: int, end: int) -> re.Match[bytes] | None:
        self.looked += min(end, len(text)) - start
        return self._pattern.fullmatch(text, start, end)


@pytest.mark.skipif(COMPILED, reason="compiled code has the patterns, not their names")
def test_a_request_line_that_comes_byte_by_byte_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails without `checked`: each byte had the whole line read again, 33 million steps for 8 KB."""
    looking = [Looking(getattr(framing, name)) for name in ("_BEGUN_LINE", "_BEGUN_TARGET", "_BEGUN_VERSION")]
    for name, each in zip(("_BEGUN_LINE", "_BEGUN_TARGET", "_BEGUN_VERSION"), looking, strict=True):
        monkeypatch.setattr(framing, name, each)
    line = b"DELETE /" + b"a" * 8100 + b" HTTP/1.1\r"
    for size in range(1, len(line) + 1):
        framing.check_begun(line[:size], 8190, size - 1)
    assert sum(each.looked for each in looking) < len(line) + 200


class Counting:
    """Trusts everybody, and counts the questions."""

    def __init__(self) -> None:
        self.asked = 0

    def __contains__(self, peer: object) -> bool:
        self.asked += 1
        return True


@pytest.mark.parametrize("name", [b"x-forwarded-for", b"forwarded"])
def test_few_of_many_trusted_entries_are_looked_at(name: bytes) -> None:
    """Fails without MOST_HOPS: 750 KB of distinct entries took 0.3 to 0.7 s, in which the worker served nobody."""
    prefix = b"for=" if name == b"forwarded" else b""
    entries = [b"10.%d.%d.%d" % (index >> 16, index >> 8 & 255, index & 255) for index in range(60_000)]
    peers = Counting()
    origin = Forwarding(peers).read({name: b", ".join(prefix + each for each in entries)})
    assert peers.asked == MOST_HOPS
    assert origin.client == (entries[-MOST_HOPS].decode(), 0)


def test_a_large_field_is_not_remembered() -> None:
    forwarding = Forwarding(Counting())
    forwarding.read({b"x-forwarded-for": b"10.0.0.1," * 1000})
    assert forwarding.remembered[2] == 0


def test_the_offers_of_a_websocket_are_counted() -> None:
    """Fails without the two limits: 800 KB of commas took 0.2 s of one turn of the loop."""
    name = b"permessage-deflate"
    assert deflate.negotiate([b"x," * (deflate.MOST_OFFERS - 1) + name]) is not None
    assert deflate.negotiate([b"x," * deflate.MOST_OFFERS + name]) is None
    assert deflate.negotiate([b"x", *[b","] * deflate.MOST_OFFERS, name]) is None
    assert deflate.negotiate([name + b"; client_no_context_takeover" * 5]) is None
    opening(b"a" + b",a" * (handshake.MOST_OFFERED - 1))
    with pytest.raises(ClientError, match="more than 128 subprotocols"):
        opening(b"a" + b",a" * handshake.MOST_OFFERED)

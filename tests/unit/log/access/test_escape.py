"""Nothing that a client sends can forge a line or command a terminal."""

import base64
import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aserver.log.access.format import Formatter, compile_format
from tests.unit.log.access.answers import WHEN, Answer, line

EVERY_ATOM = " ".join(
    f'"%({atom})s"'
    for atom in [*"hlutrmUqHsBbfaTMDLp", "{cookie}i", "{server}o", "{http_x}e", "{request_id}e", "{user}e"]
)


texts = st.text(max_size=40)


raws = st.binary(max_size=40) | st.sampled_from(
    [b'"', b"\\", b"\r\n", b"\x1b[31m", b"\xff\xfe", "é€\u2028".encode(), b"\\x0a"]
)


names = st.sampled_from([b"referer", b"user-agent", b"authorization", b"cookie", b"x"])


basic = raws.map(lambda raw: b"Basic " + base64.b64encode(raw))


answers = st.builds(
    Answer,
    client=st.none() | st.tuples(texts, st.integers(0, 65535)),
    method=texts,
    target=raws,
    version=texts,
    headers=st.lists(st.tuples(names, raws | basic), max_size=6),
    response_headers=st.lists(st.tuples(st.just(b"Server"), raws), max_size=2),
    status=st.integers(0, 4999),
    sent=st.integers(0, 1 << 50),
    duration=st.floats(0, 1e6),
    request_id=st.none() | texts,
    scope=st.none() | st.fixed_dictionaries({"user": texts}),
)


COMPILED: dict[str, Formatter] = {
    name: compile_format(name, limit=4096) for name in ("combined", "common", "json", EVERY_ATOM)
}


@pytest.mark.parametrize("name", sorted(COMPILED))
def test_no_byte_of_any_field_can_forge_a_line(name: str) -> None:
    for code in range(256):
        raw, text = bytes([97, code, 98]), f"a{chr(code)}b"
        headers = [(field, raw) for field in (b"referer", b"user-agent", b"cookie", b"x")]
        headers.append((b"authorization", b"Basic " + base64.b64encode(raw)))
        full = Answer((text, 1), text, raw, text, headers=headers, response_headers=[(b"server", raw)], request_id=text)
        full.scope = {"user": text}
        check_line(full, name)
        full.connection = SimpleNamespace(logged=None)
        for _ in range(2):  # the second one is made of what the first left
            check_line(full, name)


@given(answers, st.sampled_from(sorted(COMPILED)))
def test_no_client_can_forge_a_line(answer: Answer, name: str) -> None:
    check_line(answer, name)
    if answer.scope is not None:
        answer.connection = SimpleNamespace(logged=None)
        check_line(answer, name)
        check_line(answer, name)


def check_line(answer: Answer, name: str) -> None:
    formatter = COMPILED[name]
    for make in (formatter.lines, formatter.shortened):
        (made,) = make([answer], formatter.stamp(WHEN))
        assert made.endswith("\n")
        body = made[:-1]
        assert body.isascii()
        assert body.isprintable()
        if name == "json":
            assert len(json.loads(body)) == 13
        else:
            assert body.count('"') == {"combined": 6, "common": 2, EVERY_ATOM: EVERY_ATOM.count('"')}[name]


@given(st.binary(max_size=30))
def test_escaped_text_tells_the_bytes(raw: bytes) -> None:
    made = line("%({x}i)s", Answer(headers=[(b"x", raw)]))[:-1]
    if raw:
        assert made.decode("unicode_escape").encode("latin-1") == raw


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_json_tells_the_text(text: str) -> None:
    assert json.loads(line("json", Answer(target=text.encode())))["target"] == text


def test_short_is_for_a_terminal() -> None:
    """The time of day, as the terminal's other lines have it; colours only where it is asked for."""
    answer: Any = Answer(status=404, duration=0.00123)
    plain, colour = compile_format("short"), compile_format("short", colour=True)
    assert plain.timed
    assert plain.lines([answer], plain.stamp(WHEN)) == ["12:01:07 404 GET /a/b?c=d 1.2 ms\n"]
    coloured = "\x1b[2m12:01:07\x1b[0m \x1b[33m404\x1b[0m GET /a/b?c=d 1.2 ms\n"
    assert colour.lines([answer], colour.stamp(WHEN)) == [coloured]

"""Access formats: the right bytes."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from aserver.errors import ConfigError
from aserver.log.access.format import compile_format
from tests.unit.log.access.answers import WHEN, Answer, line

BROWSER = [(b"host", b"x"), (b"user-agent", b"Mozilla/5.0 (X11)"), (b"referer", b"https://example.org/")]


def test_combined() -> None:
    assert line("combined", Answer(headers=BROWSER)) == (
        b'192.0.2.7 - - [21/Nov/2026:12:01:07 +0100] "GET /a/b?c=d HTTP/1.1" 200 5321 '
        b'"https://example.org/" "Mozilla/5.0 (X11)"\n'
    )


def test_common_without_client_and_body() -> None:
    bare = Answer(client=None, sent=0, headers=[(b"authorization", b"Basic YWxpY2U6c2VjcmV0")])
    assert line("common", bare) == b'- - alice [21/Nov/2026:12:01:07 +0100] "GET /a/b?c=d HTTP/1.1" 200 -\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("common", b'192.0.2.7 - - [21/Nov/2026:12:01:07 +0100] "-" 505 27\n'),
        ("%(r)s %(H)s", b"- -\n"),
        ("%({server_protocol}e)s", b"-\n"),
    ],
)
def test_a_request_line_that_could_not_be_read_is_a_dash(text: str, told: bytes) -> None:
    """As in nginx. Fails with a template for the request line (`"  HTTP/"`)."""
    unread = Answer(method="", target=b"", version="", status=505, sent=27)
    assert line(text, unread) == told
    fields = json.loads(line("json", unread))
    assert (fields["method"], fields["target"], fields["protocol"]) == ("", "", "")


def test_json_has_the_documented_fields() -> None:
    assert json.loads(line("json", Answer(headers=BROWSER, request_id="r1", scope={}))) == {
        "time": "2026-11-21T12:01:07+01:00",
        "client": "192.0.2.7",
        "user": "",
        "method": "GET",
        "target": "/a/b?c=d",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes": 5321,
        "duration": 1.234567,
        "referer": "https://example.org/",
        "user_agent": "Mozilla/5.0 (X11)",
        "request_id": "r1",
        "trace_id": "",
    }


TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("field", "told"),
    [
        (b"00-%s-00f067aa0ba902b7-01" % TRACE, TRACE.decode()),
        (b"cc-%s-00f067aa0ba902b7-01-what-the-future-brings" % TRACE, TRACE.decode()),
        (b"00-%s-00f067aa0ba902b7" % TRACE, ""),
        (b"00-%s-00f067aa0ba902b7-01" % TRACE.upper(), ""),
    ],
)
def test_the_trace_id_is_of_traceparent(field: bytes, told: str) -> None:
    """By which a line and a trace find each other. Fails with the whole field, or with what is no trace's id."""
    answer = Answer(headers=[(b"traceparent", field)])
    assert json.loads(line("json", answer))["trace_id"] == told
    assert line("%({trace_id}e)s", answer).decode().strip() == (told or "-")


@pytest.mark.parametrize(
    ("atom", "text"),
    [
        ("h", "192.0.2.7"),
        ("l", "-"),
        ("u", "alice"),
        ("t", "[21/Nov/2026:12:01:07 +0100]"),
        ("r", "GET /a/b?c=d HTTP/1.1"),
        ("m", "GET"),
        ("U", "/a/b"),
        ("q", "c=d"),
        ("H", "HTTP/1.1"),
        ("s", "200"),
        ("B", "5321"),
        ("b", "5321"),
        ("f", "-"),
        ("a", "curl/8"),
        ("T", "1"),
        ("M", "1234"),
        ("D", "1234567"),
        ("L", "1.234567"),
        ("p", "<4711>"),
        ("{user-agent}i", "curl/8"),
        ("{User-Agent}i", "curl/8"),
        ("{x-none}i", "-"),
        ("{content-type}o", "text/html"),
        ("{x-none}o", "-"),
        ("{remote_addr}e", "192.0.2.7"),
        ("{remote_port}e", "50412"),
        ("{http_user_agent}e", "curl/8"),
        ("{request_method}e", "GET"),
        ("{path_info}e", "/a/b"),
        ("{query_string}e", "c=d"),
        ("{raw_uri}e", "/a/b?c=d"),
        ("{server_protocol}e", "HTTP/1.1"),
        ("{script_name}e", "/root"),
        ("{request_id}e", "-"),
    ],
)
@pytest.mark.parametrize("scoped", [False, True])
def test_each_atom_of_gunicorn(atom: str, text: str, scoped: bool) -> None:
    headers = [(b"user-agent", b"curl/8"), (b"authorization", b"Basic YWxpY2U6c2VjcmV0")]
    answer = Answer(headers=headers, response_headers=[(b"Content-Type", b"text/html")])
    if scoped:
        answer.scope = {"root_path": "/root"}
        answer.connection = SimpleNamespace(logged=None)
    if atom == "{script_name}e" and not scoped:
        text = "-"
    formatter = compile_format(f"<%({atom})s>%%", pid=4711)
    for _ in range(3):  # the first, from what the first left, and when nothing is left any more
        assert formatter.lines([answer], formatter.stamp(WHEN))[0] == f"<{text}>%\n"


def test_what_a_connection_keeps_is_of_its_own_requests_only() -> None:
    """Texts of the last request serve the next one with the same client and fields, and no other."""
    formatter = compile_format("%(h)s %(u)s %(a)s %(U)s %({x}i)s")
    looked = 0

    def user(_: bytes) -> bytes:
        nonlocal looked
        looked += 1
        return b"alice"

    formatter.lines.__globals__["user"] = user
    connection = SimpleNamespace(logged=None)
    client = ("192.0.2.7", 1)
    fields = [(b"user-agent", b"curl"), (b"authorization", b"Basic eA==")]

    def ask(target: bytes, client: tuple[str, int], headers: list[tuple[bytes, bytes]]) -> str:
        return formatter.lines([Answer(client, target=target, headers=headers, connection=connection)], "")[0][:-1]

    assert ask(b"/1", client, fields) == "192.0.2.7 alice curl /1 -"
    assert ask(b"/2", client, fields) == "192.0.2.7 alice curl /2 -"
    assert ask(b"/3", client, list(fields)) == "192.0.2.7 alice curl /3 -"
    assert looked == 1
    assert ask(b"/4", client, [*fields, (b"x", b"1")]) == "192.0.2.7 alice curl /4 1"
    assert ask(b"/5", ("192.0.2.8", 1), fields) == "192.0.2.8 alice curl /5 -"
    assert ask(b"/6", client, []) == "192.0.2.7 - - /6 -"


def test_another_client_with_the_same_fields_is_told_apart() -> None:
    formatter = compile_format("%(h)s")
    connection = SimpleNamespace(logged=None)
    for client in ("192.0.2.7", "192.0.2.8", "192.0.2.7"):
        assert formatter.lines([Answer((client, 1), connection=connection)], "")[0] == f"{client}\n"


def test_large_fields_are_not_kept() -> None:
    formatter = compile_format("combined")
    connection = SimpleNamespace(logged=None)
    scope = {"client": None, "method": "GET", "http_version": "1.1", "headers": [(b"cookie", b"c" * 4000)]}
    for _ in range(2):
        formatter.lines([Answer(scope=scope, connection=connection)], "")[0]
        assert len(str(connection.logged)) < 100


def test_a_websocket_has_no_method_in_its_scope() -> None:
    scope: dict[str, Any] = {"type": "websocket", "client": None, "http_version": "1.1", "headers": []}
    closed = Answer(method="WEBSOCKET", status=1001, scope=scope)
    assert line("%(m)s %(s)s %(B)s", closed) == b"WEBSOCKET 1001 5321\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("%(z)s", "no atom %(z)s; known are h l u t"),
        ("%(d)s", "no atom %(d)s; did you mean %(D)s?"),
        ("%({accept}x)s", "no atom %({accept}x)s"),
        ("%({heade}i", "begins no atom"),
        ("100 % sure", "`%` at character 4 begins no atom"),
        ("%(h)d", "must end in `s`: %(h)s"),
    ],
)
def test_what_is_wrong_with_a_format(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compile_format(text)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["]", "'", '"', "\\", "a]b'", "x\ny"])
def test_a_header_name_in_a_format_is_data(name: str) -> None:
    assert line(f"<%({{{name}}}i)s>", Answer(headers=[(name.encode(), b"v")])) == b"<v>\n"


@pytest.mark.parametrize("name", ["combined", "json"])
@pytest.mark.parametrize("filler", [b"a", b"\xff", b'"', b"\n"])
def test_trap_77_a_line_for_a_pipe_is_shortened_inside_its_fields(name: str, filler: bytes) -> None:
    long = Answer(target=b"/" + filler * 8000, headers=[(b"user-agent", filler * 8000), (b"referer", filler * 8000)])
    formatter = compile_format(name, limit=4096)
    made = formatter.shortened([long], formatter.stamp(WHEN))[0]
    assert 800 < len(made) <= 4096
    assert "5321" in made
    if name == "json":
        assert json.loads(made)["bytes"] == 5321


def test_the_memory_for_plain_values_is_bounded() -> None:
    formatter = compile_format("combined")
    escaper = formatter.lines.__globals__["escape"]
    for number in range(5000):
        formatter.lines([Answer(headers=[(b"user-agent", b"a%d" % number), (b"referer", b"r" * 300)])], "")[0]
    assert len(escaper) <= 1024
    assert max(len(str(key)) for key in escaper) <= 256 + len("b''")

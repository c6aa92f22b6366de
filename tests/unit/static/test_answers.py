"""Conditions, ranges, codings and types of static files: a table of each."""

import pytest

from aserver.static.answers import Representation, accepted, answer, media_type

FILE = Representation("a.txt", 100, 1_000_000_000_500_000_000)
NOW = "Sun, 09 Sep 2001 01:46:40 GMT"
BEFORE = "Sun, 09 Sep 2001 01:46:39 GMT"
LATER = "Sun, 09 Sep 2001 01:46:41 GMT"
TAG = FILE.etag


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 200),
        ({"if-none-match": TAG}, 304),
        ({"if-none-match": f'"a", W/{TAG}'}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": '"a"'}, 200),
        ({"if-none-match": '"a"', "if-modified-since": LATER}, 200),
        ({"if-modified-since": NOW}, 304),
        ({"if-modified-since": LATER}, 304),
        ({"if-modified-since": BEFORE}, 200),
        ({"if-modified-since": "yesterday"}, 200),
        ({"if-modified-since": ""}, 200),
        ({"if-modified-since": "Sun, 09 Sep 99999999999 01:46:40 GMT"}, 200),
        ({"if-match": TAG}, 200),
        ({"if-match": "*"}, 200),
        ({"if-match": f"W/{TAG}"}, 412),
        ({"if-match": '"a"'}, 412),
        ({"if-unmodified-since": NOW}, 200),
        ({"if-unmodified-since": BEFORE}, 412),
        ({"if-match": TAG, "if-unmodified-since": BEFORE}, 200),
        ({"if-match": TAG, "if-none-match": TAG}, 304),
    ],
)
def test_conditions(fields: dict[str, str], status: int) -> None:
    """RFC 9110, 13.2.2. A 304 has no length, and the validators."""
    made = answer("GET", fields, FILE)
    assert made.status == status
    assert {name for name, _ in made.fields} >= {b"etag", b"last-modified"}
    assert (b"content-length" in dict(made.fields)) == (status != 304)


@pytest.mark.parametrize(
    ("fields", "status", "part"),
    [
        ({"range": "bytes=0-0"}, 206, (0, 1)),
        ({"range": "bytes=10-19"}, 206, (10, 20)),
        ({"range": "Bytes = 90 - "}, 206, (90, 100)),
        ({"range": "bytes=90-1000"}, 206, (90, 100)),
        ({"range": "bytes=-10"}, 206, (90, 100)),
        ({"range": "bytes=-1000"}, 206, (0, 100)),
        ({"range": "bytes=100-"}, 416, (0, 0)),
        ({"range": "bytes=-0"}, 416, (0, 0)),
        ({"range": "bytes=5-4"}, 200, (0, 100)),
        ({"range": "bytes=-"}, 200, (0, 100)),
        ({"range": "bytes=a-b"}, 200, (0, 100)),
        ({"range": "bytes=0-1,5-6"}, 200, (0, 100)),
        ({"range": "lines=0-1"}, 200, (0, 100)),
        ({"range": "bytes=" + "9" * 5000 + "-"}, 200, (0, 100)),
        ({"range": "bytes=0-9", "if-range": TAG}, 206, (0, 10)),
        ({"range": "bytes=0-9", "if-range": NOW}, 206, (0, 10)),
        ({"range": "bytes=0-9", "if-range": BEFORE}, 200, (0, 100)),
        ({"range": "bytes=0-9", "if-range": LATER}, 200, (0, 100)),
        ({"range": "bytes=0-9", "if-range": f"W/{TAG}"}, 200, (0, 100)),
        ({"range": "bytes=0-9", "if-range": '"a"'}, 200, (0, 100)),
        ({"range": "bytes=0-9", "if-none-match": TAG}, 304, (0, 0)),
    ],
)
def test_ranges(fields: dict[str, str], status: int, part: tuple[int, int]) -> None:
    made = answer("GET", fields, FILE)
    assert (made.status, (made.start, made.end)) == (status, part)
    if status in (200, 206):
        assert int(dict(made.fields)[b"content-length"]) == made.end - made.start
    assert (b"content-range" in dict(made.fields)) == (status in (206, 416))


@pytest.mark.parametrize(
    ("value", "codings"),
    [
        (None, set()),
        ("", set()),
        ("gzip", {"gzip"}),
        ("GZIP;q=0.5, br", {"gzip", "br"}),
        ("gzip;q=0, br;q=0.000", set()),
        ("*", {"gzip", "br"}),
        ("*;q=0, gzip", {"gzip"}),
        ("gzip;q=nonsense, br", {"br"}),
        ("x-gzip, deflate", set()),
        (", " * 10_000 + "gzip", set()),
    ],
)
def test_accepted_codings(value: str | None, codings: set[str]) -> None:
    assert accepted(value) == codings


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.HTML", "text/html; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.svg", "image/svg+xml; charset=utf-8"),
        ("a.woff2", "font/woff2"),
        ("a.tar.gz", "application/gzip"),
        ("a.wasm", "application/wasm"),
        ("noending", "application/octet-stream"),
        ("a.unheard", "application/octet-stream"),
    ],
)
def test_types_are_the_same_on_every_machine(name: str, kind: str) -> None:
    assert media_type(name) == kind

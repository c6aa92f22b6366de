"""Strict framing: each row of `framing_rows` gets its answer, whole and cut anywhere, and h11 agrees or we know why."""

import asyncio
from itertools import groupby
from operator import attrgetter

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocol.http1.framing_rows import SMUGGLED, Row, rows
from tests.protocol.wiretap import Outcome, Wiretap

ROWS = list(rows())
SECTIONS = {section: list(group) for section, group in groupby(ROWS, key=attrgetter("section"))}
#: Cut at every position up to this size; above it, at the positions around line ends.
EXHAUSTIVE = 400


def check(row: Row, outcome: Outcome, *, followed: bool) -> None:
    """Hold the outcome to the row."""
    assert not any(b"/smuggled" in line for line in outcome.called) or (followed and not row.closes), outcome
    statuses = [status for status in outcome.statuses if status != 100]
    if isinstance(row.wanted, int):
        assert statuses == [row.wanted], outcome
        assert not outcome.open
        assert b"connection: close" in outcome.written
        assert len(outcome.called) <= 1
        return
    wanted = list(row.wanted)
    refused = 0
    if wanted[-1].isdigit():
        refused = int(wanted.pop())
        assert statuses[-1:] == [refused], outcome
        assert not outcome.open
    bodies = [body for body, status in zip(outcome.bodies, outcome.statuses, strict=True) if status == 200]
    if followed and not row.closes and not refused:
        assert bodies.pop().startswith(b"GET /smuggled"), outcome
    assert bodies == wanted, outcome
    if not refused:
        assert set(statuses) == {200}
        assert outcome.open == (not row.closes)


def ids(row: Row) -> str:
    return f"{row.section}: {row.name}"


def test_the_table_is_large() -> None:
    assert len(ROWS) > 500
    assert sum(map(len, SECTIONS.values())) == len(ROWS)  # the rows of a section stand together
    assert len({(row.section, row.name) for row in ROWS}) == len(ROWS)


# A test per section, not per row: thousands of items cost every process of a parallel run more than the rows do.
@pytest.mark.parametrize("section", SECTIONS)
async def test_whole_and_cut_at_every_position(section: str) -> None:
    """The answer is the wanted one wherever the network cuts, and nothing behind a refused or last request is read."""
    for row in SECTIONS[section]:
        try:
            await _whole(row)
            await _cut(row)
        except BaseException as error:
            error.add_note(f"this row: {ids(row)}, sent: {row.raw!r}")
            raise


async def _whole(row: Row) -> None:
    tap = Wiretap()
    check(row, await tap.ask([row.raw]), followed=False)
    check(row, await tap.ask([row.raw + SMUGGLED]), followed=True)
    check(row, await tap.ask([row.raw, SMUGGLED]), followed=True)


async def _cut(row: Row) -> None:
    tap = Wiretap()
    raw = row.raw + SMUGGLED
    if len(raw) <= EXHAUSTIVE:
        positions = set(range(1, len(raw)))
    else:
        ends = [index for index in range(len(raw)) if raw[index] in b"\r\n"][:20]
        positions = {index + shift for index in ends for shift in (-1, 0, 1, 2)} | {1, 100, 8190, 8191, 8192, 8193}
    for position in sorted(positions):
        if 0 < position < len(raw):
            check(row, await tap.ask([raw[:position], raw[position:]]), followed=True)
    if len(raw) <= EXHAUSTIVE:
        check(row, await tap.ask([raw[index : index + 1] for index in range(len(raw))]), followed=True)


@pytest.fixture
def anyio_backend() -> object:
    """One loop is enough, since the transport is our own: the one whose turns take the least time."""
    return ("asyncio", {"use_uvloop": True})


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_several_cuts(data: st.DataObject) -> None:
    """Any number of cuts, anywhere."""
    row = data.draw(st.sampled_from(ROWS))
    raw = row.raw + SMUGGLED
    cuts = sorted(data.draw(st.sets(st.integers(1, len(raw) - 1), max_size=6)))
    pieces = [raw[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]

    async def ask() -> Outcome:
        return await Wiretap().ask(pieces)

    check(row, asyncio.run(ask()), followed=True)


# ── h11, which reads the RFCs as strictly as any ─────────────────────────────────────────────


def h11_takes(raw: bytes) -> bool:
    """Whether h11 makes requests of all of it and finds nothing to refuse."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(raw)
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                return connection.their_state is h11.IDLE and not connection.trailing_data[0].strip(b"\r\n")
            if isinstance(event, h11.EndOfMessage):
                connection.send(h11.Response(status_code=404, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is h11.MUST_CLOSE:
                    return True
                connection.start_next_cycle()
    except h11.RemoteProtocolError:
        return False


#: Why we take what h11 refuses: the beginning of "section: name", and the reason.
ONLY_WE_TAKE = {
    "9112-2.2 empty lines": "RFC 9112 section 2.2: a server should ignore empty lines before a request",
    "9112-7.1.1 extensions: whitespace": "RFC 9112 section 7.1.1: bad whitespace is to be parsed",
}
#: Why we refuse what h11 takes.
ONLY_H11_TAKES = {
    "9112-2.2 line ends": "h11 takes a bare LF, as RFC 9112 section 2.2 allows; it is a way to smuggle",
    "9110-9.1 methods: CONNECT": "h11 leaves the method to its user",
    "9110-9.1 methods: 1025 bytes": "h11 leaves the method to its user",
    "9110-9.1 methods: 8180 bytes": "h11 leaves the method to its user",
    "9110-9.1 methods: 100 KB": "h11 leaves the method to its user",
    "9112-2.3 versions": "h11 leaves the version to its user",
    "9112-3.2 targets": "h11 leaves the target to its user, and its length",
    "9110-7.2 Host": "h11 leaves the value of Host to its user",
    "9112-5 fields: folded": "h11 unfolds, as RFC 9112 section 5.2 allows",
    "9112-5 fields: b' A: b'": "h11 takes it for a fold of Host",
    "9112-5 fields: b'\\tA: b'": "h11 takes it for a fold of Host",
    "9112-5 fields: 101 fields": "limit_request_fields",
    "9112-5 fields: larger": "limit_request_field_size",
    "9110-5.5 values: 0x": "h11 follows RFC 9110 section 5.5, which only forbids CR, LF and NUL outright",
    "9112-6.2 Content-Length: b'1": "h11 joins equal lengths, as RFC 9110 section 8.6 allows",
    "9112-6.1 Transfer-Encoding: b'chunked\\t'": "llhttp does not know a tab behind this one; no client sends it",
    "9112-6.1 Transfer-Encoding: before": "h11 ignores the length; RFC 9112 section 6.1 allows to refuse",
    "9112-6.1 Transfer-Encoding: behind": "h11 ignores the length; RFC 9112 section 6.1 allows to refuse",
    "9112-6.1 Transfer-Encoding: in 1.0": "RFC 9112 section 6.1: a server must take it for faulty framing",
    "9112-7.1 chunks": "whitespace behind a size, more than 16 digits, and a bare LF at the end",
    "9112-7.1.1 extensions": "h11 looks at nothing but the end of the line",
    "9112-7.1.2 trailers": "folds, bare LF, control characters, fields that would be framing, our limits",
    "9110-10.1.1 Expect": "h11 leaves expectations to its user",
    "9112-9 connections: good and a bad version": "h11 leaves the version to its user",
    "9112-2.3 versions: 1.0 with malformed Host": "h11 leaves the value of Host to its user",
}


def differs(row: Row) -> dict[str, str] | None:
    """The list that has to have the reason, or None where we and h11 agree."""
    ours = not isinstance(row.wanted, int) and not row.wanted[-1].isdigit()
    return None if ours == h11_takes(row.raw) else ONLY_WE_TAKE if ours else ONLY_H11_TAKES


def test_h11_agrees() -> None:
    """Or the difference is listed, with its reason."""
    different = [(ids(row), reasons) for row in ROWS if (reasons := differs(row)) is not None]
    unlisted = [name for name, reasons in different if not any(map(name.startswith, reasons))]
    assert unlisted == []


def test_each_listed_difference_is_one() -> None:
    different = [(ids(row), reasons) for row in ROWS if (reasons := differs(row)) is not None]
    for reasons in (ONLY_WE_TAKE, ONLY_H11_TAKES):
        for beginning in reasons:
            assert any(name.startswith(beginning) and listed is reasons for name, listed in different), beginning

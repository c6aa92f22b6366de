"""The access log of a worker: left-out paths, the second's time, and texts that no line may hold."""

import asyncio
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aserver.log.access.recorder import AccessLog
from aserver.log.descriptor import PIPE_LIMIT
from aserver.log.opening import open_private
from aserver.log.setup import Lines, Logging
from tests.unit.log.starting import Settings, Start


def make_answer(target: bytes) -> Any:
    return SimpleNamespace(
        client=None, method="GET", target=target, version="1.1", status=200, sent=0, headers=[], response_headers=[],
        duration=0.0, request_id=None, scope=None, connection=None,
    )  # fmt: skip


def lines_of(logs: Logging) -> Lines:
    assert logs.lines is not None
    return logs.lines


def test_excluded_paths_leave_no_line(start: Start, tmp_path: Path) -> None:
    access = AccessLog(
        Settings(access_log_format="%(U)s", access_log_exclude=("/healthz", "/static/")), lines_of(start())
    ).write
    for target in (b"/", b"/healthz?x", b"/static/a.css", b"/static", b""):
        access(make_answer(target))
    assert (tmp_path / "access.log").read_bytes() == b"/\n/static\n\n"


def test_the_time_is_renewed_each_second(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monotonic, wall = 50.0, 1_800_000_000_250_000_000
    monkeypatch.setattr("aserver.log.access.recorder.monotonic", lambda: monotonic)
    monkeypatch.setattr("time.time_ns", lambda: wall)
    access = AccessLog(Settings(access_log_format="%(t)s"), lines_of(start())).write
    for step in (0.0, 0.5, 0.2499, 0.0002, 0.9):
        monotonic += step
        wall += round(step * 1e9)
        access(make_answer(b"/"))
    monkeypatch.undo()
    seconds = [line.split()[0].rsplit(b":")[-1] for line in (tmp_path / "access.log").read_bytes().splitlines()]
    assert seconds == [b"00", b"00", b"00", b"01", b"01"]


class Unprintable:
    """What an application may leave in its scope, where a format looks for it."""

    def __str__(self) -> str:
        raise AttributeError("none")


def test_what_an_application_left_in_its_scope_costs_at_most_its_own_line(start: Start, tmp_path: Path) -> None:
    """Fails where the lines of a tick are made together only, and with `%(r)s` of the scope in place of the record."""
    access = AccessLog(Settings(access_log_format="%(r)s %({user}e)s"), lines_of(start())).write
    for target, scope in ((b"/1", {"user": "eve"}), (b"/2", {"user": Unprintable()}), (b"/3", {}), (b"/4", None)):
        answer = make_answer(target)
        answer.scope = scope
        access(answer)
    assert (tmp_path / "access.log").read_text().splitlines() == [
        "GET /1 HTTP/1.1 eve",
        "GET /3 HTTP/1.1 -",
        "GET /4 HTTP/1.1 -",
    ]
    assert (tmp_path / "error.log").read_text().count("/2: no access line") == 1


def test_a_line_too_long_for_a_pipe_is_shortened_not_cut(start: Start) -> None:
    logs = start()
    loop = asyncio.new_event_loop()
    logs.set_process("worker 1/g1", loop)  # so that the three lines wait for its turn
    reader, writer = os.pipe()
    logs.replace(None, open_private(writer))
    lines = lines_of(logs)
    access = AccessLog(Settings(access_log_format="json"), lines)
    broken = make_answer(b"/broken")
    broken.client = 7
    for answer in (broken, make_answer(b"/" + b"x" * 8000), broken):
        access.write(answer)
    assert len(lines.batch) == 3
    logs.set_process("worker 1/g1")
    loop.close()
    line = os.read(reader, 1 << 16)
    os.close(reader)
    os.close(writer)
    assert len(line) <= PIPE_LIMIT
    assert json.loads(line)["status"] == 200

"""Commands that call a program of others, and what they say without it."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from aserver.command import instances, operate
from aserver.errors import AserverError, ConfigError

FAKE = """#!/bin/sh
echo "$@" > {seen}
[ {code} = 0 ] || echo "no right to trace" >&2
exit {code}
"""


class Answers(instances.Line):
    """A server with one worker that serves and one that boots."""

    def __init__(self, _path: str) -> None:
        pass

    def ask(self, command: str, **_more: object) -> dict[str, object]:
        workers = [{"slot": 1, "pid": 4711, "phase": "ready"}, {"slot": 2, "pid": None, "phase": "booting"}]
        return {command: {"workers": workers}}

    def close(self) -> None:
        pass


def profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *arguments: str, code: int | None = 0) -> str:
    if code is not None:
        program = tmp_path / "py-spy"
        program.write_text(FAKE.format(seen=tmp_path / "seen", code=code))
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(instances, "Line", Answers)
    result = CliRunner().invoke(operate.profile, ["--control", "x", *arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.output


def test_a_profile_is_py_spys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of the process that serves in that slot. Fails with another pid, or without the format."""
    said = profile(monkeypatch, tmp_path, "1", "--seconds", "3", "-o", "f.json", "--speedscope")
    assert (tmp_path / "seen").read_text().split() == (
        ["record", "--pid", "4711", "--duration", "3", "--format", "speedscope", "--output", "f.json"]
    )
    assert said == "f.json: 3 s of worker 1\n"


def test_a_profile_that_cannot_be_made_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Fails with a traceback of ours."""
    with pytest.raises(ConfigError, match=r"pip install 'aserver-asgi\[profile\]'"):
        profile(monkeypatch, tmp_path, "1", code=None)
    with pytest.raises(AserverError, match="no right to trace"):
        profile(monkeypatch, tmp_path, "1", code=1)
    with pytest.raises(AserverError, match="no worker of slot 2 serves"):
        profile(monkeypatch, tmp_path, "2")


def test_a_profile_of_a_worker_that_only_waits_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """py-spy records no thread that waits, and then has nothing to draw. Fails with its own error and its stack."""
    monkeypatch.setitem(globals(), "FAKE", FAKE.replace("no right to trace", "Error: No stack counts found"))
    with pytest.raises(AserverError, match=r"worker 1 \(pid 4711\) only waited for 10 s; watch it while it works"):
        profile(monkeypatch, tmp_path, "1", code=1)


def test_top_is_for_a_terminal() -> None:
    """Fails without the look at the streams: termios raises an error of its own."""
    result = CliRunner().invoke(operate.top, ["--control", "x"], standalone_mode=False)
    assert isinstance(result.exception, ConfigError)

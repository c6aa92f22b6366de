"""The real server's access log: what a client can do to it, what its atoms say, and how a bad format is refused."""

import base64
import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from aserver.errors import ExitCode
from tests.harness import PATIENCE, ServerProcess

pytestmark = pytest.mark.process

APP = "tests.apps.raw:app"
Start = Callable[..., ServerProcess]

FORGERIES = [
    b'" 200 0 "-" "-"',
    b"\\x0a",
    b"\xff\xfe\xc3\x28",
    b"\xe2\x80\xa8",
    b"a\tb",
    b"\x1b[2J",
    b"\x7f",
    b'{"status":200}',
    b"%s%(h)s%",
    b"\x85",
]
EVERYTHING = '%(h)s %(u)s "%(r)s" %(s)s "%(f)s" "%(a)s" "%({x-forged}i)s" "%(U)s" "%(q)s" "%({http_x_forged}e)s"'


@pytest.mark.parametrize("name", ["combined", "common", "json", pytest.param(EVERYTHING, id="atoms")])
def test_no_client_can_forge_a_line(server: Start, tmp_path: Path, name: str) -> None:
    path = tmp_path / "access.log"
    running = server(APP, "--accesslog", str(path), "--access-log-format", name)
    asked = 0
    for bad in FORGERIES:
        for field in (b"User-Agent", b"Referer", b"X-Forged", b"Authorization", b"target"):
            value = b"Basic " + base64.b64encode(bad + b":x") if field == b"Authorization" else bad
            target, line = (b"/" + bad, b"") if field == b"target" else (b"/", b"%b: %b\r\n" % (field, value))
            with running.connect() as client:
                # Refused or answered: each leaves one line.
                client.send(b"GET %b HTTP/1.1\r\nHost: x\r\n%bConnection: close\r\n\r\n" % (target, line))
                client.read_response()
                client.read_to_end()
            asked += 1
    assert running.stop() == ExitCode.OK
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert len(lines) == asked
    assert all(line.decode("ascii").isprintable() for line in lines)
    for line in lines:
        if name == "json":
            assert json.loads(line)["status"] in (200, 400, 404)
        else:
            assert line.count(b'"') == {"combined": 6, "common": 2}.get(name, EVERYTHING.count('"'))


def test_atoms_say_what_the_client_saw(server: Start, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    text = "%(m)s %(U)s %(q)s %(s)s %(B)s %(D)s %(M)s %(L)s %(T)s %(p)s %({content-type}o)s"
    running = server(APP, "--accesslog", str(path), "--access-log-format", text)
    with running.connect() as client:
        answers = [
            client.request("/slow?0.3"),
            client.request("/json"),
            client.request("/download"),
            client.request("/stream"),
            client.request("/nowhere"),
            client.request("/json", method="HEAD"),
        ]
        pid = client.request("/pid").text
    running.wait_for(lambda: path.read_text().count("\n") == 7, what="seven lines")
    lines = [line.split(" ") for line in path.read_text().splitlines()]
    for line, answer in zip(lines, answers, strict=False):
        method, sent = line[0], int(line[4])
        assert int(line[3]) == answer.status
        assert sent == len(answer.body) or method == "HEAD"
        micro, milli, seconds, whole = int(line[5]), int(line[6]), float(line[7]), int(line[8])
        assert milli == micro // 1000
        assert whole == micro // 1_000_000
        assert abs(round(seconds * 1e6) - micro) <= 1  # one is rounded, the other cut
        assert line[9] == f"<{pid}>"
    assert lines[0][1:3] == ["/slow", "0.3"]
    # The app slept by the clock of the loop, which has milliseconds and is as old as its turn.
    assert 200_000 <= int(lines[0][5]) < PATIENCE * 1e6
    # uvloop's clock has milliseconds: all of these would be multiples of a thousand.
    assert any(int(line[5]) % 1000 for line in lines)
    assert running.stop() == ExitCode.OK


def test_excluded_and_off(server: Start, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    options = ["--accesslog", str(path), "--access-log-format", "%(U)s"]
    running = server(APP, *options, "--access-log-exclude", "/json", "--access-log-exclude", "/pid")
    for target in ("/json", "/", "/pid?x", "/state"):
        running.fetch(target)
    assert running.stop() == ExitCode.OK
    assert path.read_text() == "/\n/state\n"
    silent = server(APP, "--no-access-log")
    silent.fetch("/")
    assert silent.stop() == ExitCode.OK
    assert "GET" not in silent.log


@pytest.mark.parametrize(("text", "message"), [("%(x)s", "there is no atom %(x)s"), ("%(h)d", "must end in `s`")])
def test_a_bad_format_is_refused_at_the_start(text: str, message: str) -> None:
    command = [*ServerProcess.command(APP), "--bind", "127.0.0.1:0", "--access-log-format", text]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == ExitCode.CONFIG
    assert "access_log_format" in done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_format_is_refused_at_a_reload(server: Start, tmp_path: Path) -> None:
    settings = tmp_path / "aserver.toml"
    settings.write_text('access_log_format = "before %(s)s"\n')
    running = server(APP, "--config", str(settings))
    running.fetch("/")
    settings.write_text('access_log_format = "after %(nonsense)s"\n')
    running.signal(signal.SIGHUP)
    running.wait_log(r"reload \(SIGHUP\) refused, everything stays as it is: .*access_log_format.*%\(nonsense\)s")
    running.fetch("/")
    running.wait_log(r"^before 200$", count=2)
    settings.write_text('access_log_format = "after %(s)s"\n')
    running.signal(signal.SIGHUP)
    running.wait_log("worker 1 .* has left")
    running.fetch("/")
    running.wait_log(r"^after 200$")
    assert running.stop() == ExitCode.OK
    assert len(re.findall("^before 200$", running.log, re.MULTILINE)) == 2

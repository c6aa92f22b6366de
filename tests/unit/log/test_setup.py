"""The loggers of a process: how records look, who else is left alone, and the standard streams."""

import io
import json
import logging
import os
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from aserver.errors import ConfigError
from aserver.log.descriptor import PIPE_LIMIT
from aserver.log.opening import open_log, open_private
from aserver.log.setup import LineHandler, configure
from aserver.log.sink import Sink
from tests.harness import wait_for
from tests.unit.log.lines import add_line
from tests.unit.log.starting import Settings, Start

log = logging.getLogger("aserver.error")


def fail(depth: int) -> None:
    if depth:
        fail_again(depth)
    raise ValueError("the end of it")


def fail_again(depth: int) -> None:
    fail(depth - 1)


# ── text ─────────────────────────────────────────────────────────────────────────────────────


def test_text_on_a_pipe(start: Start) -> None:
    reader, writer = os.pipe()
    start(open_private(writer))
    log.info("listening on %s", "http://127.0.0.1:8000")
    log.warning("careful")
    got = os.read(reader, 4096).decode()
    os.close(reader)
    os.close(writer)
    first, second = got.splitlines()
    stamp = r"\d\d:\d\d:\d\d\.\d{3} worker 1/g3 "
    assert re.fullmatch(stamp + rf"\[{os.getpid()}\] INFO  listening on http://127\.0\.0\.1:8000", first)
    assert re.fullmatch(stamp + rf"\[{os.getpid()}\] WARN  careful", second)


def test_text_in_a_file_has_the_date_and_other_processes_are_aligned(start: Start, tmp_path: Path) -> None:
    logs = start(process="master")
    log.info("one")
    logs.set_process("zygote g3")
    log.error("two")
    for line in (tmp_path / "error.log").read_text().splitlines():
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (master     |zygote g3  ) \[\d+\] (INFO |ERROR) ", line)


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colour_only_on_a_terminal_that_wants_it(environ: dict[str, str], coloured: bool) -> None:
    master, slave = os.openpty()
    logs = configure(Settings(), process="master", error_fd=open_private(slave), environ=environ)
    log.error("red")
    got = os.read(master, 4096)
    logs.close()
    logging.getLogger("aserver").propagate = True  # pytest has a handler of its own for loggers without
    os.close(master)
    os.close(slave)
    assert (b"\x1b[31mERROR\x1b[0m" in got) is coloured
    assert (b"\x1b" in got) is coloured


def test_a_traceback_is_one_record_whose_further_lines_are_indented(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[bytes] = []
    logs = start()
    write = logs.error.write

    def noted(record: bytes) -> None:
        writes.append(record)
        write(record)

    monkeypatch.setattr(logs.error, "write", noted)
    try:
        fail(0)
    except ValueError:
        log.exception("GET /: the application raised")
    [record] = writes
    first, *more = record.decode().splitlines()
    assert first.endswith("GET /: the application raised")
    assert more[0] == "    Traceback (most recent call last):"
    assert more[-1] == "    ValueError: the end of it"
    assert all(line.startswith("    ") for line in more)


def test_a_long_traceback_goes_through_a_pipe_whole(start: Start) -> None:
    """Pieces of whole lines, each with the process's name; nothing is cut that is shorter than a piece."""
    reader, writer = os.pipe()
    start(open_private(writer))
    try:
        fail(100)
    except ValueError:
        log.exception("deep", extra={"request_id": "r-1"})
    got = os.read(reader, 1 << 16).decode()
    os.close(reader)
    os.close(writer)
    assert "deep [request r-1]\n" in got
    assert got.count("(continued)") >= 1
    assert all(
        f"worker 1/g3 [{os.getpid()}] ERROR (continued)" in line for line in got.splitlines() if "continued" in line
    )
    assert got.endswith("    ValueError: the end of it\n")


def test_a_message_whose_arguments_do_not_fit_is_logged_all_the_same(start: Start, tmp_path: Path) -> None:
    start()
    log.error("%d things", "many")
    assert "'%d things' (TypeError while its arguments were put in)" in (tmp_path / "error.log").read_text()


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────


def test_json_has_the_documented_fields(start: Start, tmp_path: Path) -> None:
    start(log_format="json")
    try:
        fail(0)
    except ValueError:
        log.exception("trouble\n\udc80", extra={"request_id": "r-1"})
    [line] = (tmp_path / "error.log").read_bytes().splitlines()
    fields = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", fields.pop("time"))
    details = fields.pop("traceback")
    assert details.startswith("Traceback (most recent call last):\n")
    assert details.endswith("ValueError: the end of it")
    assert fields == {
        "level": "error",
        "process": "worker 1/g3",
        "pid": os.getpid(),
        "logger": "aserver.error",
        "message": "trouble\n\udc80",
        "request_id": "r-1",
    }


def test_a_long_traceback_in_json_comes_in_numbered_parts(start: Start) -> None:
    reader, writer = os.pipe()
    start(open_private(writer), log_format="json")
    expected = ""
    try:
        fail(100)
    except ValueError as error:
        expected = "".join(traceback.format_exception(error)).rstrip()
        log.exception("deep")
    lines = os.read(reader, 1 << 16).splitlines()
    os.close(reader)
    os.close(writer)
    assert all(len(line) < PIPE_LIMIT for line in lines)
    parts = [json.loads(line) for line in lines]
    assert [part["part"] for part in parts] == list(range(1, len(parts) + 1))
    assert {part["parts"] for part in parts} == {len(parts)}
    assert {part["message"] for part in parts} == {"deep"}
    assert "\n".join(part["traceback"] for part in parts) == expected


# ── no input makes a second record ───────────────────────────────────────────────────────────


# ── the loggers ──────────────────────────────────────────────────────────────────────────────


def test_trap_82_the_handler_keeps_a_real_lock(start: Start) -> None:
    start()
    [handler] = logging.getLogger("aserver").handlers
    assert isinstance(handler, LineHandler)
    assert handler.lock is not None
    with handler.lock:
        log.info("re-entered by the same thread")


def test_levels(start: Start, tmp_path: Path) -> None:
    start(loglevel="warning")
    log.info("quiet")
    log.warning("loud")
    text = (tmp_path / "error.log").read_text()
    assert "quiet" not in text
    assert "loud" in text


def test_the_apps_loggers_are_left_alone(start: Start, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    before = (list(logging.root.handlers), logging.root.level)
    start()
    start()
    assert (list(logging.root.handlers), logging.root.level) == before
    assert len(logging.getLogger("aserver").handlers) == 1
    logging.getLogger("app").warning("mine")
    log.warning("ours")
    assert [record.name for record in caplog.records] == ["app"]
    assert "mine" not in (tmp_path / "error.log").read_text()


@pytest.fixture
def bare_root(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it in the test: as in a server, pytest's handlers, which it adds as late, are not at the root."""
    return lambda: monkeypatch.setattr(logging.root, "handlers", [])


@pytest.mark.parametrize("name", ["uvicorn", "uvicorn.error", "gunicorn.error", "hypercorn.error"])
def test_loggers_of_other_servers_lead_into_the_error_log(
    start: Start, tmp_path: Path, bare_root: Callable[[], None], name: str
) -> None:
    """FastAPI applications write to them. Fails without `serve_others`, and without its level."""
    bare_root()
    logs = start()
    logs.serve_others()
    logs.serve_others()
    theirs = logging.getLogger(name)
    theirs.info("into the error log")
    theirs.debug("below the level")
    assert (tmp_path / "error.log").read_text().count("into the error log\n") == 1
    assert "below" not in (tmp_path / "error.log").read_text()
    logs.close()
    assert theirs.handlers == []
    assert theirs.level == logging.NOTSET


def test_an_application_may_copy_the_handlers_of_another_server(
    start: Start, tmp_path: Path, bare_root: Callable[[], None]
) -> None:
    """As Flask's documentation of gunicorn says. Fails with the handler at `gunicorn` instead."""
    bare_root()
    start().serve_others()
    theirs, own = logging.getLogger("gunicorn.error"), logging.getLogger("some_app")
    own.handlers = theirs.handlers.copy()
    own.setLevel(theirs.level)
    own.info("by way of gunicorn's")
    own.handlers = []
    own.setLevel(logging.NOTSET)
    assert "by way of gunicorn's\n" in (tmp_path / "error.log").read_text()


@pytest.mark.parametrize("where", ["", "uvicorn", "uvicorn.error"])
def test_loggers_that_the_application_configures_are_its_own(
    start: Start, tmp_path: Path, bare_root: Callable[[], None], where: str
) -> None:
    """Whether before or after: a record is told once. Fails without the look in BorrowedHandler.emit."""
    bare_root()
    start().serve_others()
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    configured = logging.getLogger(where)
    configured.addHandler(handler)
    logging.getLogger("uvicorn.error").warning("the application's")
    configured.removeHandler(handler)
    assert stream.getvalue() == "the application's\n"
    assert "the application's" not in (tmp_path / "error.log").read_text()


def test_log_config_says_itself_where_others_go(start: Start, tmp_path: Path) -> None:
    """Fails with handlers that are added all the same."""
    config = tmp_path / "log.json"
    config.write_text("{}")
    start(log_config=str(config)).serve_others()
    assert logging.getLogger("uvicorn").handlers == []


def test_reopening(start: Start, tmp_path: Path) -> None:
    logs = start()
    log.info("one")
    for name in ("error", "access"):
        (tmp_path / f"{name}.log").rename(tmp_path / f"{name}.log.1")
    logs.replace(
        open_log(str(tmp_path / "error.log"), which="error"), open_log(str(tmp_path / "access.log"), which="access")
    )
    log.info("two")
    assert logs.access is not None
    add_line(logs.access, "line\n")
    assert "one" in (tmp_path / "error.log.1").read_text()
    assert "two" in (tmp_path / "error.log").read_text()
    assert (tmp_path / "access.log").read_bytes() == b"line\n"


def test_losses_of_the_access_log_are_told_in_the_error_log(start: Start, tmp_path: Path) -> None:
    logs = start()
    reader, writer = os.pipe()
    logs.replace(None, open_private(writer))
    assert logs.access is not None
    logs.access.bound = 1000
    for _ in range(2000):
        add_line(logs.access, "x" * 99 + "\n")
    got = len(os.read(reader, 1 << 20))
    add_line(logs.access, "back\n")
    os.close(reader)
    os.close(writer)
    lost = 2000 - got // 100 - 10
    assert f" WARN  access log: {lost} lines were lost in " in (tmp_path / "error.log").read_text()


def test_lines_that_nobody_has_read_at_the_end_are_told(start: Start, tmp_path: Path) -> None:
    """239,074 of 239,153 lines were lost so, and no record said it. Fails with Sink.close's answer ignored."""
    logs = start()
    reader, writer = os.pipe()
    logs.replace(None, open_private(writer))
    assert logs.access is not None
    logs.access.bound = 1000
    for _ in range(2000):
        add_line(logs.access, "x" * 99 + "\n")
    os.close(writer)
    logs.close(0.01)
    with open(reader, "rb") as pipe:
        got = pipe.read().count(b"\n")
    assert 0 < got < 1000
    told = f" WARN  access log: {2000 - got} lines are lost as this process ends (its reader does not read)\n"
    assert told in (tmp_path / "error.log").read_text()


def test_records_that_nobody_has_read_at_the_end_are_told_on_standard_error(
    start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    """Fails without `_tell_standard_error` in Logging.close."""
    reader, writer = os.pipe()
    logs = start(open_private(writer))
    for _ in range(100):
        log.error("x" * 3900)
    os.close(writer)
    logs.close(0.01)
    with open(reader, "rb") as pipe:
        got = pipe.read().count(b"\n")
    assert 0 < got < 100
    assert f"error log: {100 - got} lines are lost as this process ends" in capfd.readouterr().err


def test_trouble_with_the_error_log_is_told_on_standard_error(
    start: Start, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    start(open_private(writer))
    os.close(reader)
    log.error("lost")
    log.error("lost")
    os.close(writer)
    told = capfd.readouterr().err
    assert told.count("cannot write the error log: Broken pipe") == 1


# ── log_config ───────────────────────────────────────────────────────────────────────────────


def test_log_config_replaces_ours(start: Start, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.log"
    config = tmp_path / "log.toml"
    config.write_text(f"""
        [formatters.short]
        format = "%(name)s: %(message)s"
        [handlers.file]
        class = "logging.FileHandler"
        formatter = "short"
        filename = {json.dumps(str(theirs))}
        [loggers."aserver"]
        handlers = ["file"]
        propagate = false
        [loggers."aserver.access"]
        level = "INFO"
    """)
    logs = start(log_config=str(config))
    log.info("hello")
    assert logs.lines is not None
    logs.lines.make = lambda records: [f"a line {record.status} 100%\n" for record in records]
    logs.lines.batch.append(SimpleNamespace(client=None, method="GET", target=b"/", version="1.1", status=200))
    logs.lines.flush()
    for handler in list(logging.getLogger("aserver").handlers):
        logging.getLogger("aserver").removeHandler(handler)
        handler.close()
    assert theirs.read_text() == "aserver.error: hello\naserver.access: a line 200 100%\n"
    assert (tmp_path / "error.log").read_text() == (tmp_path / "access.log").read_text() == ""


@pytest.mark.parametrize("suffix", ["toml", "ini"])
def test_level_and_propagate_of_a_log_config_stay(start: Start, tmp_path: Path, suffix: str) -> None:
    """`loglevel` is for a file that does not name our logger. Fails with both set anyway: each line is there twice."""
    text = '[loggers."gunicorn.error"]\nlevel = "DEBUG"\npropagate = false\n'
    if suffix == "ini":
        text = (
            "[loggers]\nkeys=root,error\n[handlers]\nkeys=\n[formatters]\nkeys=\n[logger_root]\nhandlers=\n"
            "[logger_error]\nqualname=gunicorn.error\nlevel=DEBUG\npropagate=0\nhandlers=\n"
        )
    config = tmp_path / f"log.{suffix}"
    config.write_text(text)
    start(log_config=str(config), loglevel="error")
    ours = logging.getLogger("aserver")
    assert (ours.level, ours.propagate) == (logging.DEBUG, False)
    config.write_text('[loggers."gunicorn.error"]\n' if suffix == "toml" else text.replace("level=DEBUG\n", ""))
    start(log_config=str(config), loglevel="error")
    assert ours.level == logging.ERROR


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("log.json", "{", "cannot be read as JSON"),
        ("log.toml", "=", "cannot be read as TOML"),
        ("log.json", "[]", "must be an object"),
        ("log.json", '{"handlers": {"x": {"class": "no.such.Handler"}}}', "Unable to configure handler 'x'"),
        ("missing.json", None, "missing.json: cannot be read: No such file or directory"),
    ],
)
def test_what_is_wrong_with_a_log_config(
    start: Start, tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        start(log_config=str(tmp_path / name))
    assert str(caught.value).count(str(tmp_path / name)) == 1


# ── the access log ───────────────────────────────────────────────────────────────────────────


# ── the standard streams ─────────────────────────────────────────────────────────────────────


def test_a_sink_for_standard_error_is_not_needed_where_it_is_the_error_log(start: Start) -> None:
    logs = start(open_log("-", which="error"))
    assert logs.last_resort is None


def test_a_process_waits_for_nothing_when_it_is_told_to_close(start: Start, tmp_path: Path) -> None:
    logs = start()
    assert isinstance(logs.error, Sink)
    log.info("last words")
    logs.close()
    log.info("too late")
    wait_for(lambda: "last words" in (tmp_path / "error.log").read_text())

"""gunicorn's options, as `aserver migrate` reads them, and its files. Each docstring says how it was seen to fail."""

import json
import tomllib
from pathlib import Path

import pytest

from tests.unit.command.migrating import Migrate
from tests.unit.config.starts import run_gunicorn_file


@pytest.mark.parametrize(
    ("words", "made", "said"),
    [
        ("gunicorn a:b --http-protocols h2,h1", {"http2": True}, ""),
        ("gunicorn -k sync -t 9 a:b", {"hang_timeout": "9s", "request_timeout": "9s", "threads": 1}, "threads = 1"),
        ("gunicorn -t 9 a:b", {"hang_timeout": "9s", "request_timeout": "9s"}, "--request-timeout 0"),
        ("gunicorn -k gthread -t 9 a:b", {"hang_timeout": "9s"}, ""),
        ("uv run gunicorn -k gevent a:b", {"target": "a:b"}, "gevent has no equal"),
        ("gunicorn --pythonpath lib a:b", {"app_dir": "lib,."}, ""),
    ],
)
def test_options_and_what_changes(migrate: Migrate, words: str, made: dict[str, object], said: str) -> None:
    """A line for each thing. Fails without the row of the option."""
    outcome = migrate("--", *words.split())
    assert outcome.status == 0, outcome.err
    assert tomllib.loads(outcome.out).items() >= made.items()
    assert said in outcome.err


@pytest.mark.parametrize(
    ("text", "threads", "limit"),
    [
        ("worker_class = 'sync'", 1, 0.0),
        ("worker_class = 'sync'\ntimeout = 7", 1, 7.0),
        ("worker_class = 'sync'\nthreads = 3\ntimeout = 7", 3, 0.0),
        ("timeout = 7", 10, 7.0),
        ("timeout = 0", 10, 0.0),
        ("worker_class = 'gthread'\nthreads = 4\ntimeout = 7", 4, 0.0),
        ("worker_class = 'uvicorn_worker.UvicornWorker'\ntimeout = 7", 10, 0.0),
    ],
)
def test_a_sync_worker_has_one_thread_and_its_timeout_is_each_requests(
    tmp_path: Path, text: str, threads: int, limit: float
) -> None:
    """Only a sync worker is killed in a request that takes too long. Fails without `request_timeout` in `_timeout`."""
    config = run_gunicorn_file(tmp_path, text).config
    assert (config.threads, config.request_timeout) == (threads, limit)
    assert config.hang_timeout == (0.0 if text == "timeout = 0" else 7.0 if "timeout" in text else 30.0)


@pytest.mark.parametrize(
    ("text", "said"), [("workers = 2", True), ("threads = 2", False), ("worker_class = 'gthread'", False)]
)
def test_threads_are_told_where_gunicorn_would_have_one(tmp_path: Path, text: str, said: bool) -> None:
    """Fails without `_implied`: an application that is not safe in threads breaks without a word."""
    resolved = run_gunicorn_file(tmp_path, text)
    assert any("one request at a time" in each for each in resolved.notes) == said


def test_an_atom_that_there_is_not_is_a_hyphen(tmp_path: Path) -> None:
    """gunicorn writes one in silence. Fails without `_access_format`: the server refuses the format."""
    resolved = run_gunicorn_file(tmp_path, "access_log_format = '%(h)s %(X)s %({a}o)s %(xx)s %%'")
    assert resolved.config.access_log_format == "%(h)s - %({a}o)s - %%"
    assert "gunicorn.conf.py line 1, access_log_format: there is no atom %(X)s %(xx)s" in resolved.warnings[0]


def test_a_hook_is_no_suggestion_for_a_value(tmp_path: Path) -> None:
    """Fails with hooks among the known names: worker_tmp_dir or worker_int or worker_exit."""
    (warning,) = run_gunicorn_file(tmp_path, "worker_tmp = '/dev/shm'").warnings
    assert warning.endswith("did you mean worker_tmp_dir?")


def test_a_logconfig_dict_stands_over_gunicorns_defaults(tmp_path: Path) -> None:
    """Handlers that only gunicorn defines, and objects in it. Fails without _LOG_DEFAULTS, and with str(sys.stdout)."""
    text = (
        "import logging, sys\n"
        "logconfig_dict = {'loggers': {'gunicorn.access': {'handlers': ['mine']}}, 'handlers': {'mine': {\n"
        "    'class': logging.StreamHandler, 'stream': sys.stdout}}}\n"
    )
    config = json.loads(run_gunicorn_file(tmp_path, text).config.log_config or "")
    assert config["handlers"] == {"mine": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}}
    assert "generic" in config["formatters"]

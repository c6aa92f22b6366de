"""gunicorn's configuration files, flags and variables as settings here. Each docstring says how it was seen to fail."""

from pathlib import Path

import pytest

from aserver.config.layers import load
from aserver.errors import ConfigError
from tests.unit.config.starts import run_gunicorn_file, write


def test_a_file_with_all_that_gunicorn_takes(tmp_path: Path) -> None:
    """Fails without the table: `worker_class`, `threads`, `worker_tmp_dir`, `raw_env` as text are errors."""
    resolved = run_gunicorn_file(
        tmp_path,
        "import multiprocessing, os\n"
        "from os import environ\n"
        "bind = [':8001', 'unix:app.sock']\n"
        "cores = multiprocessing.cpu_count()\n"
        "workers = max(2, min(cores, 2))\n"
        "worker_class = 'uvicorn.workers.UvicornWorker'\n"
        "worker_tmp_dir = '/dev/shm'\n"
        "threads = 4\n"
        "user = group = tmp_upload_dir = proc_name = None\n"
        "raw_env = 'A=1,B=2'\n"
        "wsgi_app = 'shop:make_app()'\n"
        "accesslog = None\n"
        "keepalive = 5\n"
        "limit_request_line = 0\n"
        "logconfig_dict = {'version': 1, 'loggers': {'gunicorn.error': {'level': 'DEBUG'}}}\n"
        "def on_starting(server): server.log.info('hello')\n",
    )
    config = resolved.config
    assert config.bind == ("0.0.0.0:8001", "unix:./app.sock")
    assert (config.workers, config.env, config.target, config.factory) == (2, ("A=1", "B=2"), "shop:make_app", True)
    assert (config.accesslog, config.keep_alive, config.limit_request_line) == (None, 5.0, 65536)
    assert config.log_config is not None
    assert config.log_config.startswith("{")
    assert resolved.hooks == ("on_starting",)
    assert config.config == str(tmp_path / "gunicorn.conf.py")
    assert resolved.origins["keep_alive"] == "gunicorn.conf.py line 13, keepalive"
    assert f"gunicorn.conf.py was found in {tmp_path} and is read, as gunicorn does" in resolved.notes
    assert any("worker_class: uvicorn.workers.UvicornWorker is not needed" in note for note in resolved.notes)
    assert any("worker_tmp_dir: workers' heartbeats are in memory" in note for note in resolved.notes)
    warned = "\n".join(resolved.warnings)
    assert config.threads == 4
    assert "limit_request_line is 65536 here" in warned
    assert len(resolved.warnings) == 1, resolved.warnings


def test_everything_that_is_wrong_is_said_at_once_with_its_line(tmp_path: Path) -> None:
    """Fails with the first ConfigError out of `build`: a run for each mistake."""
    with pytest.raises(ConfigError) as caught:
        run_gunicorn_file(
            tmp_path,
            "workers = 'many'\n\nkeepalive = 'long'\nbind = 'a:b:c'\nloglevel = object()\ncertfile = 'x'\n"
            "timeout = 3\nhang_timeout = 4\n",
        )
    said = str(caught.value).splitlines()
    assert said[0] == "6 settings are wrong:"
    for place in (
        "workers = 'many' (gunicorn.conf.py line 1)",
        "keep_alive = 'long' (gunicorn.conf.py line 3, keepalive)",
        "bind = 'a:b:c' (gunicorn.conf.py line 4)",
        "loglevel (gunicorn.conf.py line 5) is of type object",
        "certfile (gunicorn.conf.py line 6): is set, but keyfile is not",
        "hang_timeout is set twice (gunicorn.conf.py line 8): as timeout and hang_timeout",
    ):
        assert sum(place in line for line in said) == 1, (place, said)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("work_class = 'sync'", "work_class (gunicorn.conf.py line 1) is no setting and is not used, as in gunicorn"),
        ("limit_request_fields_size = 8190", "did you mean limit_request_field_size"),
        ("workres = 4", "did you mean workers?"),
        (
            "def post_frok(s, w): pass",
            "function post_frok (gunicorn.conf.py line 1) is no hook and is never called; did",
        ),
        ("def pre_request(w, r): pass", "hook pre_request does nothing: never called: use middleware"),
        ("worker_class = 'gevent'", "gevent has no equal"),
        ("spew = True", "py-spy"),
        (
            "env = 'prod'\nif env == 'prod': workers = 3",
            "env (gunicorn.conf.py line 1) is taken for a name of the file's",
        ),
    ],
)
def test_what_gunicorn_ignores_and_what_has_no_equal_is_warned_of(tmp_path: Path, text: str, says: str) -> None:
    """The server starts all the same. Fails with an error for an unknown name, and without a word for each."""
    (warning,) = run_gunicorn_file(tmp_path, text).warnings
    assert says in warning


def test_cmd_args_stand_above_the_file_and_are_said(tmp_path: Path) -> None:
    """Fails without the layer: gunicorn's variable is ignored without a word."""
    resolved = run_gunicorn_file(
        tmp_path,
        "workers = 3\nbind = ':1'\n",
        GUNICORN_CMD_ARGS="--bind=:9 -b :8 -t 7 -k gthread --threads 2 --preload",
    )
    config = resolved.config
    assert (config.workers, config.bind, config.hang_timeout) == (3, ("0.0.0.0:9", "0.0.0.0:8"), 7.0)
    assert resolved.origins["hang_timeout"] == "$GUNICORN_CMD_ARGS, timeout"
    assert "$GUNICORN_CMD_ARGS is read: bind, timeout, worker_class, threads, preload_app" in resolved.notes
    with pytest.raises(ConfigError, match=r"gunicorn has no option --frobnicate$"):
        run_gunicorn_file(tmp_path, "", GUNICORN_CMD_ARGS="--frobnicate 3")
    with pytest.raises(ConfigError, match=r"gunicorn has no option --worker; did you mean --workers\?$"):
        run_gunicorn_file(tmp_path, "", GUNICORN_CMD_ARGS="--worker 3")


def test_defaults_that_are_others_in_gunicorn_are_told_in_one_line(tmp_path: Path) -> None:
    """Those that the file leaves. Fails without `_implied`, and where it looks at gunicorn's names alone."""
    resolved = run_gunicorn_file(tmp_path, "preload_app = False\nkeepalive = 5\nworker_class = 'gthread'")
    (said,) = (each for each in resolved.notes if "leaves to defaults" in each)
    assert said.endswith("others in gunicorn: accesslog off, here -; limit_request_line 4094, here 8190")


def test_a_toml_file_comes_before_gunicorns_and_an_embedding_program_reads_neither(tmp_path: Path) -> None:
    """Fails if the file is run though settings of our own are there, or for `aserver.serve()`."""
    write(tmp_path / "gunicorn.conf.py", "raise SystemExit('it was run')")
    assert load(keywords={}, environ={"GUNICORN_CMD_ARGS": "-w 9", "PORT": "7"}, cwd=tmp_path).config.workers == 1
    write(tmp_path / "aserver.toml", "workers = 2")
    resolved = load(command_line={}, environ={}, cwd=tmp_path)
    assert resolved.config.workers == 2
    assert resolved.notes == ("gunicorn.conf.py is not read: the settings are from aserver.toml",)


def test_settings_of_other_servers_in_our_own_files_are_answered(tmp_path: Path) -> None:
    """Fails with a guess by likeness: `statsd_host` was answered with "host?", `threads` with "headers?"."""
    write(tmp_path / "aserver.toml", "worker_class = 'gthread'\nblocking_threads = 4\n")
    with pytest.raises(ConfigError) as caught:
        load(environ={}, cwd=tmp_path)
    assert "there is no setting worker_class (aserver.toml line 1); it is gunicorn's: the application's" in str(
        caught.value
    )
    assert "there is no setting blocking_threads (aserver.toml line 2); it is granian's: threads" in str(caught.value)
    write(tmp_path / "aserver.toml", "threads = 4\nstatsd_host = 'x'\n")
    resolved = load(environ={}, cwd=tmp_path)
    assert (resolved.warnings, resolved.config.statsd_host) == ((), "x:8125")

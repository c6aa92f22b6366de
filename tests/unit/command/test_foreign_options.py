"""Other servers' flags on our command line. Each docstring says how the test was seen to fail."""

from collections.abc import Callable
from pathlib import Path

import pytest

from aserver.command import cli
from aserver.config import Resolved, foreign

Resolve = Callable[..., Resolved]


@pytest.fixture
def resolve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """The settings with which `aserver ARGUMENTS` would run."""
    monkeypatch.chdir(tmp_path)
    for variable in ("PORT", "WEB_CONCURRENCY", "GUNICORN_CMD_ARGS", "FORWARDED_ALLOW_IPS"):
        monkeypatch.delenv(variable, raising=False)
    got: list[Resolved] = []

    def run(resolved: Resolved, *_: object, **__: object) -> int:
        got.append(resolved)
        return 0

    monkeypatch.setattr("aserver.launch.run.run_resolved", run)

    def called(*arguments: str) -> Resolved:
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 0, arguments
        return got.pop()

    return called


def test_a_target_without_run_and_options_before_it(resolve: Resolve) -> None:
    """As `uvicorn app:asgi` and `gunicorn -w 4 app:app`. Fails without `parse_args`: there is no command app:asgi."""
    assert resolve("app:asgi").config.target == "app:asgi"
    config = resolve("-w", "4", "-b", ":9", "app:app").config
    assert (config.target, config.workers, config.bind) == ("app:app", 4, ("0.0.0.0:9",))


def test_the_usual_flags_of_gunicorn(resolve: Resolve) -> None:
    """Fails without the hidden options: No such option '-k'."""
    resolved = resolve("app:app", "-k", "uvicorn.workers.UvicornWorker", "-t", "7", "--threads", "3", "--name", "shop")
    config = resolved.config
    assert (config.hang_timeout, config.proc_name) == (7.0, "shop")
    assert (config.threads, config.request_timeout, resolved.warnings) == (3, 0.0, ())
    assert resolved.origins["hang_timeout"] == "command line, -t"
    (note,) = resolved.notes
    assert note.startswith("-k: uvicorn.workers.UvicornWorker is not needed")
    (warning,) = resolve("app:app", "-k", "gevent").warnings
    assert warning.startswith("-k: gevent has no equal")


@pytest.mark.parametrize(
    ("words", "on"),
    [
        (("--ws-per-message-deflate", "false"), False),
        (("--ws-per-message-deflate=False",), False),
        (("--ws-per-message-deflate", "true"), True),
        (("--ws-per-message-deflate",), True),
    ],
)
def test_a_switch_may_have_a_value(resolve: Resolve, words: tuple[str, ...], on: bool) -> None:
    """As uvicorn's. Fails without `without_switch_values`: Got unexpected extra argument (false)."""
    config = resolve(*words, "app:app").config
    assert (config.target, config.ws_per_message_deflate) == ("app:app", on)


def test_the_usual_flags_of_uvicorn(resolve: Resolve) -> None:
    """Fails without the hidden options, and without `understood` for asgi3 and trace."""
    resolved = resolve(
        *("app:app", "--access-log", "--no-use-colors", "--loop", "asyncio", "--http", "h11", "--ws", "wsproto"),
        *(
            "--interface",
            "asgi3",
            "--log-level",
            "trace",
            "--ws-max-size",
            "9",
            "--ssl-version",
            "17",
            "--ws-max-queue=3",
        ),
        *("--timeout-worker-healthcheck", "9", "--reset-contextvars"),
    )
    config = resolved.config
    assert (config.accesslog, config.interface, config.loglevel) == ("-", "asgi", "debug")
    assert (config.ws_max_size, config.ws_max_queue, config.hang_timeout) == (9, 3, 9.0)
    assert resolved.warnings == ()
    assert {note.partition(":")[0] for note in resolved.notes} >= {"--loop", "--http", "--ws", "--ssl-version"}


@pytest.mark.parametrize(("option", "variable"), [("--use-colors", False), ("--no-use-colors", True)])
def test_colors_are_the_terminals(resolve: Resolve, option: str, *, variable: bool) -> None:
    """Fails with the sentence of a version that had none: a terminal's log has colors, and NO_COLOR takes them away."""
    (note,) = resolve("app:app", option).notes
    assert note.startswith(f"{option}: a terminal has colors")
    assert ("NO_COLOR=1" in note) is variable


def test_cmd_args_may_name_the_file(resolve: Resolve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-c file:conf.py` in the variable, as gunicorn has it. Fails if the file is looked for among our own alone."""
    (tmp_path / "conf.py").write_text("workers = 3\nwsgi_app = 'shop:app'\n")
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "-c file:conf.py -t 9")
    config = resolve("run").config
    assert (config.workers, config.target, config.hang_timeout) == (3, "shop:app", 9.0)
    assert config.config == str(tmp_path / "conf.py")


@pytest.mark.parametrize("server", ["gunicorn", "uvicorn", "hypercorn", "granian"])
def test_every_flag_of_the_other_servers_is_known(server: str) -> None:
    """A spelling may be another server's with the same name, or ours. Fails without one server's options."""
    known = {each for option in cli.cli.commands["run"].params for each in (*option.opts, *option.secondary_opts)}
    flags = {flag.spelling for _, _, flag in foreign.flags(foreign.SERVERS[server])}
    assert flags - known <= {"--version"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--ws", "app:app"), "aserver's own"),
        (("app:app", "--ws"), "aserver's own"),
        (("--ws", "wsproto", "app:app"), "aserver's own"),
        (("--ws", "none", "app:app"), "cannot be switched off"),
    ],
)
def test_ws_with_a_value_as_uvicorns_and_without_as_granians(
    resolve: Resolve, words: tuple[str, ...], says: str
) -> None:
    """Fails without `with_plain_ws`, which took the target for its value; and without the conversion of `none`."""
    resolved = resolve(*words)
    assert resolved.config.target == "app:app"
    assert any(says in text for text in (*resolved.notes, *resolved.changes))


@pytest.mark.parametrize(
    ("words", "log"),
    [
        (("--access-log", "a.log", "app:app"), "a.log"),
        (("app:app", "--access-log", "a.log"), "a.log"),
        (("--access-log", "-", "app:app"), "-"),
        (("--access-log", "app:app"), "-"),
        (("app:app", "--access-log"), "-"),
        (("--no-access-log", "app:app"), None),
    ],
)
def test_access_log_with_a_file_as_hypercorns_and_without_as_uvicorns(
    resolve: Resolve, words: tuple[str, ...], log: str | None
) -> None:
    """Fails without `with_log_file`: Got unexpected extra argument (app:app)."""
    config = resolve(*words).config
    assert (config.target, config.accesslog) == ("app:app", log)


def test_options_that_may_be_repeated_come_as_in_the_tables(resolve: Resolve, tmp_path: Path) -> None:
    """Fails without the list in `_given`: `static = "('/st'"`, and env_file: expected text."""
    (tmp_path / "a.env").write_text("A=1\n")
    words = ("--env-files", "a.env", "--static-path-mount", "pages", "--static-path-route", "/st", "app:app")
    config = resolve(*words).config
    assert (config.env, config.static) == (("A=1",), ("/st=pages",))

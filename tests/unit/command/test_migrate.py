"""`aserver migrate`, from files and command lines. Each docstring says how the test was seen to fail."""

import tomllib
from pathlib import Path

from aserver.config.layers import load
from tests.unit.command.migrating import Migrate


def test_a_command_line_becomes_a_file_that_aserver_reads(migrate: Migrate, tmp_path: Path) -> None:
    """Fails without the table, and with a duration or an octal number that TOML would read otherwise."""
    line = (
        "exec /srv/venv/bin/gunicorn -w 4 -k uvicorn.workers.UvicornWorker -b unix:app.sock -t 2.5 -m 027 -e A=1 -e B=2"
    )
    outcome = migrate("--", *line.split(), "--no-control-socket", "--log-level=warning", "shop:make_app()")
    assert outcome.status == 0
    (tmp_path / "aserver.toml").write_text(outcome.out)
    config = load(environ={}, cwd=tmp_path).config
    assert (config.target, config.factory, config.workers) == ("shop:make_app", True, 4)
    assert (config.bind, config.hang_timeout, config.umask) == (("unix:./app.sock",), 2.5, 0o27)
    assert (config.env, config.control, config.loglevel) == (("A=1", "B=2"), None, "warning")
    assert "changes" not in outcome.err
    assert "note      keep_alive is not set: gunicorn has 2s, aserver 65s" in outcome.err


def test_a_file_and_the_target_behind_it(migrate: Migrate, tmp_path: Path) -> None:
    """As `gunicorn -c FILE TARGET`. Fails with one word alone, and `--check` said that there is no target."""
    (tmp_path / "conf.py").write_text("workers = 3\n")
    outcome = migrate("conf.py", "shop:app")
    assert (outcome.status, tomllib.loads(outcome.out)) == (0, {"target": "shop:app", "workers": 3})
    assert "name it behind the file" in migrate("--check", "conf.py").err
    outcome = migrate("--", "uwsgi", "none.ini")
    assert (outcome.status, "none.ini cannot be read" in outcome.err) == (2, True)
    outcome = migrate("--", "uvicorn", "a:b", "$MORE")
    assert (outcome.status, outcome.err.splitlines()[0]) == (
        2,
        "unknown   $MORE is a variable of the shell, whose options are not seen here",
    )


def test_a_gunicorn_line_with_its_file(migrate: Migrate, tmp_path: Path) -> None:
    """The line wins. Fails without the second layer."""
    (tmp_path / "gunicorn.conf.py").write_text("workers = 3\nbacklog = 9\n")
    made = tomllib.loads(migrate("--", "gunicorn", "-w", "4", "a:b").out)
    assert made == {"target": "a:b", "workers": 4, "backlog": 9}


def test_what_is_not_understood_or_wrong_is_exit_2(migrate: Migrate, tmp_path: Path) -> None:
    """Fails with 0: a script would go on with half of the settings."""
    outcome = migrate("--", "gunicorn", "--frobnicate", "a:b")
    assert (outcome.status, outcome.err.splitlines()[0]) == (2, "unknown   gunicorn has no option --frobnicate")
    outcome = migrate("--", "gunicorn", "-w", "four", "--keep-alive", "x", "a:b")
    assert outcome.status == 2
    assert "2 settings are wrong" in outcome.err
    outcome = migrate("no-such-file")
    assert outcome.status == 2
    assert "is nothing that can be read" in outcome.err


def test_check_loads_the_application_and_exits_by_its_outcome(migrate: Migrate, tmp_path: Path) -> None:
    """The file alone is on standard output. Fails without the redirection, and without the load."""
    outcome = migrate("--check", "--", "gunicorn", "no_such_module:app")
    assert outcome.status == 4
    assert "no module 'no_such_module'" in outcome.err
    assert tomllib.loads(outcome.out) == {"target": "no_such_module:app"}

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


def test_a_variable_of_the_line_is_not_the_files_value(migrate: Migrate, tmp_path: Path) -> None:
    """Of a Procfile with $PORT and a file beside it. Fails with the file's values in their place: a fixed port."""
    (tmp_path / "gunicorn.conf.py").write_text("bind = ':1'\nworkers = 2\nbacklog = 9\n")
    (tmp_path / "Procfile").write_text("web: gunicorn a:b -b 0.0.0.0:$PORT -w ${WEB_CONCURRENCY:-3}\n")
    outcome = migrate("Procfile")
    assert tomllib.loads(outcome.out) == {"target": "a:b", "backlog": 9}
    assert "aserver reads WEB_CONCURRENCY by itself, and has 1 without it" in outcome.err


def test_hooks_are_told_since_a_toml_has_none(migrate: Migrate, tmp_path: Path) -> None:
    """Fails with the settings alone: the hooks are gone without a word."""
    (tmp_path / "conf.py").write_text(
        "wsgi_app = 'a:b'\ndef post_fork(server, worker): ...\ndef worker_int(worker): ...\n"
    )
    outcome = migrate("conf.py")
    assert "changes   post_fork: an aserver.toml has no hooks; with them, conf.py stays the file" in outcome.err
    assert "changes   hook worker_int does nothing" in outcome.err


def test_remarks_on_a_uwsgi_ini_have_lines_and_slips_have_advice(migrate: Migrate, tmp_path: Path) -> None:
    """Fails without `lines`, and without `suggestion`."""
    (tmp_path / "shop.ini").write_text("[uwsgi]\nmodule = a:b\n\ncheaper = 2\nproceses = 3\n")
    outcome = migrate("shop.ini")
    assert outcome.status == 2
    assert "unknown   uwsgi has no option proceses (shop.ini line 5); did you mean processes?" in outcome.err
    assert "changes   shop.ini line 4, cheaper: cheaper = 2 has no equal" in outcome.err
    outcome = migrate("--", "gunicorn", "a:b", "--max-request-jitter", "5")
    assert outcome.err.splitlines()[0] == (
        "unknown   gunicorn has no option --max-request-jitter; did you mean --max-requests-jitter?"
    )
    assert "no option 5" not in outcome.err


def test_a_default_that_differs_is_told_once(migrate: Migrate, tmp_path: Path) -> None:
    """Fails with the note on the file beside those on file and line."""
    (tmp_path / "gunicorn.conf.py").write_text("wsgi_app = 'a:b'\n")
    assert migrate("gunicorn.conf.py").err.count("4094") == 1


def test_a_command_line_without_dashes_before_it_or_in_one_text(migrate: Migrate) -> None:
    """Fails without MigrateCommand (No such option '-w') and without `in_command`."""
    for words in (
        ("gunicorn", "-w", "3", "--threads=2", "a:b"),
        ("CMD", "gunicorn", "-w", "3", "--threads", "2", "a:b"),
        ("gunicorn -w 3 --threads 2 a:b",),
        ('CMD ["gunicorn", "-w", "3", "--threads", "2", "a:b"]',),
    ):
        outcome = migrate(*words)
        assert (outcome.status, tomllib.loads(outcome.out)) == (0, {"target": "a:b", "workers": 3, "threads": 2}), words


def test_the_command_of_a_dockerfile(migrate: Migrate, tmp_path: Path) -> None:
    """The last CMD, behind ENTRYPOINT; RUN is none. Fails without `in_dockerfile`."""
    (tmp_path / "Dockerfile").write_text(
        'FROM python\nRUN pip install gunicorn uvicorn\nCMD old\nENTRYPOINT ["uvicorn"]\n'
        'CMD ["a:b", \\\n  "--host", "0.0.0.0"]\n'
    )
    outcome = migrate("Dockerfile")
    assert tomllib.loads(outcome.out) == {"target": "a:b", "bind": ["0.0.0.0:8000"]}
    assert 'becomes `CMD ["aserver", "run"]`' in outcome.err
    (tmp_path / "Dockerfile").write_text("FROM python\nRUN pip install gunicorn\nCMD python -m shop\n")
    assert migrate("Dockerfile").status == 2


def test_a_misspelt_option_of_uwsgi_is_unknown(migrate: Migrate, tmp_path: Path) -> None:
    """Fails without the look into OPTIONS: its subsystem answered, that it is not needed."""
    (tmp_path / "a.ini").write_text("[uwsgi]\nmodule = a:b\nharakiri-verbos = true\nharakiri-verbose = true\n")
    outcome = migrate("a.ini")
    assert outcome.status == 2
    assert "unknown   uwsgi has no option harakiri-verbos (a.ini line 3); did you mean harakiri-verbose" in outcome.err
    assert "note      a.ini line 4, harakiri-verbose: request_timeout" in outcome.err


def test_values_that_lose_nothing_or_something_by_those_beside_them(migrate: Migrate, tmp_path: Path) -> None:
    """Fails without `_log_some`, `_scheme_headers` and `_insecure`: all were told as if they stood alone."""
    (tmp_path / "a.ini").write_text("[uwsgi]\nmodule = a:b\nlog-4xx = true\ndisable-logging = true\n")
    assert "changes   a.ini line 3, log-4xx: no request is logged with disable-logging" in migrate("a.ini").err
    (tmp_path / "a.ini").write_text("[uwsgi]\nmodule = a:b\nlog-4xx = true\n")
    assert "note      a.ini line 3, log-4xx: the access log has each request" in migrate("a.ini").err
    (tmp_path / "a.py").write_text('secure_scheme_headers = {"X-Forwarded-Proto": "https"}\n')
    assert "changes" not in migrate("a.py").err
    (tmp_path / "a.py").write_text('secure_scheme_headers = {"X-SSL": "on"}\n')
    assert "changes   a.py line 1, secure_scheme_headers: X-Forwarded-Proto" in migrate("a.py").err
    line = ("hypercorn", "-b", "0.0.0.0:443", "--insecure-bind", "0.0.0.0:80", "a:b")
    assert tomllib.loads(migrate(*line).out)["bind"] == ["0.0.0.0:443"]
    made = tomllib.loads(migrate(*line, "--certfile", "c.pem", "--keyfile", "k.pem").out)
    assert made["bind"] == ["0.0.0.0:443", "http://0.0.0.0:80"]

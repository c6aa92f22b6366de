"""`aserver migrate`, from files and command lines. Each docstring says how the test was seen to fail."""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from aserver.command.cli import main
from aserver.command.migrate_page import markdown
from aserver.config import foreign
from aserver.config.layers import load


@dataclass(frozen=True)
class Outcome:
    status: object
    out: str
    err: str


Migrate = Callable[..., Outcome]


@pytest.fixture
def migrate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Migrate:
    """The command, in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def called(*arguments: str) -> Outcome:
        with pytest.raises(SystemExit) as caught:
            main(["migrate", *arguments])
        return Outcome(caught.value.code, *capsys.readouterr())

    return called


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


@pytest.mark.parametrize(
    ("name", "text", "made", "said"),
    [
        (
            "Procfile",
            "web: A=1 B=2 gunicorn shop:app -w 2 2>&1 | tee log\n",
            {"target": "shop:app", "workers": 2},
            "A=1 B=2 stays before the command, or becomes `env` here",
        ),
        (
            "Procfile",
            "web: python manage.py migrate; exec uvicorn a:b --port 9 && echo over\n",
            {"target": "a:b", "bind": ["127.0.0.1:9"]},
            "the process type web is read",
        ),
        (
            "shop.service",
            "[Service]\nExecStart=/bin/bash -lc 'cd /srv && exec gunicorn shop:app --bind :9'\n",
            {"target": "shop:app", "bind": ["0.0.0.0:9"]},
            "Type=notify stay",
        ),
        (
            "shop.service",
            "[Service]\nExecStart=/srv/bin/uwsgi --ini small.ini -p 7\n",
            {"target": "shop:web", "workers": 7, "errorlog": "/var/log/small.log"},
            "small.ini is read, too",
        ),
    ],
)
def test_lines_as_they_stand_in_the_wild(
    migrate: Migrate, tmp_path: Path, name: str, text: str, made: dict[str, object], said: str
) -> None:
    """Assignments, shells, several commands, a file behind an option. Fails without the look for each of them."""
    (tmp_path / name).write_text(text)
    (tmp_path / "small.ini").write_text("[uwsgi]\nmodule = shop:web\nprocesses = 3\nlogto = /var/log/%n.log\n")
    outcome = migrate(name)
    assert outcome.status == 0, outcome.err
    assert tomllib.loads(outcome.out).items() >= made.items()
    assert said in outcome.err


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


@pytest.mark.parametrize(
    ("words", "made", "said"),
    [
        ("uvicorn a:b --port 9 --no-access-log --http2", {"bind": ["127.0.0.1:9"], "accesslog": "off"}, ""),
        ("gunicorn a:b --http-protocols h2,h1", {"http2": True}, ""),
        ("python -m uvicorn a:b --interface asgi2", {"target": "a:b"}, "asgi2 is not spoken"),
        ("granian --interface rsgi a:b --workers-max-rss 9", {"max_memory": "9MiB", "memory_metric": "rss"}, "rsgi"),
        ("gunicorn -k sync -t 9 a:b", {"hang_timeout": "9s", "request_timeout": "9s", "threads": 1}, "threads = 1"),
        ("gunicorn -t 9 a:b", {"hang_timeout": "9s", "request_timeout": "9s"}, "--request-timeout 0"),
        ("gunicorn -k gthread -t 9 a:b", {"hang_timeout": "9s"}, ""),
        ("granian a:b --blocking-threads 3 --backpressure 9", {"threads": 3, "backpressure": 9}, ""),
        ("granian a:b --http 2", {"target": "a:b"}, "h2c://host:port"),
        ("granian a:b --http1-header-read-timeout 1500", {"header_timeout": "1.5s"}, ""),
        ("hypercorn -k trio --verify-mode CERT_NONE -b 0.0.0.0:9 a:b", {"bind": ["0.0.0.0:9"]}, "trio's loop"),
        ("uv run gunicorn -k gevent a:b", {"target": "a:b"}, "gevent has no equal"),
        ("gunicorn --bind :$PORT a:b", {"target": "a:b"}, "aserver listens on 0.0.0.0:$PORT by itself"),
        ("gunicorn -w $N a:b", {"target": "a:b"}, "workers = $N has a variable of the shell"),
        (
            "daphne -u /run/a.sock -t 9 a:b",
            {"target": "a:b", "bind": ["unix:/run/a.sock"]},
            "see request_timeout",
        ),
        ("daphne --websocket-max-message-size 9 a:b", {"target": "a:b", "ws_max_size": "9"}, ""),
        ("daphne --proxy-headers-host X-Name a:b", {"target": "a:b"}, "see forwarded_allow_ips"),
        ("fastapi run --reload -v -e a:b", {"target": "a:b", "reload": True}, "fastapi, -v"),
        ("fastapi run app/main.py --app=api", {"target": "app.main:api", "bind": ["0.0.0.0:8000"]}, ""),
        ("python -m fastapi dev -e a:b --port 9", {"target": "a:b", "bind": ["127.0.0.1:9"], "reload": True}, ""),
        ("gunicorn --pythonpath lib a:b", {"app_dir": "lib,."}, ""),
        ("uwsgi -w a --pythonpath b --pp c --pythonpath d", {"app_dir": "b,d,c,."}, ""),
        ("uwsgi -w a --http :8 --http :9", {"bind": ["0.0.0.0:8", "0.0.0.0:9"]}, ""),
        (
            "uwsgi -w a --https :8,c,k --https :9,c,k",
            {"bind": ["0.0.0.0:8", "0.0.0.0:9"], "certfile": ["c"], "keyfile": ["k"]},
            "",
        ),
        ("uwsgi --http :9 --master -p 4 --wsgi-file app/shop.py --callable web", {"app_dir": "app", "workers": 4}, ""),
    ],
)
def test_each_server_and_what_changes(migrate: Migrate, words: str, made: dict[str, object], said: str) -> None:
    """A line for each thing. Fails without the row of the option."""
    outcome = migrate("--", *words.split())
    assert outcome.status == 0, outcome.err
    assert tomllib.loads(outcome.out).items() >= made.items()
    assert said in outcome.err


@pytest.mark.parametrize(
    ("option", "answer", "said"),
    [
        ("harakiri-verbose", "not needed", "request_timeout"),
        ("http-auto-gzip", "no equal", "compress"),
        ("forkbomb-delay", "not needed", "growing pauses"),
        ("setns", "no equal", "systemd"),
        ("for-readline", "no equal", "configuration language"),
        ("reload-on-exception", "no equal", "500"),
        ("touch-logreopen", "no equal", "SIGUSR1"),
        ("touch-reload", "no equal", "SIGHUP"),
        ("py-import", "no equal", "module of the target"),
        ("cheaper-step", "no equal", "TTIN"),
    ],
)
def test_an_option_is_answered_by_its_own_subsystem(option: str, answer: str, said: str) -> None:
    """Fails where another subsystem's beginning fits first: `for` had forkbomb-delay, `touch` had touch-logreopen."""
    verdict = foreign.SERVERS["uwsgi"].verdict(option)
    assert verdict is not None
    assert (verdict.answer, said in verdict.text) == (answer, True), verdict


def test_a_switch_may_take_back_what_the_command_means(migrate: Migrate) -> None:
    """Fails where `fastapi dev` reloads whatever is said."""
    outcome = migrate("--", "fastapi", "dev", "--no-reload", "-e", "a:b")
    assert (outcome.status, tomllib.loads(outcome.out)) == (0, {"target": "a:b"}), outcome.err


UWSGI = """
[uwsgi]
project = shop
base = /srv
; a comment
module = %(project).wsgi:application
processes = 5
socket = %(base)/%(project).sock
http = :8000
chmod-socket = 660
max-requests = 5000
harakiri = 30
vacuum = true
env = A=1
env = B=2
static-map = /static=%d
max-worker-lifetime = 3600
"""


def test_a_uwsgi_ini(migrate: Migrate, tmp_path: Path) -> None:
    """Placeholders, repeated options, two sockets. Fails without `_PLACEHOLDER`, `_JOINED`."""
    (tmp_path / "uwsgi.ini").write_text(UWSGI)
    outcome = migrate("uwsgi.ini")
    assert outcome.status == 0
    assert tomllib.loads(outcome.out) == {
        "target": "shop.wsgi:application",
        "workers": 5,
        "bind": ["unix:/srv/shop.sock", "0.0.0.0:8000"],
        "uds_mode": "0660",
        "max_requests": 5000,
        "env": ["A=1", "B=2"],
        "max_lifetime": "60m",
        "request_timeout": "30s",
    }
    changes = [line for line in outcome.err.splitlines() if line.startswith("changes")]
    assert [line.split()[2] for line in changes] == ["socket:", "static-map:"]
    assert "note      uwsgi, vacuum: " in outcome.err


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Procfile", "release: python manage.py migrate\nworker: celery -A x\nweb: gunicorn -w 3 shop:app\n"),
        ("shop.service", "[Service]\nUser=www\nExecStart=/srv/bin/gunicorn \\\n    -w 3 \\\n    shop:app\n"),
        ("gunicorn.conf.py", "workers = 3\nwsgi_app = 'shop:app'\n"),
        ("hypercorn.toml", "workers = 3\napplication_path = 'shop:app'\n"),
    ],
)
def test_other_files(migrate: Migrate, tmp_path: Path, name: str, text: str) -> None:
    """Fails without the reader of that kind."""
    (tmp_path / name).write_text(text)
    outcome = migrate(name)
    assert outcome.status == 0, outcome.err
    assert tomllib.loads(outcome.out) == {"target": "shop:app", "workers": 3}


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


def test_the_committed_page_is_up_to_date() -> None:
    committed = Path(__file__).parents[3] / "docs" / "migrate.md"
    assert committed.read_text() == markdown(), "run: make docs"

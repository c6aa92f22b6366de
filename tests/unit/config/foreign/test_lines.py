"""Command lines and files in which another server's settings stand. Each docstring says how it was seen to fail."""

import tomllib
from pathlib import Path

import pytest

from tests.unit.command.migrating import Migrate


@pytest.mark.parametrize(
    ("words", "made", "said"),
    [
        ("gunicorn --bind :$PORT a:b", {"target": "a:b"}, "aserver listens on 0.0.0.0:$PORT by itself"),
        ("gunicorn -w $N a:b", {"target": "a:b"}, "workers = $N has a variable of the shell"),
    ],
)
def test_a_variable_of_the_shell_is_in_no_file(
    migrate: Migrate, words: str, made: dict[str, object], said: str
) -> None:
    """The command reads $PORT by itself. Fails without `without_variables`."""
    outcome = migrate("--", *words.split())
    assert outcome.status == 0, outcome.err
    assert tomllib.loads(outcome.out).items() >= made.items()
    assert said in outcome.err


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
            "[Service]\nExecStart=/srv/venv/bin/uvicorn a:b --port 9\n",
            {"target": "a:b", "bind": ["127.0.0.1:9"]},
            "ExecStart becomes `/srv/venv/bin/aserver run`",
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

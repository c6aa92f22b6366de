"""uWSGI's options and its ini file. Each docstring says how it was seen to fail."""

import tomllib
from pathlib import Path

import pytest

from tests.unit.command.migrating import Migrate


@pytest.mark.parametrize(
    ("words", "made", "said"),
    [
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
def test_options_and_what_changes(migrate: Migrate, words: str, made: dict[str, object], said: str) -> None:
    """A line for each thing. Fails without the row of the option."""
    outcome = migrate("--", *words.split())
    assert outcome.status == 0, outcome.err
    assert tomllib.loads(outcome.out).items() >= made.items()
    assert said in outcome.err


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
static-map = /static=%(base)/static
static-map = /favicon.ico=%(base)/favicon.ico
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
        "static": ["/static=/srv/static"],
    }
    changes = [line for line in outcome.err.splitlines() if line.startswith("changes")]
    assert [line.partition(":")[0].split()[-1] for line in changes] == ["socket", "static-map", "static-map"]
    assert "/favicon.ico=/srv/favicon.ico has no equal" in changes[1]
    assert "404" in changes[2]
    assert ", vacuum: " in outcome.err

"""Which names of a Python settings file are settings, and which are its own."""

from pathlib import Path

from aserver.config.names_in_file import names_in
from tests.unit.config.starts import run_gunicorn_file


def test_names_that_the_file_uses_itself_are_its_own(tmp_path: Path) -> None:
    """The gunicorn_conf.py of a well-known image has them. Fails if `host` and `port` make a second bind."""
    resolved = run_gunicorn_file(
        tmp_path,
        "import json, os\n"
        "host = os.getenv('HOST', '0.0.0.0')\n"
        "port = os.getenv('PORT', '80')\n"
        "use_bind = f'{host}:{port}'\n"
        "web_concurrency = 2\n"
        "workers = web_concurrency\n"
        "bind = use_bind\n"
        "log_data = {'workers': workers, 'host': host, 'port': port}\n"
        "print(json.dumps(log_data))\n"
        "spew = daemon = False\nuser = pidfile = None\n",
        PORT="8000",
        HOST="0.0.0.0",
    )
    assert (resolved.config.bind, resolved.config.workers) == (("0.0.0.0:8000",), 2)
    assert resolved.changes == ()


def test_names_at_the_modules_level_with_their_lines() -> None:
    """Inside of a function they are no settings. Fails without _SCOPES; a name that is only annotated sets nothing."""
    text = b"""\
import os.path as path, json
from a import b as c
workers: int
keep = bind = 1
timeout: int = json.loads("3")
first, (second, *rest) = bind, [0]
if path:
    inside = 1
def hook(server):
    local = 1
class Helper:
    part = 1
"""
    assert names_in(text) == {
        "lines": {
            "keep": 4, "bind": 4, "timeout": 5, "first": 6, "second": 6, "rest": 6, "inside": 8, "hook": 9,
        },
        "assigned": ["bind", "first", "inside", "keep", "rest", "second", "timeout"],
        "imported": ["c", "json", "path"],
        "read": ["bind", "int", "json", "path"],
    }  # fmt: skip

"""`aserver init`: which app it finds in a project, and that what it writes can be used."""

import re
import tomllib
from pathlib import Path

import pytest

from aserver.command.init import find, render, write
from aserver.config import Layer, build
from aserver.errors import ConfigError

FASTAPI = "from fastapi import FastAPI\napp = FastAPI()\n"
DJANGO = "from django.core.asgi import get_asgi_application\napplication = get_asgi_application()\n"

#: Files of a project, and the app in it: target, framework, factory, app_dir.
PROJECTS = [
    ({"main.py": FASTAPI}, ("main:app", "FastAPI", False, ".")),
    ({"main.py": "import fastapi\napi: object = fastapi.FastAPI()\n"}, ("main:api", "FastAPI", False, ".")),
    ({"shop/main.py": FASTAPI}, ("shop.main:app", "FastAPI", False, ".")),
    ({"src/shop/web.py": FASTAPI}, ("shop.web:app", "FastAPI", False, "src")),
    ({"src/main.py": FASTAPI}, ("main:app", "FastAPI", False, "src")),
    ({"shop/__init__.py": FASTAPI}, ("shop:app", "FastAPI", False, ".")),
    (
        {"shop/__init__.py": "import flask\ndef create_app(x=None):\n    app = flask.Flask(x)\n    return app\n"},
        ("shop:create_app", "Flask", True, "."),
    ),
    (
        {"a.py": "def create_app():\n    return Quart(__name__)\n", "z.py": "app = Starlette()\n"},
        ("z:app", "Starlette", False, "."),
    ),
    (
        {"manage.py": "", "mysite/asgi.py": DJANGO, "mysite/wsgi.py": DJANGO.replace("asgi", "wsgi")},
        ("mysite.asgi:application", "Django", False, "."),
    ),
    ({"manage.py": "", "mysite/asgi.py": DJANGO, "api.py": FASTAPI}, ("mysite.asgi:application", "Django", False, ".")),
    ({"main.py": "raise SystemExit\n" + FASTAPI}, ("main:app", "FastAPI", False, ".")),
    ({"raw.py": "async def app(scope, receive, send): ...\n"}, ("raw:app", "ASGI", False, ".")),
    ({"broken.py": "def (", "main.py": FASTAPI, "latin.py": "\xff"}, ("main:app", "FastAPI", False, ".")),
    ({"tests/app.py": FASTAPI, "test_main.py": FASTAPI, ".venv/x.py": FASTAPI, "not-a-module.py": FASTAPI}, None),
    ({"main.py": "def create_app(needed):\n    return FastAPI()\n"}, None),
    ({}, None),
]


@pytest.mark.parametrize(("files", "expected"), PROJECTS)
def test_it_finds_the_app_without_importing_it(
    tmp_path: Path, files: dict[str, str], expected: tuple[str, str, bool, str] | None
) -> None:
    """And writes a file that is valid as it is, and with each setting that it proposes."""
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("latin-1"))
    found = find(tmp_path)
    assert (found and (found.target, found.framework, found.factory, found.app_dir)) == expected
    text = render(found)
    config = build([Layer("aserver.toml", tomllib.loads(text))]).config
    assert config.target == (expected and expected[0])
    proposals = re.findall(r"^# (\w+ = .+)$", text, re.MULTILINE)
    assert len(proposals) > 10
    for proposal in proposals:
        build([Layer("aserver.toml", tomllib.loads(proposal))])


def test_it_never_writes_over_settings(tmp_path: Path) -> None:
    """Fails with a file opened by "w"."""
    (tmp_path / "main.py").write_text(FASTAPI)
    assert "main:app (FastAPI)" in write(tmp_path)
    with pytest.raises(ConfigError, match=r"aserver\.toml has settings already"):
        write(tmp_path)
    (tmp_path / "aserver.toml").unlink()
    (tmp_path / "pyproject.toml").write_text("[tool.aserver]\nworkers = 2\n")
    with pytest.raises(ConfigError, match=r"pyproject\.toml has settings already"):
        write(tmp_path)

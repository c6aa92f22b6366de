"""`aserver init`: a commented aserver.toml for the project in a directory, with the few settings that matter.

The project is read and never imported: code that is not ready for it should not run, and needs nothing installed.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aserver.config.files import find_file
from aserver.errors import ConfigError

#: Calls that make an app: the framework's name for people, by the name that is called.
FRAMEWORKS = {
    "FastAPI": "FastAPI",
    "Starlette": "Starlette",
    "Litestar": "Litestar",
    "Flask": "Flask",
    "Quart": "Quart",
    "Sanic": "Sanic",
    "Bottle": "bottle",
    "get_asgi_application": "Django",
    "get_wsgi_application": "Django, as WSGI: streams and WebSockets need its asgi.py",
}
#: Functions that usually return an app.
FACTORIES = ("create_app", "make_app", "build_app", "get_app")
#: Arguments of an app without a framework.
_ASGI = ["scope", "receive", "send"]
#: Folders that hold no app.
_PASSED_OVER = {"tests", "test", "docs", "build", "dist", "node_modules", "migrations", "venv", "env", "site-packages"}
#: The most files that are read.
_MOST_FILES = 500


@dataclass(frozen=True, slots=True)
class FoundApp:
    """An app in a project's code."""

    target: str
    framework: str
    factory: bool = False
    app_dir: str = "."


def write(directory: Path) -> str:
    """Write the file; return the text for the user. Raises ConfigError if there is such a file."""
    path = directory / "aserver.toml"
    if (there := find_file(directory)) is not None:
        raise ConfigError(f"{there.path} has settings already; `aserver config` shows them")
    found = find(directory)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(render(found))
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    if found is None:
        return f"{path.name} is written; no app was found here, so set `target` in it. Then: aserver run"
    return f"{path.name} is written for {found.target} ({found.framework}). Now: aserver check && aserver run"


def find(directory: Path) -> FoundApp | None:
    """The app that is most likely the project's: near the top, of an ASGI framework, before a factory."""
    apps = [app for path, place in _sources(directory) for app in _apps_in(path, place, directory)]
    if any(app.framework == "Django" for app in apps):
        apps = [app for app in apps if app.framework == "Django"]
    return min(apps, key=lambda app: (app.factory, app.target.count("."), "wsgi" in app.target), default=None)


def _sources(directory: Path) -> Iterator[tuple[Path, Path]]:
    """Python files of the first levels, each with the directory from which it is imported."""
    left = _MOST_FILES
    for place in (directory, directory / "src"):
        for pattern in ("*.py", "*/*.py", "*/*/*.py"):
            for path in sorted(place.glob(pattern)):
                parts = path.relative_to(place).parts
                hidden = any(part.startswith(".") or part in _PASSED_OVER for part in parts[:-1])
                tests = path.name.startswith(("test_", "conftest"))
                if hidden or tests or not all(part.isidentifier() for part in (*parts[:-1], path.stem)):
                    continue
                if place == directory and parts[0] == "src" and len(parts) > 1:
                    continue
                left -= 1
                if left < 0:
                    return
                yield path, place


def _apps_in(path: Path, place: Path, directory: Path) -> Iterator[FoundApp]:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    parts = path.relative_to(place).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    app_dir = "." if place == directory else place.name
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
            framework = FRAMEWORKS.get(_name_of(node.value.func))
            names = node.targets if isinstance(node, ast.Assign) else [node.target]
            if framework and isinstance(names[0], ast.Name) and module:
                yield FoundApp(f"{module}:{names[0].id}", framework, app_dir=app_dir)
        elif isinstance(node, ast.AsyncFunctionDef) and [each.arg for each in node.args.args] == _ASGI and module:
            yield FoundApp(f"{module}:{node.name}", "ASGI", app_dir=app_dir)
        elif isinstance(node, ast.FunctionDef) and node.name in FACTORIES and not _required(node) and module:
            calls = (_name_of(each.func) for each in ast.walk(node) if isinstance(each, ast.Call))
            if framework := next((FRAMEWORKS[call] for call in calls if call in FRAMEWORKS), ""):
                yield FoundApp(f"{module}:{node.name}", framework, factory=True, app_dir=app_dir)


def _name_of(called: ast.expr) -> str:
    return called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""


def _required(function: ast.FunctionDef) -> bool:
    """Does it need arguments?"""
    given = function.args
    return len(given.posonlyargs) + len(given.args) > len(given.defaults) or None in given.kw_defaults


def render(found: FoundApp | None) -> str:
    """The file's text."""
    lines = [_HEAD.format(what=f"for {found.framework}" if found else "no app was found, so name it here")]
    target = found or FoundApp("main:app", "")
    lines.append(f'{"" if found else "# "}target = "{target.target}"')
    if target.factory:
        lines.append("factory = true                # the target is a function that returns the app")
    if target.app_dir != ".":
        lines.append(f'app_dir = "{target.app_dir}"')
    lines.append(_BODY)
    if target.framework.startswith("Django"):
        lines.append(_DJANGO)
    return "\n".join(lines)


_HEAD = """\
# Settings of aserver for this project, {what}. Written by `aserver init`.
# The command line wins over this file, and so does the environment: --workers 4, ASERVER_WORKERS=4.
# `aserver config` shows every setting with where it came from, `aserver run --help` all there are.
"""

_BODY = """
# ── where it listens ─────────────────────────────────────────────────────────────────────────
# Other machines reach it at 0.0.0.0; behind a proxy on this machine a unix socket is the best.
# bind = ["0.0.0.0:8000"]
# bind = ["unix:/run/app/app.sock"]
# Proxies whose X-Forwarded-For is believed; those on this machine are.
# forwarded_allow_ips = ["10.0.0.0/8"]

# ── how many ─────────────────────────────────────────────────────────────────────────────────
# Each worker is a process with a copy of the app; `auto` is one for each CPU.
# workers = "auto"
# Replace a worker after so much, if memory grows. Its replacement serves before it goes.
# max_requests = 10000
# max_requests_jitter = 1000
# max_memory = "1G"

# ── how long ─────────────────────────────────────────────────────────────────────────────────
# For requests under way at a stop; give systemd and Docker a little more.
# graceful_timeout = "30s"
# The largest body of a request; 0 is no limit.
# limit_request_body = "10M"

# ── logs ─────────────────────────────────────────────────────────────────────────────────────
# access_log_format = "json"
# log_format = "json"
# access_log_exclude = ["/healthz"]
"""

_DJANGO = """
# ── Django ───────────────────────────────────────────────────────────────────────────────────
# Files of `manage.py collectstatic`, by STATIC_URL and STATIC_ROOT.
# static = {"/static" = "staticfiles"}
"""

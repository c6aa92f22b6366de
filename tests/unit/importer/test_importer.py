"""Targets: what loads, and what each error says is missing."""

import json
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aserver import importer
from aserver.errors import AppLoadError, ExitCode
from aserver.importer import LoadedApp, fingerprint, load, load_object, user_traceback

APP = "async def app(scope, receive, send): ...\n"


class Project:
    """A directory of modules; names begin with a prefix of their own where a test wants fresh imports."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, name: str, text: str = APP) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def load(self, target: str, **more: Any) -> LoadedApp:
        return load(target, **{"app_dir": str(self.root), **more})

    def fail(self, target: str, **more: Any) -> AppLoadError:
        with pytest.raises(AppLoadError) as caught:
            self.load(target, **more)
        assert caught.value.exit_code is ExitCode.APP_LOAD
        return caught.value


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """An empty project; what it imports and puts on sys.path is taken back."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield Project(tmp_path)
    for name in set(sys.modules) - before:
        del sys.modules[name]


# ── what loads ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["app", "application", "asgi"])
def test_module_alone_tries_the_usual_names(project: Project, name: str) -> None:
    project.write("main.py", APP.replace("app", name))
    loaded = project.load("main")
    assert (loaded.target, loaded.interface) == (f"main:{name}", "asgi")


def test_module_alone_prefers_app(project: Project) -> None:
    project.write("main.py", APP + "application = None\n")
    assert project.load("main").target == "main:app"


def test_dotted_module_and_attribute(project: Project) -> None:
    project.write("pkg/__init__.py", "")
    project.write("pkg/web.py", APP + "class Holder:\n    inner = app\nholder = Holder\n")
    loaded = project.load("pkg.web:holder.inner")
    assert (loaded.target, loaded.interface) == ("pkg.web:holder.inner", "asgi")
    assert loaded.app is sys.modules["pkg.web"].app


def test_factory(project: Project) -> None:
    project.write("main.py", APP + "def make(debug=False):\n    return app\ndef create_app():\n    return app\n")
    assert project.load("main:make", factory=True).target == "main:make()"
    assert project.load("main", factory=True).target == "main:create_app()"


def test_class_as_factory(project: Project) -> None:
    project.write("main.py", "class App:\n    async def __call__(self, scope, receive, send): ...\n")
    assert project.load("main:App", factory=True).interface == "asgi"


def test_app_dir_is_first_on_the_path_and_once(project: Project) -> None:
    project.write("main.py")
    sys.path += [str(project.root), str(project.root)]
    project.load("main:app", app_dir=".")
    assert sys.path[0] == str(project.root)
    assert sys.path.count(str(project.root)) == 1


def test_several_places_come_first_in_their_order_and_a_missing_one_is_told(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    """As gunicorn's pythonpath, which its files bring it. Fails with an app_dir that has to be one folder."""
    project.write("lib/helper.py", "")
    project.write("main.py", "import helper\n" + APP)
    project.load("main:app", app_dir="nowhere,lib,.")
    assert sys.path[:2] == [str(project.root / "lib"), str(project.root)]
    assert "app_dir names nowhere, which is not a directory" in caplog.text


def test_load_object_takes_anything(project: Project) -> None:
    project.write("hooks.py", "settings = {'a': 1}\n")
    assert load_object("hooks:settings", app_dir=str(project.root)) == {"a": 1}


# ── which interface ──────────────────────────────────────────────────────────────────────────

INTERFACES = {
    "coroutine function": ("async def app(scope, receive, send): ...", "asgi"),
    "async __call__": ("class C:\n async def __call__(self, scope, receive, send): ...\napp = C()", "asgi"),
    "lambda around an app": (
        "async def a(s, r, x): ...\napp = lambda scope, receive, send: a(scope, receive, send)",
        "asgi",
    ),
    "partial": ("import functools\nasync def a(db, s, r, x): ...\napp = functools.partial(a, None)", "asgi"),
    "decorated": (
        "import functools\nasync def a(s, r, x): ...\n@functools.wraps(a)\ndef app(*args, **kw): return a(*args)",
        "asgi",
    ),
    "async with anything": ("async def app(*args, **more): ...", "asgi"),
    "awaitable class": (
        "class app:\n def __init__(self, scope, receive, send): ...\n def __await__(self): yield",
        "asgi",
    ),
    "method": ("class C:\n async def serve(self, scope, receive, send): ...\napp = C().serve", "asgi"),
    "wsgi function": ("def app(environ, start_response): return []", "wsgi"),
    "wsgi object": ("class C:\n def __call__(self, environ, start_response): return []\napp = C()", "wsgi"),
    "wsgi with an option": ("def app(environ, start_response, extra=None): return []", "wsgi"),
    "wsgi generator": ("def app(environ, start_response): yield b''", "wsgi"),
}


@pytest.mark.parametrize("kind", INTERFACES)
def test_interface_is_told_from_the_signature(project: Project, kind: str) -> None:
    source, interface = INTERFACES[kind]
    project.write("main.py", source + "\n")
    assert project.load("main:app").interface == interface


REFUSED = {
    "None": ("app = None", "is None"),
    "module": ("import json as app", "is a module, not an app; did you mean json:app"),
    "text": ("app = 'x'", "is a str and cannot be called"),
    "class of an app": (
        "class app:\n async def __call__(self, scope, receive, send): ...",
        "is a class; an app is an instance of it, such as app = app()",
    ),
    "plain class": ("class app: ...", "instances cannot be called"),
    "asgi 2 function": ("def app(scope): ...", "ASGI 2"),
    "asgi 2 class": (
        "class app:\n def __init__(self, scope): ...\n async def __call__(self, receive, send): ...",
        "ASGI 2",
    ),
    "factory": ("def app(): ...", "try --factory"),
    "factory with an option": ("def app(config=None): ...", "try --factory"),
    "async factory": ("async def app(): ...", "must be a plain function"),
    "two async arguments": ("async def app(request, response): ...", "takes three: scope, receive, send"),
    "anything": ("def app(*args): ...", "--interface asgi or --interface wsgi"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_app_is_refused(project: Project, kind: str) -> None:
    source, text = REFUSED[kind]
    project.write("main.py", source + "\n")
    assert text in str(project.fail("main:app"))


def test_named_interface_is_trusted(project: Project) -> None:
    project.write("main.py", "def app(*args): ...\nasync def real(s, r, x): ...\n")
    assert project.load("main:app", interface="asgi").interface == "asgi"
    assert project.load("main:app", interface="wsgi").interface == "wsgi"
    assert "cannot be WSGI" in str(project.fail("main:real", interface="wsgi"))


async def test_what_is_not_a_coroutine_function_is_made_one(project: Project) -> None:
    project.write(
        "main.py",
        """
        seen = []
        class app:
            def __init__(self, scope, receive, send): self.scope = scope
            def __await__(self):
                seen.append(self.scope)
                return iter(())
        """,
    )
    coroutine: Any = project.load("main:app").app({"type": "http"}, None, None)
    assert coroutine.send is not None, "a task can be made of it"
    await coroutine
    assert sys.modules["main"].seen == [{"type": "http"}]


def test_loading_asgi_starts_nothing(project: Project) -> None:
    import threading

    project.write("main.py", APP + "def wsgi(environ, start_response): return []\n")
    before = threading.enumerate()
    project.load("main:app")
    project.load("main:wsgi")
    assert set(threading.enumerate()) <= set(before), "the zygote forks after this"


# ── what is missing ──────────────────────────────────────────────────────────────────────────


def test_missing_module_names_the_nearest(project: Project) -> None:
    project.write("application.py")
    text = str(project.fail("aplication:app"))
    assert "no module 'aplication'" in text
    assert str(project.root) in text
    assert "did you mean 'application'?" in text


def test_missing_module_that_lies_elsewhere(project: Project) -> None:
    project.write("src/zebra.py")
    assert f"there is zebra.py in {project.root / 'src'}" in str(project.fail("zebra:app"))
    project.write("src/okapi/__init__.py")
    assert f"there is okapi in {project.root / 'src'}" in str(project.fail("okapi:app"))


def test_what_the_user_may_not_read_is_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """After privileges were dropped: `user = nobody` with the app, or with Python itself, below /root."""
    project.write("main.py", "import no_such_thing\n")
    secret, listdir = project.root / "secret", os.listdir

    def refuse(place: Any = ".") -> list[str]:
        if Path(place) == secret:
            raise PermissionError
        return listdir(place)

    monkeypatch.setattr(os, "listdir", refuse)
    reason = f"({secret}) may not be read by uid {os.geteuid()}, so no app can be imported from it"
    assert reason in str(project.fail("main:app", app_dir=str(secret)))
    sys.path.append(str(secret))
    for target in ("main:app", "nowhere:app"):
        assert str(project.fail(target)).endswith(f"; uid {os.geteuid()} may not read {secret} of sys.path")


def test_missing_submodule(project: Project) -> None:
    project.write("pkg/__init__.py", "")
    project.write("pkg/website.py")
    assert "no module 'websit' in package 'pkg'" in str(project.fail("pkg.websit:app"))
    assert "did you mean 'website'?" in str(project.fail("pkg.websit:app"))
    project.write("lonely.py")
    assert "'lonely' is a module, not a package" in str(project.fail("lonely.web:app"))


def test_missing_attribute(project: Project) -> None:
    objects = "class Thing:\n    def __call__(self): ...\nother = Thing()\n"
    project.write("main.py", APP + "from json import dumps\n" + objects)
    text = str(project.fail("main:ap"))
    assert "no attribute 'ap' in module 'main' (found: other, app); did you mean 'app'?" in text
    assert "in main:app" in str(project.fail("main:app.inner"))
    project.write("empty.py", "")
    assert "nothing that could be an app" in str(project.fail("empty"))


def test_missing_attribute_that_is_a_submodule(project: Project) -> None:
    project.write("pkg/__init__.py", "")
    project.write("pkg/asgi.py")
    assert "did you mean pkg.asgi:app?" in str(project.fail("pkg:asgi"))


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("main:create_app()", "main:create_app --factory"),
        ("main.py:app", "did you mean main:app?"),
        ("src/web.py", "did you mean web:app --app-dir src?"),
        ("", "not of the form module:attribute"),
        ("main:", "not of the form module:attribute"),
        ("main:a b", "not of the form module:attribute"),
        ("a-b:app", "not of the form module:attribute"),
    ],
)
def test_wrong_form(project: Project, target: str, hint: str) -> None:
    assert hint in str(project.fail(target))


def test_app_dir_that_is_no_directory(project: Project) -> None:
    assert "is not a directory" in str(project.fail("main:app", app_dir="nowhere"))


# ── what the user's code did ─────────────────────────────────────────────────────────────────


def test_nested_import_is_not_mistaken_for_the_target(project: Project) -> None:
    project.write("main.py", "x = 1\nimport not_there_xyz\n")
    error = project.fail("main:app")
    assert "module 'main' exists, but something it imports is missing: No module named 'not_there_xyz'" in str(error)
    assert "main.py, line 2" in str(error)


def test_package_that_imports_its_own_missing_part(project: Project) -> None:
    project.write("pkg/__init__.py", "import pkg.web\n")
    error = project.fail("pkg.web:app")
    assert "something it imports is missing" in str(error)
    assert "__init__.py, line 1" in str(error)


def test_exception_at_import(project: Project) -> None:
    project.write(
        "main.py",
        """
        def connect():
            try:
                1 / 0
            except ZeroDivisionError as error:
                raise RuntimeError("no database\\nsecond line") from error
        connect()
        """,
    )
    error = project.fail("main:app")
    assert str(error) == "importing module 'main' raised RuntimeError: no database"
    assert "ZeroDivisionError" in error.detail, "the cause is kept"
    assert "in connect" in error.detail
    assert "importlib" not in error.detail
    assert "aserver" not in error.detail


def test_syntax_error_keeps_its_caret(project: Project) -> None:
    project.write("main.py", "def app(:\n    pass\n")
    error = project.fail("main:app")
    assert "raised SyntaxError" in str(error)
    assert "def app(:" in error.detail
    assert "^" in error.detail
    assert "importlib" not in error.detail


def test_exception_group_is_whole(project: Project) -> None:
    project.write("main.py", "raise ExceptionGroup('two', [ValueError('first'), OSError('second')])\n")
    detail = project.fail("main:app").detail
    assert "ValueError: first" in detail
    assert "OSError: second" in detail
    assert "importlib" not in detail


@pytest.mark.parametrize(
    "handler", ["raise error from None", "raise OSError('why') from error", "raise OSError('why')", "group"]
)
def test_whatever_belongs_to_an_error_is_cut(project: Project, handler: str) -> None:
    """Causes, contexts and members of groups that passed through importlib. Fails with any of them left out of _cut."""
    project.write("inner.py", "1 / 0\n")
    last = "raise ExceptionGroup('two', [error]) from None" if handler == "group" else handler
    # Not an import statement, of which Python cuts its own frames.
    text = f"from importlib import import_module as load\ntry: load('inner')\nexcept ArithmeticError as error: {last}\n"
    project.write("main.py", text)
    detail = project.fail("main:app").detail
    assert "inner.py" in detail
    assert "importlib" not in detail


@pytest.mark.parametrize(
    ("statement", "text"),
    [("raise SystemExit(3)", "called sys.exit(3)"), ("raise KeyboardInterrupt", "was interrupted")],
)
def test_leaving_at_import_is_a_failure_to_load(project: Project, statement: str, text: str) -> None:
    project.write("main.py", statement + "\n")
    error = project.fail("main:app")
    assert text in str(error)
    assert "main.py" in error.detail


FACTORIES = {
    "raises": ("def make(): raise OSError('no disk')", "factory main:make() raised OSError: no disk"),
    "returns None": ("def make(): ...", "returned None instead of an app; is there a return missing?"),
    "needs an argument": ("def make(config): ...", "cannot be called as a factory, without arguments"),
    "is async": ("async def make(): ...", "must be a plain function"),
    "is the app": ("async def make(scope, receive, send): ...", "drop --factory"),
    "exits": ("def make(): raise SystemExit('enough')", "called sys.exit('enough')"),
    "returns text": ("def make(): return 'x'", "main:make() is a str and cannot be called"),
}


@pytest.mark.parametrize("kind", FACTORIES)
def test_factory_that_fails(project: Project, kind: str) -> None:
    source, text = FACTORIES[kind]
    project.write("main.py", source + "\n")
    assert text in str(project.fail("main:make", factory=True))


def test_module_getattr_that_raises(project: Project) -> None:
    project.write("main.py", "def __getattr__(name):\n    raise LookupError('lazy import failed')\n")
    assert "reading main:app raised LookupError: lazy import failed" in str(project.fail("main:app"))


def test_a_module_that_a_deploy_has_just_written(project: Project) -> None:
    """In the same tick of the file system's clock as a failed look. Fails with the directory's listing kept."""
    before = project.root.stat()
    project.fail("fresh:app")
    project.write("fresh.py")
    os.utime(project.root, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert project.load("fresh:app").target == "fresh:app"


def test_the_fingerprint_is_of_the_apps_files(project: Project) -> None:
    """And of the packages it uses; neither Python's library nor aserver changes by a deploy."""
    project.write("main.py", APP + "import click, json\n")
    project.load("main:app")
    files = fingerprint()
    written = (project.root / "main.py").stat()
    assert files[str(project.root / "main.py")] == (written.st_mtime_ns, written.st_size)
    assert any("click" in path for path in files)
    assert json.__file__ not in files
    assert importer.__file__ not in files


def test_user_traceback_of_a_context(project: Project) -> None:
    def fail() -> None:
        try:
            raise KeyError("first")
        except KeyError:
            raise ValueError("second")  # noqa: B904 - the context is what is looked at

    raising: Callable[[], None] = fail
    with pytest.raises(ValueError, match="second") as caught:
        raising()
    text = user_traceback(caught.value)
    assert text.index("KeyError: 'first'") < text.index("ValueError: second")


@pytest.mark.parametrize(("manage", "hint"), [("", "package.settings"), ('("DJANGO_SETTINGS_MODULE", "a.b")', "a.b")])
def test_missing_django_settings_are_a_sentence(
    project: Project, monkeypatch: pytest.MonkeyPatch, manage: str, hint: str
) -> None:
    """With the module that manage.py names. Fails without _settings_text: Django's own words are of other remedies."""
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    project.write("manage.py", f"os.environ.setdefault{manage}\n")
    project.write("site_a.py", "raise ValueError('define the environment variable DJANGO_SETTINGS_MODULE or call x')")
    text = str(project.fail("site_a:app"))
    assert "DJANGO_SETTINGS_MODULE is not set" in text
    assert text.endswith(f"-e DJANGO_SETTINGS_MODULE={hint}")

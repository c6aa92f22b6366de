"""Targets: what loads, and what each error says is missing."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from aserver.importer import load_object
from tests.unit.importer.project import APP, Project

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

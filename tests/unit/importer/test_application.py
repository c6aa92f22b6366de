"""The app that the settings name, made servable. Each docstring says how it was seen to fail."""

from pathlib import Path

from aserver.config import Config, Layer, build
from aserver.importer.application import load_app
from aserver.static.app import StaticFiles
from aserver.wsgi.application import WSGIApplication
from tests.unit.importer.project import Project


def config(project: Project, **values: object) -> Config:
    return build([Layer("test", {"target": "served_here", "app_dir": str(project.root), **values})]).config


def test_a_wsgi_app_becomes_an_asgi_app_and_is_ended_at_the_stop(project: Project) -> None:
    """Fails without `wsgi`, by which its threads are ended."""
    project.write("served_here.py", "def app(environ, start_response): return []\n")
    loaded = load_app(config(project))
    assert isinstance(loaded.app, WSGIApplication)
    assert loaded.wsgi is loaded.app
    assert loaded.interface == "wsgi"


def test_files_stand_before_the_app(project: Project, tmp_path: Path) -> None:
    """Fails without `with_static`."""
    project.write("served_here.py")
    loaded = load_app(config(project))
    assert loaded.wsgi is None
    with_files = load_app(config(project, static=[f"/static={tmp_path}"]))
    assert isinstance(getattr(with_files.app, "__self__", None), StaticFiles)
    assert with_files.app is not loaded.app

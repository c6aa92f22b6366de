"""The fingerprint: the files that the app's code came from."""

import json

from aserver import importer
from aserver.importer import fingerprint
from tests.unit.importer.project import APP, Project


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

"""What a save means. Each docstring says how it was seen to fail."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aserver.config import Layer, build
from aserver.master import saves
from aserver.master.core.events import CodeChanged
from aserver.master.saves import Saves


class Watch:
    """In place of the watch of files: a test saves by `saved`."""

    def __init__(self, places: set[str], _patterns: object, delay: float, saved: Any) -> None:
        self.places, self.delay, self.saved = places, delay, saved


class Stage:
    def __init__(self, folder: Path, **values: object) -> None:
        config = build([Layer("test", {"target": "x:y", "reload": True, **values})]).config
        resources: Any = SimpleNamespace(config=config, directory=str(folder))
        self.folder = folder
        self.changes: list[CodeChanged] = []
        self.reloads: list[str] = []
        made = Saves.watched(resources, self.changes.append, self.reloads.append)
        assert made is not None
        self.watch: Any = made.watch

    def save(self, *names: str) -> None:
        self.watch.saved(frozenset(str(self.folder / name) for name in names))


@pytest.fixture(autouse=True)
def _watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saves, "FileWatch", Watch)


def test_the_users_code_is_a_new_worker_and_everything_else_a_new_generation(tmp_path: Path) -> None:
    """Fails where settings wait for a restart, or where each save loads the installed packages again."""
    stage = Stage(tmp_path, env_file="of_mine.env", config=str(tmp_path / "aserver.toml"))
    stage.save("shop/views.py")
    assert ([change.why for change in stage.changes], stage.reloads) == (["shop/views.py was saved"], [])
    for name in ("of_mine.env", "aserver.toml", ".venv/lib/python3.11/site-packages/django/conf.py"):
        stage.save("shop/views.py", name)
    assert len(stage.changes) == 1
    assert [Path(words.split()[0]).name for words in stage.reloads] == ["of_mine.env", "aserver.toml", "conf.py"]


def test_the_places_are_the_projects(tmp_path: Path) -> None:
    """Fails with the directory alone where code lies elsewhere, or with relative names, which `chdir` changes."""
    watched = Stage(tmp_path, app_dir="src,.", chdir="run").watch
    assert watched.places == {str(tmp_path), str(tmp_path / "src"), str(tmp_path / "run")}
    assert Stage(tmp_path, reload_dir=["lib"]).watch.places == {str(tmp_path / "lib"), str(tmp_path)}


def test_nothing_is_watched_unless_it_is_asked_for() -> None:
    """Fails with a watch in production."""
    resources: Any = SimpleNamespace(config=build([Layer("test", {"target": "x:y"})]).config, directory=None)
    assert Saves.watched(resources, print, print) is None

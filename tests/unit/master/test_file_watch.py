"""Saves of a project are told, whatever an editor does; everything else is not."""

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from aserver import unix
from aserver.master import file_watch
from aserver.master.file_watch import FileWatch, Patterns, in_words
from tests.harness.waiting import eventually

pytestmark = pytest.mark.skipif(not unix.LINUX, reason="inotify")


class Saved:
    """The names of the files that were told."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self.names: set[str] = set()

    def __call__(self, files: frozenset[str]) -> None:
        self.names |= {os.path.relpath(file, self._base) for file in files}

    async def become(self, *names: str) -> None:
        """Wait for these names, and no others."""
        await eventually(lambda: set(names) <= self.names, what=f"{names}, not {self.names}")
        assert self.names == set(names)
        self.names = set()


@asynccontextmanager
async def watching(base: Path, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> AsyncIterator[Saved]:
    saved = Saved(base)
    watch = FileWatch([str(base)], Patterns(include, exclude, [str(base / "dev.env")]), 0.01, saved)
    try:
        yield saved
    finally:
        watch.close()


def _write(path: Path) -> None:
    path.write_text("saved")


def _replace(path: Path) -> None:
    other = path.with_name(".swap")
    other.write_text("saved")
    other.rename(path)


def _remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("save", [_write, _replace, _remove])
async def test_a_save_is_told_however_the_editor_makes_it(tmp_path: Path, save: Callable[[Path], None]) -> None:
    (tmp_path / "pkg").mkdir()
    path = tmp_path / "pkg" / "main.py"
    path.write_text("before")
    async with watching(tmp_path) as saved:
        save(path)
        await saved.become("pkg/main.py")


async def test_patterns_say_which_files_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Templates and uvicorn's patterns count; hidden files, databases, packages and excluded places do not."""
    caplog.set_level(logging.DEBUG, "aserver.master")
    for directory in ("node_modules", ".git", "env", "made"):
        (tmp_path / directory).mkdir()
    (tmp_path / "env" / "pyvenv.cfg").touch()
    async with watching(tmp_path, ("*.yaml",), ("gen_*.py", str(tmp_path / "made"))) as saved:
        others = (
            "node_modules/a.py",
            ".git/a.py",
            "env/a.py",
            "made/a.py",
            ".a.py",
            "gen_a.py",
            "data.sqlite",
            "a.pyc",
        )
        for name in (*others, "page.html", "a.yaml", "dev.env", "uv.lock", "last.py"):
            (tmp_path / name).write_text("")
        await saved.become("page.html", "a.yaml", "dev.env", "uv.lock", "last.py")
    assert "gen_a.py was saved, and is not watched: see reload_include" in caplog.text


async def test_a_directory_that_is_new_is_watched(tmp_path: Path) -> None:
    """Also the files that are in it before the watch begins. Fails without `new` in `_enter`."""
    made = tmp_path / "elsewhere"
    (made / "deep").mkdir(parents=True)
    (made / "deep" / "a.py").touch()
    project = tmp_path / "project"
    project.mkdir()
    async with watching(project) as saved:
        made.rename(project / "made")
        await saved.become("made/deep/a.py")
        (project / "made" / "deep" / "b.py").touch()
        await saved.become("made/deep/b.py")


async def test_an_installation_is_told(tmp_path: Path) -> None:
    """By pip's own directory, and once for all of its files. Fails without `look_at`."""
    place = tmp_path / "lib" / "site-packages"
    (place / "package").mkdir(parents=True)
    project = tmp_path / "project"
    project.mkdir()
    saved = Saved(place)
    watch = FileWatch([str(project)], Patterns((), (), ()), 0.01, saved)
    watch.look_at([str(place / "package" / "__init__.py")])
    (place / "other-1.0.dist-info").mkdir()
    await saved.become("other-1.0.dist-info")
    watch.close()


async def test_without_inotify_times_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_watch, "_open_inotify", lambda: None)
    monkeypatch.setattr(file_watch, "POLL_PERIOD", 0.01)
    async with watching(tmp_path) as saved:
        (tmp_path / "a.py").write_text("")
        await saved.become("a.py")
        (tmp_path / "a.py").unlink()
        await saved.become("a.py")


async def test_it_leaves_no_descriptor(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    async with watching(tmp_path):
        pass
    assert set(os.listdir("/proc/self/fd")) <= before


def test_the_sentence_has_the_names_that_the_user_knows() -> None:
    assert in_words(["/p/app/main.py"], "/p") == "app/main.py was saved"
    assert in_words(["/p/b.py", "/p/a.py", "/q/x.py"], "/p") == "/q/x.py and 2 more were saved"

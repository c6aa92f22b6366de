"""Changed files are named, and looking at them never takes the master's time for long."""

import os
from pathlib import Path

from aserver.master.code_watch import NAMED, LoadedCode


def _known(*paths: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}


def test_each_set_of_changed_files_is_told_once(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.py" for number in range(NAMED + 2)]
    for file in files:
        file.touch()
    code = LoadedCode(_known(*files))
    assert code.news() is None
    files[0].write_text("x")
    assert code.news() == f"{files[0]} changed on disk since the code was loaded"
    assert code.news() is None
    for file in files:
        file.unlink()
    assert str(code.news()).endswith("4.py and 2 more changed on disk since the code was loaded")


def test_a_look_without_time_goes_on_at_the_next_one(tmp_path: Path) -> None:
    """Fails with a loop over all the files: 50,000 paths through chains of links took the master minutes."""
    files = [tmp_path / str(number) for number in range(4)]
    for file in files:
        file.touch()
    code = LoadedCode(_known(*files))
    files[0].unlink()
    looks = 0
    while (news := code.news(seconds=0.0)) is None:
        looks += 1
        assert code.under_way
    assert looks == len(files)
    assert news == f"{files[0]} changed on disk since the code was loaded"
    assert not code.under_way


def test_names_do_not_reach_the_terminal_as_they_are() -> None:
    """Fails without `printable`."""
    news = LoadedCode({f"{os.sep}\x1b[31m\r": (0, 0)}).news()
    assert news == "/\\x1b[31m\\r changed on disk since the code was loaded"

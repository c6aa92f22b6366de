"""Generators made at import are named by their line, and nothing is changed."""

import random
import tempfile
from pathlib import Path
from secrets import SystemRandom

import pytest

from aserver.zygote.generators import RandomWatch


def test_a_generator_without_a_seed_that_still_exists_is_named() -> None:
    """Once for each line. Fails without the patch of `__init__`."""
    original = random.Random.__init__
    with RandomWatch() as watch:
        kept = [random.Random() for _ in range(2)]
        random.Random()
        seeded, kernel = random.Random(7), SystemRandom()
    (told,) = watch.remarks()
    assert told.count("random.Random() for _ in range(2)") == 1
    assert told.count(__file__) == 1
    assert random.Random.__init__ is original
    assert seeded.random() == random.Random(7).random()
    assert kernel.random() != kept[0].random() != kept[1].random()


def test_a_subclass_is_named_and_many_are_few() -> None:
    class Dice(random.Random):
        pass

    with RandomWatch() as watch:
        kept = [
            Dice(),
            Dice(),
            Dice(),
            Dice(),
        ]
    (told,) = watch.remarks()
    assert "and 1 more: all workers get the same numbers" in told
    assert len(kept) == 4
    assert RandomWatch().remarks() == ()


def test_a_librarys_is_not_told(tmp_path: Path) -> None:
    """Fails without LIBRARIES: each user of aiohttp would be warned, who cannot change it."""
    line = compile("kept = random.Random()", str(tmp_path / "site-packages/aiohttp/writer.py"), "exec")
    names = {"random": random}
    with RandomWatch() as watch:
        exec(line, names)
    assert "kept" in names
    assert watch.remarks() == ()


def test_the_standard_librarys_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ThreadPool at import makes tempfile's. Fails without _STANDARD: advice to seed what nobody can reach."""
    monkeypatch.setattr(tempfile, "_name_sequence", None)
    with RandomWatch() as watch:
        tempfile.mktemp()
    assert watch.remarks() == ()

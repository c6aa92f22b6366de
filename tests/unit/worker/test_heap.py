"""What has grown between two looks at this process's objects."""

import gc
from collections.abc import Iterator

import pytest

from aserver.worker.heap import Heap


class Order:
    """Kept too long."""

    def __init__(self, text: str) -> None:
        self.text = text


@pytest.fixture
def thawed() -> Iterator[None]:
    """Objects frozen by a test are the collector's again."""
    yield
    gc.unfreeze()


def test_types_are_told_by_how_much_they_have_grown(thawed: None) -> None:
    """Objects in a container that was frozen at boot, too. Fails without the look into objects for others."""
    cache: dict[int, object] = {}
    before = Heap()
    gc.freeze()
    for number in range(5000):
        cache[number] = Order("x" * 1000 + str(number))
    cache[-1] = b"y" * (3 << 20)
    text, data, *others = before.growth()
    assert text.startswith("builtins.str +50")
    assert data.startswith("builtins.bytes +")
    assert data.endswith("(+3.0 MiB)")
    assert any(each.startswith(f"{__name__}.Order +5000 ") for each in others)

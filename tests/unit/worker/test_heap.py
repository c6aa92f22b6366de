"""What has grown between two looks at this process's objects."""

import gc
import subprocess
import sys

from aserver.worker.heap import Heap
from tests.harness.server import REPOSITORY


class Order:
    """Kept too long."""

    def __init__(self, text: str) -> None:
        self.text = text


def grow() -> None:
    """Keep some objects, also in a container that was frozen at boot."""
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


def test_types_are_told_by_how_much_they_have_grown() -> None:
    """In a small process: pytest has a million objects to look at. Fails without the look into objects for others."""
    code = f"from {__name__} import grow; grow()"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

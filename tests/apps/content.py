"""What all the test apps serve, and how they tell that they started and stopped."""

import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

#: More than 1 MB and not a multiple of any buffer size; the same in the app and in the test.
DOWNLOAD = random.Random(7).randbytes(1_500_001)

LINES = [f"line {number}\n" for number in range(20)]

GREETING = {"hello": "world", "ünïcode": "✓"}


def note(event: str) -> None:
    """Append a line to the file that APP_EVENTS names, if it does."""
    path = os.environ.get("APP_EVENTS")
    if path:
        with Path(path).open("a") as file:
            file.write(event + "\n")


def pieces(data: bytes, size: int = 65_536) -> Iterator[bytes]:
    """`data` cut into pieces of `size` bytes."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def receipt(data: bytes) -> dict[str, int | str]:
    """What an upload is answered with."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

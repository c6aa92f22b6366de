"""Keeps `.pyc` files of sources that were saved just now from being written (`reload`).

Runs in workers that load the application themselves. A `.pyc` is valid for a source of the same size and of the same
second: after two saves in a second, the code of the first would run for ever.
"""

import time
from importlib.machinery import SourceFileLoader
from typing import Any

#: Seconds after which the source's second is certainly over.
AGE = 2


def keep_fresh_bytecode_out() -> None:
    """From now on this process writes no bytecode of files younger than AGE."""
    original = SourceFileLoader.set_data

    def set_data(self: SourceFileLoader, path: str, data: Any, **more: Any) -> None:
        saved = int.from_bytes(data[8:12], "little")  # PEP 552
        if time.time() - saved > AGE:  # noqa: TID251 - compared with a file's time
            original(self, path, data, **more)

    SourceFileLoader.set_data = set_data  # type: ignore[method-assign]

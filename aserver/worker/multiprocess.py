"""Files of the application's own metrics, as prometheus_client writes them in multiprocess mode: those of dead workers.

That library keeps the files of every process for ever, so that counters stay. With recycling they become thousands, and
each scrape reads them all. A worker that boots adds those of dead processes up in one file for each kind. A reader may
look while that happens and see a counter too small or too large; so it is done rarely, for many files at once.
"""

import fcntl
import importlib
import logging
import os
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger("aserver.error")

Value = tuple[float, float]  # and when it was set, Unix time

#: Files of dead processes that are left as they are.
FEW = 32
#: Bytes of a file without values. Emptied files are removed the next time: a reader may have just listed them.
_EMPTY = 8
#: How values of two processes become one, by kind; a gauge of mode `all` has a process's own value, and stays.
_MERGES: Mapping[str, Callable[[Value, Value], Value]] = {
    **dict.fromkeys(("counter", "histogram", "summary", "gauge_sum"), lambda old, new: (old[0] + new[0], new[1])),
    "gauge_min": min,
    "gauge_max": max,
    "gauge_mostrecent": lambda old, new: max(old, new, key=lambda value: value[1]),
}


def merge_dead(environ: Mapping[str, str], few: int = FEW) -> None:
    """Add up the files of dead processes, if the application uses that mode and there are more than `few`."""
    directory = environ.get("PROMETHEUS_MULTIPROC_DIR") or environ.get("prometheus_multiproc_dir")
    if not directory or "prometheus_client" not in sys.modules:
        return
    try:
        with Path(directory, "aserver.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            dead = [file for file in Path(directory).glob("*_*.db") if _is_dead(file)]
            if len(dead) > few:
                _merge(dead)
    except BlockingIOError:
        pass  # another worker is at it
    except (OSError, ValueError, TypeError, RuntimeError, struct.error) as error:
        log.warning("metrics of dead workers in %s could not be merged: %s", directory, error)


def _is_dead(file: Path) -> bool:
    pid = file.stem.rpartition("_")[2]
    if not pid.isdigit() or pid == "0":
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _merge(dead: Iterable[Path]) -> None:
    kinds: dict[str, list[Path]] = {}
    for file in dead:
        kind = file.stem.rpartition("_")[0]
        if kind.startswith("gauge_live") or _used(file) <= _EMPTY:
            file.unlink()
        elif kind in _MERGES:
            kinds.setdefault(kind, []).append(file)
    for kind, files in kinds.items():
        _merge_kind(kind, files)


def _merge_kind(kind: str, files: list[Path]) -> None:
    library: Any = importlib.import_module("prometheus_client.mmap_dict")  # the application's
    merged = files[0].with_name(f"{kind}_0.db")
    values: dict[str, Value] = {}
    for file in [*([merged] if merged.exists() else []), *files]:
        for key, value, timestamp, _ in library.MmapedDict.read_all_values_from_file(str(file)):
            values[key] = _MERGES[kind](values[key], (value, timestamp)) if key in values else (value, timestamp)
    new = merged.with_suffix(".new")
    new.unlink(missing_ok=True)
    written = library.MmapedDict(str(new))
    for key, (value, timestamp) in values.items():
        written.write_value(key, value, timestamp)
    written.close()
    new.rename(merged)
    for file in files:
        with file.open("r+b") as emptied:
            emptied.write(struct.pack("i", _EMPTY))


def _used(file: Path) -> int:
    with file.open("rb") as opened:
        return int(struct.unpack("i", opened.read(4))[0])

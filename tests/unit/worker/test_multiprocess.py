"""Files of dead workers' metrics become one for each kind, and no counter loses by it. With real processes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from aserver.worker.multiprocess import merge_dead

WORKER = """
import sys
from prometheus_client import Counter, Gauge, Histogram
number = int(sys.argv[1])
Counter("orders", "x", ["shop"]).labels("a").inc(number)
Histogram("seconds", "x").observe(number)
for mode in ("max", "min", "sum", "mostrecent", "livesum", "all"):
    Gauge(mode, "x", multiprocess_mode=mode).set(number)
"""


def work(directory: Path, *numbers: int) -> None:
    """Processes that count and end, one after the other."""
    for number in numbers:
        environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory)}
        subprocess.run([sys.executable, "-c", WORKER, str(number)], check=True, env=environ)


def samples(directory: Path) -> dict[str, float]:
    registry = CollectorRegistry()
    collector: Any = MultiProcessCollector
    collector(registry, str(directory))
    found = [sample for metric in registry.collect() for sample in metric.samples if "pid" not in sample.labels]
    return {f"{each.name}{sorted(each.labels.values())}": each.value for each in found}


def test_all_values_stay_and_the_files_go(tmp_path: Path) -> None:
    """Also where they are merged again. Fails if the merged file is not taken in, or emptied ones count on."""
    environ = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    work(tmp_path, 3, 5)
    before = samples(tmp_path)
    assert before["orders_total['a']"] == 8
    merge_dead(environ, few=100)
    assert len(list(tmp_path.glob("counter_*"))) == 2, "few files stay as they are"
    merge_dead(environ, few=0)
    assert samples(tmp_path) == {key: value for key, value in before.items() if key != "livesum[]"}
    work(tmp_path, 4)
    merge_dead(environ, few=0)
    merge_dead(environ, few=0)
    after = samples(tmp_path)
    assert [after[name] for name in ("orders_total['a']", "max[]", "min[]", "sum[]", "mostrecent[]")] == [
        12,
        5,
        3,
        12,
        4,
    ]
    assert after["seconds_count[]"] == 3
    left = sorted(each.name for each in tmp_path.glob("*.db") if not each.name.startswith("gauge_all"))
    assert left == [
        f"{kind}_0.db" for kind in ("counter", "gauge_max", "gauge_min", "gauge_mostrecent", "gauge_sum", "histogram")
    ]


def test_files_of_living_processes_are_theirs(tmp_path: Path) -> None:
    work(tmp_path, 3)
    (file,) = tmp_path.glob("counter_*.db")
    file.rename(tmp_path / f"counter_{os.getpid()}.db")
    merge_dead({"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}, few=0)
    assert (tmp_path / f"counter_{os.getpid()}.db").exists()
    assert not (tmp_path / "counter_0.db").exists()


def test_a_file_that_is_none_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A worker boots all the same. Fails if the error goes on."""
    work(tmp_path, 3)
    (file,) = tmp_path.glob("counter_*.db")
    file.write_bytes(b"")
    merge_dead({"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}, few=0)
    assert "could not be merged" in caplog.text

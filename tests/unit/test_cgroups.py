"""Control groups: folders in the forms of both versions, and a real one of version 1 where this user may make it."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from aserver import cgroups
from tests.harness.groups import group

V2 = "0::/app.slice/web.service\n"
V1 = "5:cpu,cpuacct:/web\n4:memory:/docker/abc\n0::/\n"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(cgroups, "_MOUNT", tmp_path / "cgroup")
    monkeypatch.setattr(cgroups, "_OWN", tmp_path / "own")
    monkeypatch.setattr(cgroups, "_SYSTEM", tmp_path / "vmstat")
    yield tmp_path
    monkeypatch.undo()


def write(tree: Path, own: str, files: Mapping[str, str]) -> None:
    (tree / "own").write_text(own)
    for name, text in files.items():
        file = tree / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("", {}, None),
        ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),
        (V2, {"app.slice/web.service/cpu.max": "max 100000", "app.slice/cpu.max": "200000 100000"}, 2),
        (V2, {"app.slice/web.service/cpu.max": "50000 100000", "app.slice/cpu.max": "200000 100000"}, 0.5),
        (V2, {"cpu.max": "300000 100000"}, 3),  # in a container the mount is the group
        (V1, {"cpu/web/cpu.cfs_quota_us": "250000", "cpu/web/cpu.cfs_period_us": "100000"}, 2.5),
        (V1, {"cpu/web/cpu.cfs_quota_us": "-1", "cpu/web/cpu.cfs_period_us": "100000"}, None),
        (V1, {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        (V1, {"cpu/other/cpu.cfs_quota_us": "100000", "cpu/other/cpu.cfs_period_us": "100000"}, None),
        (V2, {"app.slice/web.service/cpu.max": "nonsense"}, None),
    ],
)
def test_the_quota_of_cpus(tree: Path, own: str, files: Mapping[str, str], quota: float | None) -> None:
    write(tree, own, files)
    assert cgroups.cpu_quota() == quota


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/\n", {"memory.max": "1048576"}, 1 << 20),
        ("0::/\n", {"memory.max": "max"}, None),
        (V2, {"app.slice/web.service/memory.max": "4096", "app.slice/memory.max": "max"}, 4096),
        (V2, {"app.slice/web.service/memory.max": "max", "app.slice/memory.max": "8192"}, 8192),
        (V1, {"memory/docker/abc/memory.limit_in_bytes": "2097152"}, 2 << 20),
        (V1, {"memory/memory.limit_in_bytes": "2097152"}, 2 << 20),
        (V1, {"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
        ("", {}, None),
    ],
)
def test_the_limit_of_memory(tree: Path, own: str, files: Mapping[str, str], limit: int | None) -> None:
    write(tree, own, files)
    assert cgroups.memory_limit() == limit


@pytest.mark.parametrize(
    ("own", "files", "kills"),
    [
        ("0::/\n", {"memory.events": "low 0\noom 2\noom_kill 1"}, ("cgroup /", 1)),
        (V2, {"app.slice/web.service/memory.events": "oom_kill 3"}, ("cgroup /app.slice/web.service", 3)),
        (V1, {"memory/docker/abc/memory.oom_control": "under_oom 0\noom_kill 2"}, ("cgroup /docker/abc", 2)),
        (V1, {"memory/memory.oom_control": "under_oom 0\noom_kill 5"}, ("cgroup /", 5)),
        (V1, {"memory/memory.oom_control": "under_oom 0"}, ("the system", 7)),  # a kernel before 4.13
        ("", {}, ("the system", 7)),
    ],
)
def test_the_kills_for_memory(tree: Path, own: str, files: Mapping[str, str], kills: tuple[str, int]) -> None:
    write(tree, own, files)
    (tree / "vmstat").write_text("pgfault 1\noom_kill 7\n")
    assert cgroups.oom_kills() == kills


def test_without_any_files_nothing_is_known(tree: Path) -> None:
    assert (cgroups.cpu_quota(), cgroups.memory_limit(), cgroups.oom_kills()) == (None, None, ("the system", 0))


IN_A_GROUP = """
import os, sys
for folder in sys.argv[1:]:
    open(folder + "/cgroup.procs", "w").write(str(os.getpid()))
from aserver import cgroups, unix
print(cgroups.memory_limit(), cgroups.cpu_quota(), unix.usable_cpus(), *cgroups.oom_kills())
"""


def test_a_real_group_of_version_1() -> None:
    with group("memory") as memory, group("cpu") as cpu:
        (memory / "memory.limit_in_bytes").write_text(str(64 << 20))
        (cpu / "cpu.cfs_period_us").write_text("100000")
        (cpu / "cpu.cfs_quota_us").write_text("50000")
        command = [sys.executable, "-c", IN_A_GROUP, str(memory), str(cpu)]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert out == [str(64 << 20), "0.5", "1", "cgroup", f"/{memory.relative_to('/sys/fs/cgroup/memory')}", "0"]

"""Reads the kernel's accounting of a process tree: CPU time and memory.

Runs in the harness process, on the load generator's CPUs. Never signals anything.

The tree is all descendants of the root and all processes of its session. Each server leads a session of its own. The
session has the orphans: when a process dies, its children are no longer descendants of the root.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Stat:
    """Some fields of /proc/PID/stat (proc(5)). Times in seconds."""

    pid: int
    state: str
    parent: int
    session: int
    cpu: float  # utime + stime + cutime + cstime: a child's time moves to its parent when it is reaped


def parse_stat(text: str, ticks: int = _TICKS) -> Stat:
    """Parse /proc/PID/stat. The fields begin after the last bracket, because a command name may have brackets."""
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return Stat(
        pid=int(head.split(" ", 1)[0]),
        state=fields[0],
        parent=int(fields[1]),
        session=int(fields[3]),
        cpu=sum(int(fields[index]) for index in (11, 12, 13, 14)) / ticks,
    )


def select_tree(stats: Iterable[Stat], root: int) -> list[Stat]:
    """Return the root, its descendants, and all processes of its session."""
    everything = {stat.pid: stat for stat in stats}
    children: dict[int, list[int]] = {}
    for stat in everything.values():
        children.setdefault(stat.parent, []).append(stat.pid)
    chosen: set[int] = set()
    waiting = [root, *(stat.pid for stat in everything.values() if stat.session == root)]
    while waiting:
        pid = waiting.pop()
        if pid in everything and pid not in chosen:
            chosen.add(pid)
            waiting.extend(children.get(pid, ()))
    return [everything[pid] for pid in sorted(chosen)]


def tree(root: int) -> list[Stat]:
    """Return the tree of a process now. Zombies are included: their CPU time is not yet their parent's."""
    stats = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                stats.append(parse_stat(Path(entry.path, "stat").read_text()))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return select_tree(stats, root)


def cpu_seconds(root: int) -> float:
    """Return the CPU time of a tree so far, user and system, with that of reaped children."""
    return sum(stat.cpu for stat in tree(root))


@dataclass(frozen=True)
class Memory:
    """Memory of a tree in bytes. `rss` counts a page once for each process that shares it; `pss` counts it once."""

    pss: int = 0
    rss: int = 0
    private: int = 0
    processes: int = 0


def parse_rollup(text: str) -> dict[str, int]:
    """Parse /proc/PID/smaps_rollup into bytes by field."""
    sizes: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        parts = rest.split()
        if len(parts) == 2 and parts[1] == "kB":
            sizes[name] = int(parts[0]) * 1024
    return sizes


def memory(root: int) -> Memory:
    """Return the memory of a tree now, without processes that end meanwhile."""
    pss = rss = private = processes = 0
    for stat in tree(root):
        try:
            sizes = parse_rollup(Path(f"/proc/{stat.pid}/smaps_rollup").read_text())
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if not sizes:
            continue
        pss += sizes.get("Pss", 0)
        rss += sizes.get("Rss", 0)
        private += sizes.get("Private_Clean", 0) + sizes.get("Private_Dirty", 0)
        processes += 1
    return Memory(pss, rss, private, processes)

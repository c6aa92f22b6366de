"""The machine: its tools, its facts, and the division of its CPUs between the server and the load.

Runs in the harness process. It never changes the machine: it reads /proc, and pins only processes that it starts.
"""

import os
import platform
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# The Debian package of each tool, for the message when the tool is missing.
PACKAGES = {"wrk": "wrk", "nginx": "nginx-light", "openssl": "openssl"}


class MissingToolError(Exception):
    """A program that the scenario needs is not installed."""


def tool(name: str) -> str:
    """Return the path of a program, or raise MissingToolError that says how to get it."""
    # nginx is in sbin, which an ordinary user's PATH may not have.
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise MissingToolError(f"{name} is not installed (Debian: apt-get install {PACKAGES.get(name, name)})")
    return found


@dataclass(frozen=True)
class Processors:
    """The CPUs of the server and those of the load generator."""

    server: frozenset[int]
    load: frozenset[int]

    @property
    def shared(self) -> bool:
        """Whether both run on the same CPU, so that only CPU time, not throughput or latency, means anything."""
        return bool(self.server & self.load)


def share_out(usable: set[int], workers: int) -> Processors:
    """Give the server a CPU per worker, the load the rest, and each at least one.

    If there is only one CPU, both get it. If there are more workers than CPUs, the load still has a CPU of its own.
    """
    ordered = sorted(usable)
    if len(ordered) == 1:
        return Processors(frozenset(ordered), frozenset(ordered))
    for_server = min(max(workers, 1), len(ordered) - 1)
    return Processors(frozenset(ordered[:for_server]), frozenset(ordered[for_server:]))


@contextmanager
def pinned(cpus: frozenset[int]) -> Iterator[None]:
    """Run the block on these CPUs. Processes that it starts inherit them.

    That works without taskset or a preexec_fn, because the harness has a single thread.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard limit (children inherit it); return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def describe() -> dict[str, str]:
    """Return facts by which figures can be judged, without the machine's name."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model or platform.machine(),
        "cpus": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release().split("-")[0],
        "load average at start": f"{os.getloadavg()[0]:.2f}",
    }

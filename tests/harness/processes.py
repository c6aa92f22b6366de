"""Who is running, read from /proc (proc_pid_stat(5)); empty where there is none (macOS)."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """One process; `start` (clock ticks since the machine's boot) tells it from a later one with the same pid.

    Equal is what is the same process, whatever it is doing.
    """

    pid: int
    parent: int
    session: int
    state: str = field(compare=False)  # "R", "S", "D", "T", "Z", ...
    start: int
    title: str

    @property
    def alive(self) -> bool:
        """Still there and not merely waiting to be reaped."""
        now = process(self.pid)
        return now is not None and now.start == self.start and now.state not in "ZX"

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to this very process; nothing happens if it has gone."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def status(self, field: str) -> str:
        """A field of /proc/PID/status, such as "VmRSS" or "Threads"; empty if the process has gone."""
        with suppress(OSError):
            for line in (_PROC / str(self.pid) / "status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name == field:
                    return value.strip()
        return ""

    def descriptors(self) -> dict[int, str]:
        """Open descriptors and what they point to."""
        found: dict[int, str] = {}
        with suppress(OSError):
            for entry in (_PROC / str(self.pid) / "fd").iterdir():
                with suppress(OSError):
                    found[int(entry.name)] = str(entry.readlink())
        return found


def process(pid: int) -> Process | None:
    """The process with this pid, or None."""
    found = _seen(str(pid))
    return found and _titled(found)


def _seen(pid: str) -> Process | None:
    """As `process`, with the name as the title: one file to read. Tests look at all of them several times a second."""
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:
            stat = file.read()
    except OSError:
        return None
    # The second field is the name in parentheses and may itself hold spaces and parentheses.
    name, _, rest = stat.partition("(")[2].rpartition(")")
    fields = rest.split()
    return Process(int(pid), int(fields[1]), int(fields[3]), fields[0], int(fields[19]), f"({name})")


def _titled(seen: Process) -> Process:
    """With its command line, if it has one; a process that has gone meanwhile keeps its name."""
    with suppress(OSError):
        line = (_PROC / str(seen.pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return replace(seen, title=line or seen.title)
    return seen


def processes() -> Iterator[Process]:
    """All processes that can be seen."""
    return map(_titled, _all())


def _all() -> Iterator[Process]:
    """All processes that can be seen, without their titles."""
    if not _PROC.is_dir():
        return
    for name in os.listdir(_PROC):
        if name.isdigit() and (found := _seen(name)) is not None:
            yield found


def descendants(pid: int) -> list[Process]:
    """Children of `pid`, their children and so on, living ones only, oldest first."""
    by_parent: dict[int, list[Process]] = {}
    for candidate in _all():
        if candidate.state not in "ZX":
            by_parent.setdefault(candidate.parent, []).append(candidate)
    found: list[Process] = []
    queue = [pid]
    while queue:
        children = by_parent.get(queue.pop(), [])
        found += children
        queue += [child.pid for child in children]
    return sorted(map(_titled, found), key=lambda each: (each.start, each.pid))


def in_session(session: int) -> list[Process]:
    """Living processes of one session: also those whose parent has died, which no tree shows."""
    return [_titled(each) for each in _all() if each.session == session and each.state not in "ZX"]

"""Control groups (cgroups(7), version 1 and 2): the limits of this process's group, and the kernel's kills in it.

Used by every process. It only reads files, and keeps nothing. Without control groups, as on macOS, nothing is
limited and nothing is counted.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

_MOUNT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_SYSTEM = Path("/proc/vmstat")
#: Version 1 writes "no limit" as a number near 2**63.
_NO_LIMIT = 1 << 60


def cpu_quota() -> float | None:
    """How many CPUs' time the tightest of this group and its ancestors allows; None without a limit."""
    quotas = []
    for folder in _groups("cpu"):
        with contextlib.suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text("ascii").split()
            if quota != "max":
                quotas.append(int(quota) / int(period))
        with contextlib.suppress(OSError, ValueError):
            quota_us = int((folder / "cpu.cfs_quota_us").read_text("ascii"))
            if quota_us > 0:  # -1: none
                quotas.append(quota_us / int((folder / "cpu.cfs_period_us").read_text("ascii")))
    return min(quotas, default=None)


def memory_limit() -> int | None:
    """Bytes that the tightest of this group and its ancestors allows; None without a limit."""
    limits = []
    for folder in _groups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):  # "max" is no number
                limits.append(int((folder / name).read_text("ascii")))
    return min((limit for limit in limits if limit < _NO_LIMIT), default=None)


def oom_kills() -> tuple[str, int]:
    """How many processes the kernel has killed for memory, and whose: this group's if it is known, else the system's.

    A group counts its own members, whoever's limit was reached: an ancestor's, or the machine's.
    """
    for folder in _groups("memory"):
        for name in ("memory.events", "memory.oom_control"):
            if (count := _field(folder / name, "oom_kill")) is not None:
                return f"cgroup {_shown(folder)}", count
    return "the system", _field(_SYSTEM, "oom_kill") or 0


def _field(file: Path, key: str) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        for line in file.read_text("ascii").splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    return None


def _shown(folder: Path) -> str:
    """A group as `/proc/PID/cgroup` has it."""
    inside = folder.relative_to(_MOUNT).parts
    return "/" + "/".join(inside[1:] if inside[:1] == ("memory",) else inside)


def _groups(controller: str) -> Iterator[Path]:
    """The folders of this process's group and its ancestors, in either version, from the group upwards.

    In a container that does not see the host's folders, the mount itself is the group.
    """
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in _OWN.read_text("utf-8").splitlines():
            _, names, path = line.split(":", 2)
            if names in ("", controller) or controller in names.split(","):
                mount = _MOUNT / controller if names else _MOUNT
                folder = mount / path.lstrip("/")
                for level in (folder, *folder.parents):
                    if level.is_dir():
                        yield level
                    if level == mount:
                        break

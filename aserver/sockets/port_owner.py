"""The owner of an address: turns "address in use" into a pid and a command line.

Runs in the process that binds, on the error path only. It reads /proc (proc(5)) and must never raise: the answer is
None if the owner cannot be known (another system, another user, another namespace).
"""

import contextlib
import os
import pwd
import socket
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_TCP_LISTEN = "0A"  # include/net/tcp_states.h
_UNIX_LISTENING = 0x10000  # __SO_ACCEPTCON, the Flags column of /proc/net/unix
_UNIX_UNCONNECTED = "01"  # SS_UNCONNECTED: bound or listening; an accepted connection shows 03 and the same path
_COMMAND_LENGTH = 80  # characters of a command line, so that it reads as part of a sentence


class UnixSocket(NamedTuple):
    """A line of /proc/net/unix that can be a server: a stream socket bound to a name."""

    inode: int
    listening: bool
    name: str


def of_port(family: int, host: str, port: int) -> str | None:
    """The process that listens on `host:port` or on an address that covers it.

    As `pid 4711 (python app.py)`; only its user where the process cannot be seen; None if there is none.
    """
    inodes: set[int] = set()
    users: set[int] = set()
    for entry_host, entry_port, user, inode in _listening_tcp():
        if entry_port == port and _overlap(family, host, entry_host):
            inodes.add(inode)
            users.add(user)
    return _describe(inodes) or (_describe_user(min(users)) if users else None)


def of_unix(names: Collection[str], peer_pid: int = 0) -> str | None:
    """The process that has bound any of `names` (paths, or `@abstract`). `peer_pid`: SO_PEERCRED's answer, or 0.

    SO_PEERCRED has the pid of the process that called listen(2). That may be dead while its children still hold the
    socket, so the table of descriptors is asked first.
    """
    found = _describe({entry.inode for entry in bound_unix(names)})
    if found is None and peer_pid > 0 and (_PROC / str(peer_pid)).exists():
        return _describe_pid(peer_pid)
    return found


def bound_unix(names: Collection[str]) -> list[UnixSocket]:
    """Stream sockets of this network namespace that are bound to any of `names` and not a connection."""
    found: list[UnixSocket] = []
    for line in _lines("net/unix"):
        fields = line.split(maxsplit=7)  # Num RefCount Protocol Flags Type St Inode Path
        if len(fields) < 8 or fields[4] != "0001" or fields[5] != _UNIX_UNCONNECTED or fields[7] not in names:
            continue
        with contextlib.suppress(ValueError):
            found.append(UnixSocket(int(fields[6]), bool(int(fields[3], 16) & _UNIX_LISTENING), fields[7]))
    return found


def _lines(name: str) -> list[str]:
    """The lines below the heading of a /proc table; none where there is no such table."""
    try:
        text = (_PROC / name).read_bytes().decode("utf-8", "surrogateescape")
    except OSError:
        return []
    return text.split("\n")[1:]


def _listening_tcp() -> Iterator[tuple[str, int, int, int]]:
    """Yield host, port, uid and inode of every listening TCP socket of this network namespace."""
    for table in ("net/tcp", "net/tcp6"):
        for line in _lines(table):
            fields = line.split()  # sl local_address rem_address st queues timer retrnsmt uid timeout inode ...
            if len(fields) < 10 or fields[3] != _TCP_LISTEN:
                continue
            with contextlib.suppress(ValueError):
                address, _, port = fields[1].partition(":")
                yield _address(address), int(port, 16), int(fields[7]), int(fields[9])


def _address(column: str) -> str:
    """Text of an address that the kernel prints as 32-bit words of the machine's byte order."""
    words = [int(column[start : start + 8], 16) for start in range(0, len(column), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def _overlap(family: int, wanted: str, taken: str) -> bool:
    """Whether a socket on `taken` keeps another, of `family`, from `wanted`: the same address, or a wildcard."""
    if taken == "::":
        return True  # also for IPv4: the socket may be dual-stack (IPV6_V6ONLY off), and the kernel said "in use"
    taken_family = socket.AF_INET6 if ":" in taken else socket.AF_INET
    wildcard = "::" if family == socket.AF_INET6 else "0.0.0.0"  # noqa: S104  # compared, not bound
    if taken_family != family:
        return taken == f"::ffff:{wanted}"
    return wildcard in (wanted, taken) or wanted == taken


def _describe(inodes: Collection[int]) -> str | None:
    """The oldest visible process with any of the sockets: of a server with forked workers, the master."""
    targets = {f"socket:[{inode}]" for inode in inodes}
    owners = [pid for pid in _pids() if targets and _has_open(pid, targets)]
    return _describe_pid(min(owners, key=_start_time)) if owners else None


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir(_PROC) if name.isdigit()]  # names, not paths
    except OSError:
        return []


def _has_open(pid: int, targets: Collection[str]) -> bool:
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/fd/{descriptor}") in targets:
                return True
    return False


def _start_time(pid: int) -> int:
    """Clock ticks since boot (field 22 of /proc/PID/stat); a process that is gone counts as the youngest."""
    try:
        return int((_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 1 << 62


def _describe_pid(pid: int) -> str:
    if pid == os.getpid():
        return f"this process itself (pid {pid})"
    try:
        raw = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        raw = b""
    command = " ".join(raw.decode("utf-8", "replace").replace("\0", " ").split())
    if len(command) > _COMMAND_LENGTH:
        command = command[: _COMMAND_LENGTH - 3] + "..."
    return f"pid {pid} ({command})" if command else f"pid {pid}"


def _describe_user(user: int) -> str:
    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:
        name = str(user)
    return f"a process of user {name} that cannot be looked into from here"

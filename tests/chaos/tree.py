"""Who is who in a server's process tree, and which connections a process holds (Linux: /proc and pidfd_getfd(2))."""

import ctypes
import os
import re
import signal
import socket
from collections import Counter
from contextlib import suppress

from tests.chaos.clients import Key
from tests.harness import Process, ServerProcess, wait_for
from tests.harness.processes import process, processes

_WORKER = re.compile(r": worker \d+ \(generation (\d+)\)")
_LIBC = ctypes.CDLL(None)
_PIDFD_GETFD = 438  # the same on all architectures
_ZYGOTE = re.compile(r": zygote \(generation (\d+)\)")


def workers(server: ServerProcess) -> dict[int, Process]:
    """The workers by pid, whoever their parent is now: those of a killed zygote are the master's children."""
    return {each.pid: each for each in server.children() if _WORKER.search(each.title)}


def zygotes(server: ServerProcess) -> list[Process]:
    """The zygotes that have named themselves; a worker that has not yet bears its zygote's name."""
    return [each for each in server.children() if _ZYGOTE.search(each.title) and each.parent == server.pid]


def generation(each: Process) -> int:
    """The generation in a worker's or zygote's title, 0 if there is none."""
    found = _WORKER.search(each.title) or _ZYGOTE.search(each.title)
    return int(found[1]) if found else 0


def zombies(server: ServerProcess) -> list[Process]:
    """The dead of the server's session whom nobody has reaped."""
    return [each for each in processes() if each.session == server.pid and each.state in "ZX"]


def halted(each: Process) -> bool:
    """Wait until SIGSTOP has taken hold; False if the process has gone instead."""

    def settled() -> str:
        now = process(each.pid)
        state = now.state if now is not None and now.start == each.start else "X"
        return state if state in "TtZX" else ""

    state = wait_for(settled, what=f"{each} to stop")
    return state in "Tt"


def is_aborted(each: Process) -> bool:
    """Whether a halted process has SIGABRT pending, and so ends as soon as it is continued."""
    return bool(int(each.status("ShdPnd") or "0", 16) >> (signal.SIGABRT - 1) & 1)


def held_by(each: Process) -> set[Key]:
    """The clients' ends of the connections that a halted process holds: it can neither accept nor close now.

    Looked at through duplicates (pidfd_getfd(2)): /proc/net/tcp took seconds to read on a machine with 40,000 sockets.
    """
    found = set()
    pidfd = os.pidfd_open(each.pid)
    for fd, link in each.descriptors().items():
        duplicate = _LIBC.syscall(_PIDFD_GETFD, pidfd, fd, 0) if link.startswith("socket:") else -1
        if duplicate >= 0:
            with socket.socket(fileno=duplicate) as sock, suppress(OSError):  # a listener has no peer
                found.add(Key(sock.family, sock.getpeername()))
    os.close(pidfd)
    return found


def descriptor_kinds(each: Process) -> Counter[str]:
    """How many descriptors of which kind: numbers of inodes and pipes left out."""
    return Counter(re.sub(r"\[\d+\]|\.\d+|-\d+| \(deleted\)", "", link) for link in each.descriptors().values())

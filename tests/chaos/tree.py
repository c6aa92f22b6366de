"""Who is who in a server's process tree, and which connections a process holds (Linux: /proc and sock_diag(7))."""

import os
import re
import socket
import struct
from collections import Counter
from pathlib import Path

from tests.chaos.clients import Key
from tests.harness import Process, ServerProcess, wait_for
from tests.harness.processes import process, processes

_WORKER = re.compile(r": worker \d+ \(generation (\d+)\)")
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


def held_by(each: Process) -> set[Key]:
    """The clients' ends of the connections that a halted process holds: it can neither accept nor close now."""
    inodes = {int(link[8:-1]) for link in each.descriptors().values() if link.startswith("socket:[")}
    held = {Key("tcp", port) for inode, port in _tcp_clients().items() if inode in inodes}
    return held | {Key("unix", peer) for inode, peer in _unix_peers().items() if inode in inodes}


def descriptor_kinds(each: Process) -> Counter[str]:
    """How many descriptors of which kind: numbers of inodes and pipes left out."""
    return Counter(re.sub(r"\[\d+\]|\.\d+|-\d+| \(deleted\)", "", link) for link in each.descriptors().values())


def _tcp_clients() -> dict[int, int]:
    """Inode of each TCP socket -> its peer's port (proc_pid_net(5))."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = (line.split() for line in lines)
    return {int(each[9]): int(each[2].partition(":")[2], 16) for each in fields}


_SOCK_DIAG_BY_FAMILY, _DUMP, _DONE, _ERROR = 20, 0x301, 3, 2
_SHOW_PEER, _PEER = 4, 2


def _unix_peers() -> dict[int, int]:
    """Inode of each unix socket -> its peer's inode; sock_diag(7), since /proc/net/unix does not tell."""
    ask = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, _SHOW_PEER, 0xFFFFFFFF, 0xFFFFFFFF)
    header = struct.pack("=IHHII", 16 + len(ask), _SOCK_DIAG_BY_FAMILY, _DUMP, 1, 0)
    found: dict[int, int] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as diag:  # 4: NETLINK_SOCK_DIAG
        diag.settimeout(5)
        diag.send(header + ask)
        while True:
            data = diag.recv(1 << 18)
            while data:
                length, kind, *_ = struct.unpack_from("=IHHII", data)
                if kind == _DONE:
                    return found
                if kind == _ERROR:
                    raise OSError(-struct.unpack_from("=i", data, 16)[0], os.strerror(0))
                _read_peer(data[16:length], found)
                data = data[(length + 3) & ~3 :]


def _read_peer(message: bytes, found: dict[int, int]) -> None:
    (inode,) = struct.unpack_from("=I", message, 4)
    at = 16
    while at + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        if kind == _PEER:
            (found[inode],) = struct.unpack_from("=I", message, at + 4)
        at += (length + 3) & ~3

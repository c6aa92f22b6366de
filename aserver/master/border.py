"""Checks on the messages of zygotes and workers, made before the master believes them.

Runs in the master, which may be root, while its peers run the application's code as another user. The channel has seen
to the shape of a message (`ipc.channel`); here it is compared with the kernel's facts. A message that cannot be true
raises ChannelError, and its peer is cut off. Nothing here waits for a peer or sends a signal.
"""

import contextlib
import fcntl
import os
import socket
import stat
from collections import deque
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from aserver import unix
from aserver.errors import ChannelError
from aserver.ipc import messages as msg
from aserver.ipc.channel import Channel
from aserver.log.access.escape import printable
from aserver.master.handles import WorkerHandle, ZygoteHandle

P = TypeVar("P", ZygoteHandle, WorkerHandle)

#: Messages that a zygote may send for each fork: the answer, and the report of the end.
PER_FORK = 2
#: Turns for which the channel of an ended process is read. All that a socket holds fits; without a limit a grandchild
#: that has the other end could go on sending.
LAST_TURNS = 8
#: The most characters of a text that is neither a reason nor a traceback.
LONGEST_WORD = 100


def hear(peer: P, obey: Callable[[P, Any, list[int]], None], turns: int = 1) -> str:
    """Pass a peer's messages to `obey`, those of `turns` turns at most. Returns how it broke the protocol, or ""."""
    assert peer.channel is not None
    left: deque[tuple[Any, list[int]]] = deque()
    try:
        for _ in range(turns):
            left.extend(peer.channel.receive())
            if not left:
                break
            while left:
                count(peer)
                obey(peer, *left[0])
                left.popleft()
    except ChannelError as error:
        for _, fds in left:
            for fd in fds:
                os.close(fd)
        return clean(str(error))  # msgspec quotes unknown names
    return ""


def count(peer: ZygoteHandle | WorkerHandle) -> None:
    """Count a message of a peer. Raises ChannelError if it has sent more than it can have reason to."""
    peer.said += 1
    if peer.said > peer.may_say:
        raise ChannelError(f"it has sent {peer.said} messages, and can have had {peer.may_say} to send")


def clean(text: str, most: int = msg.LONGEST_REASON) -> str:
    """A text of a peer for the log and the terminal: cut, and without control characters."""
    return printable(msg.shorten(text, most))


def believe_forked(
    message: msg.Forked, fds: list[int], zygote: ZygoteHandle, worker: WorkerHandle | None, known: Collection[int]
) -> None:
    """Give `worker` its pid and the descriptors `fds`, if they are those of a process that `zygote` has just forked.

    Raises ChannelError, and then `fds` are still the caller's. `known` are the pids that other handles have.
    """
    worker = ordered(message, zygote, worker)
    if message.pid in known:
        raise ChannelError(f"Forked with pid {message.pid}, which is another process of this server")
    if len(fds) < 3 and zygote.pidfd is not None:
        raise ChannelError("Forked without a pidfd, and this system has them")
    check_trace(fds[1])
    if len(fds) > 2:
        check_process(fds[2], message.pid, zygote)
    worker.channel = channel_of(fds[0])
    worker.pid, worker.trace = message.pid, fds[1]
    worker.pidfd = fds[2] if len(fds) > 2 else None


def ordered(message: msg.Forked | msg.ForkFailed, zygote: ZygoteHandle, worker: WorkerHandle | None) -> WorkerHandle:
    """The worker whose order to fork `message` answers. Raises ChannelError if no such order is unanswered."""
    if worker is None or worker.generation != zygote.generation or worker.pid is not None:
        raise ChannelError(f"{type(message).__name__} for serial {message.serial}, which it was not told to fork")
    return worker


def check_generation(message: msg.FromZygote, zygote: ZygoteHandle) -> None:
    """Raise ChannelError for a message about another generation than that of the zygote."""
    about = getattr(message, "generation", zygote.generation)
    if about != zygote.generation:
        raise ChannelError(f"{type(message).__name__} about generation {about}, but it is of {zygote.generation}")


def check_exited(message: msg.Exited, zygote: ZygoteHandle, worker: WorkerHandle | None) -> bool:
    """Whether the worker is still known. Raises ChannelError if it is not a child of this zygote."""
    if worker is None:
        return False  # the status came too late (workers.STATUS_PATIENCE)
    if worker.generation != zygote.generation or worker.pid != message.pid:
        raise ChannelError(f"Exited for serial {message.serial}, pid {message.pid}, which is no process of its own")
    return True


def channel_of(fd: int) -> Channel[msg.FromWorker]:
    """The channel behind a descriptor. Raises ChannelError unless it is an end of a socketpair; then it stays open.

    If the socket were connected to a service, the master, which may be root, would write into that service.
    """
    refusal = ChannelError("the channel of a worker is no end of a stream socketpair")
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        raise refusal from None
    try:
        pair = sock.family == socket.AF_UNIX and sock.type == socket.SOCK_STREAM
        if pair and not sock.getsockname() and not sock.getpeername():
            return Channel(sock, msg.FromWorker)
    except OSError:  # not connected
        pass
    sock.detach()
    raise refusal


def check_trace(fd: int) -> None:
    """Raise ChannelError unless `fd` is a file in memory: a read of any other may wait (FUSE)."""
    try:
        if unix.LINUX:
            fcntl.fcntl(fd, fcntl.F_GET_SEALS)  # tmpfs and memfds have seals, if only none; anything else: EINVAL
            return
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return
    except OSError:
        pass
    raise ChannelError("the trace of a worker is no file in memory")


# ── processes ────────────────────────────────────────────────────────────────────────────────


def check_process(pidfd: int, pid: int, zygote: ZygoteHandle) -> None:
    """Raise ChannelError unless `pidfd` is of the process `pid`, a child of `zygote` that has the same user.

    Any process may pass on any pidfd, and the right to signal is the signaller's: as root the master could be made to
    end anything. The pid is read before and after the other checks: as long as the pidfd has it, no other process has.
    """
    if not Path("/proc/self/fdinfo").is_dir():
        if os.geteuid() == 0:
            raise ChannelError("without /proc it cannot be seen whose pidfd that is")
        return  # the zygote may signal every process that this process may
    found = _pid_behind(pidfd)
    if found > 0:
        refusal = _refusal(found, pid, zygote)
        if _pid_behind(pidfd) == found and refusal:
            raise ChannelError(f"a pidfd of process {found}, which {refusal}")
    # -1: it has ended and its zygote has reaped it, so nothing can be signalled by this.


def _refusal(found: int, pid: int, zygote: ZygoteHandle) -> str:
    """Why the process `found` (as /proc numbers it) is not the worker `pid` (as we do); empty if it is."""
    status, ours = _status(found), _status("self")
    if not status:
        return "/proc does not show (hidepid?)"
    # In a pid namespace with another's /proc the numbers differ; NSpid has a number for each level.
    level = len(ours.get("NSpid", "").split())
    numbers = status.get("NSpid", "").split()
    number = int(numbers[level - 1]) if level and len(numbers) >= level else found
    if status.get("Tgid") != str(found):
        return "is a thread"
    if number != pid:
        return f"is not the process {pid} that it names"
    parent = _pid_behind(zygote.pidfd) if zygote.pidfd is not None else zygote.pid
    # A worker whose zygote has died already is our own child: we are the subreaper.
    if int(status.get("PPid", 0)) not in (parent, int(ours["Tgid"])):
        return "is no child of that zygote"
    owner = _status(parent).get("Uid")
    if owner != ours.get("Uid") and status.get("Uid") != owner:
        return "belongs to another user"
    return ""


def _pid_behind(pidfd: int) -> int:
    """The pid that a pidfd stands for, as /proc numbers it; -1 if it has been reaped. Raises ChannelError."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        found = int(_fields(Path(f"/proc/self/fdinfo/{pidfd}"))["Pid"])
        if found:  # 0: in no namespace below ours
            return found
    raise ChannelError("the pidfd of a worker is none")


def _status(pid: int | str) -> Mapping[str, str]:
    """/proc/PID/status (proc_pid_status(5)); empty if the process is gone."""
    with contextlib.suppress(OSError):
        return _fields(Path(f"/proc/{pid}/status"))
    return {}


def _fields(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

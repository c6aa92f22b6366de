"""Thin, typed wrappers over the system calls that Python lacks or gets wrong, with a fallback each.

Used by every process. It decides nothing and keeps no state. Where a facility is missing (macOS has no pidfd, no memfd
and no subreaper), the return value of the function says so.
"""

import contextlib
import ctypes
import fcntl
import os
import platform
import resource
import select
import signal
import socket
import struct
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from aserver import cgroups
from aserver.errors import ConfigError

LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36
#: The numbers of sched_setattr(2) and sched_getattr(2), which the C library has no functions for before glibc 2.41.
SCHED_ATTR = {"x86_64": (314, 315), "aarch64": (274, 275), "riscv64": (274, 275)}.get(platform.machine())
#: struct sched_attr, version 0: size, policy, flags, nice, priority, runtime, deadline, period.
_SCHED_ATTR = struct.Struct("=IIQiIQQQ")
_SCHED_FLAG_KEEP_POLICY = 0x08
_BELOW_SYSTEMD = "INVOCATION_ID" in os.environ  # systemd.exec(5); asked before the application may remove it
#: The time slice in ns of a process that lets others go first: half of the longest that Linux gives.
_LONG_SLICE = 50_000_000
#: The most signals that are kept in order; of more, a single signal of each kind is kept, as by the kernel.
NOTED = 256
#: The most orphans that are reaped in a call, which takes some milliseconds.
MOST_REAPED = 1000

#: Variables between the server and systemd, which the app and its subprocesses must not inherit (docs/traps.md, 50).
PLUMBING = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


# ── processes ────────────────────────────────────────────────────────────────────────────────


def let_others_first(*, enable: bool = True) -> None:
    """Have a process that wakes up interrupt this one's threads, where it would wait for the end of their time slice.

    So an import, a fork or an exit delays no request of a worker on the same CPU. The share of the CPU stays the same.
    By a longer slice (sched_setattr(2)). Nothing happens before Linux 6.12, off Linux, where it is forbidden, or below
    a SystemCallFilter of systemd, which kills: `~@resources` is a usual one.
    """
    if not LINUX or SCHED_ATTR is None:
        return
    libc, runtime = ctypes.CDLL(None), _LONG_SLICE if enable else 0
    with contextlib.suppress(OSError):  # no /proc, or a thread that has just ended
        if _BELOW_SYSTEMD and "\nSeccomp:\t2" in Path("/proc/self/status").read_text(encoding="utf-8"):
            return
        for thread in map(int, os.listdir("/proc/self/task")):
            nice = os.getpriority(os.PRIO_PROCESS, thread)
            attr = _SCHED_ATTR.pack(_SCHED_ATTR.size, 0, _SCHED_FLAG_KEEP_POLICY, nice, 0, runtime, 0, 0)
            libc.syscall(SCHED_ATTR[0], thread, attr, 0)


def open_pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when `pid` ends (pidfd_open(2)); None off Linux."""
    if not LINUX:
        return None
    return os.pidfd_open(pid)


def send_signal(pidfd: int, signum: signal.Signals) -> bool:
    """Signal the process of `pidfd`, never another that has got its pid; False if it is gone."""
    try:
        signal.pidfd_send_signal(pidfd, signum)
    except ProcessLookupError:
        return False
    return True


def wait_pidfd(pidfd: int) -> int | None:
    """Reap the process of `pidfd` if it is a dead child of ours; return its wait status, else None."""
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:  # the child of a zygote that lives and will report it
        return None
    if result is None:
        return None
    if result.si_code == os.CLD_EXITED:
        return result.si_status << 8
    return result.si_status | (0x80 if result.si_code == os.CLD_DUMPED else 0)


def reap_strangers(known: Iterable[int]) -> list[int]:
    """Reap dead children that are not `known`: orphans of user code, which a subreaper or PID 1 inherits.

    The owners of pidfds reap the `known` pids. Linux only (waitid(2) with WNOWAIT). Not more than MOST_REAPED, because
    an application can make orphans faster than they are reaped.
    """
    reaped: list[int] = []
    keep = set(known)
    while LINUX and len(reaped) < MOST_REAPED:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            break
        if found is None or found.si_pid in keep:
            # A known child at the head of the kernel's list hides the rest until its owner reaps it. The owner's pidfd
            # is readable now, and the next SIGCHLD or tick calls this again.
            break
        os.waitpid(found.si_pid, os.WNOHANG)
        reaped.append(found.si_pid)
    return reaped


def become_subreaper(*, enable: bool = True) -> bool:
    """Adopt the orphans of our descendants (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    if not LINUX:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.prctl(PR_SET_CHILD_SUBREAPER, 1 if enable else 0, 0, 0, 0)) == 0


def signal_at_parents_end(signum: int) -> bool:
    """Have the kernel send this process `signum` when the thread that started it ends; 0 undoes it.

    By prctl(2), PR_SET_PDEATHSIG. False off Linux, where nothing happens.
    """
    return LINUX and int(ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0)) == 0


def end_with_parent(parent: int) -> bool:
    """Have the kernel kill this process when its parent, the process `parent`, ends (see `signal_at_parents_end`).

    If the parent has ended already, this process is killed now. The kernel looks at the thread that started this
    process, not at the parent as a whole: so this is only for a child for which its starter waits. False off Linux,
    where nothing happens.
    """
    if not LINUX:
        return False
    asked = signal_at_parents_end(signal.SIGKILL)
    if os.getppid() != parent:
        signal.raise_signal(signal.SIGKILL)
    return asked


def set_process_title(title: str) -> None:
    """Set the name that `ps` shows."""
    import setproctitle  # noqa: PLC0415  (loading it touches argv: only where a process is ours to name)

    setproctitle.setproctitle(title)


def usable_cpus() -> int:
    """The number of CPUs that this process may use: the affinity mask, cut to the cgroup's quota (v2 and v1)."""
    count = len(os.sched_getaffinity(0)) if LINUX else (os.cpu_count() or 1)
    quota = cgroups.cpu_quota()
    return max(1, min(count, int(quota + 0.5)) if quota else count)


# ── descriptors ──────────────────────────────────────────────────────────────────────────────


def memory_file(name: str, size: int | None = None) -> int:
    """An anonymous file for shared memory (memfd_create(2)); an unlinked temporary file elsewhere.

    With `size` it has that size for good (F_ADD_SEALS, fcntl(2)). So no other process can cut it, which would end the
    processes that have it mapped by SIGBUS. Where there are no seals, it has the size without that protection.
    """
    if LINUX:
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:
        import tempfile  # noqa: PLC0415 - 8 ms, for which a start would wait

        with tempfile.TemporaryFile(prefix=name) as file:
            fd = os.dup(file.fileno())
    if size is not None:
        os.ftruncate(fd, size)
        if LINUX:
            with contextlib.suppress(OSError):  # a sandbox without seals; the master reads the file, and never maps it
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


def raise_fd_limit() -> int:
    """Raise the soft limit of open descriptors to the hard limit; return the limit in force (docs/traps.md, 66)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS refuses RLIM_INFINITY
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return soft


def open_fds() -> dict[int, str]:
    """Every open descriptor of this process with its target (proc(5)); empty without /proc."""
    found: dict[int, str] = {}
    with contextlib.suppress(OSError):
        for entry in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
    return found


def readable(fds: Iterable[int], seconds: float) -> bool:
    """Wait until any of `fds` is readable. By poll(2): select(2) ends at descriptor 1024, and there may be more."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def stream_pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a channel: close-on-exec and non-blocking sockets."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    left.setblocking(False)
    right.setblocking(False)
    return left, right


# ── signals ──────────────────────────────────────────────────────────────────────────────────


def do_nothing(signum: int, frame: object) -> None:
    """Do nothing, as a signal's handler. Python writes to the wakeup descriptor only for signals with a handler.

    No handler of the server does any work.
    """


def install_wakeup(signals: Iterable[signal.Signals]) -> socket.socket:
    """Turn `signals` into bytes on the returned socket, for a process without an event loop.

    Not by SIG_IGN, which the app's subprocesses would inherit (docs/traps.md, 37), but by a handler that does nothing.
    """
    reader, writer = stream_pair()
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
    for signum in signals:
        signal.signal(signum, do_nothing)  # noqa: TID251
        signal.siginterrupt(signum, False)
    return reader


def ignore_signals(signals: Iterable[signal.Signals]) -> None:
    """Let `signals` have no effect, by a handler that does nothing (`install_wakeup` says why not by SIG_IGN)."""
    for signum in signals:
        signal.signal(signum, do_nothing)  # noqa: TID251


def raise_on_interrupt() -> None:
    """Have SIGINT raise KeyboardInterrupt in the main thread, as in a plain Python program."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: TID251


def discard_signals(signals: Iterable[signal.Signals]) -> None:
    """Set SIG_IGN, which programs that this process execs inherit: only for signals that nothing else keeps off."""
    for signum in signals:
        signal.signal(signum, signal.SIG_IGN)  # noqa: TID251


def keep_exit_statuses() -> None:
    """Undo an inherited SIG_IGN of SIGCHLD: with it, the kernel forgets the status of children (wait(2))."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # noqa: TID251


def note_signals(signals: Iterable[signal.Signals], noted: list[int]) -> None:
    """Have each of `signals` put its number into `noted`, besides waking the loop.

    The loop's wakeup socket alone does not do: it drops signals when it is full. `noted` keeps all signals up to NOTED,
    and at least 1 of each kind beyond that. The handler only appends, which no other signal can interrupt half-way.
    """

    def note(signum: int, _frame: object) -> None:
        if len(noted) < NOTED or signum not in noted:
            noted.append(signum)

    for signum in signals:
        signal.signal(signum, note)  # noqa: TID251
        signal.siginterrupt(signum, False)


def reset_signals() -> None:
    """Set default dispositions and no wakeup descriptor, for a worker that was just forked (docs/traps.md, 2)."""
    signal.set_wakeup_fd(-1)
    for signum in signal.valid_signals():
        if signum in (signal.SIGKILL, signal.SIGSTOP):
            continue
        with contextlib.suppress(OSError, ValueError, TypeError):
            if signal.getsignal(signum) in (do_nothing, signal.default_int_handler):
                signal.signal(signum, signal.SIG_DFL)  # noqa: TID251


def give_back_signals(handlers: Iterable[object]) -> None:
    """Set Python's own dispositions in place of our handlers and `handlers`, and no wakeup descriptor.

    For a child that the app forks: with our handlers, SIGTERM would not end it, and its signals would wake our loop.
    Handlers that the app has installed stay, as in any fork.
    """
    signal.set_wakeup_fd(-1)
    ours = [do_nothing, *handlers]
    for signum in signal.valid_signals():
        with contextlib.suppress(OSError, ValueError, TypeError):
            if signal.getsignal(signum) in ours:
                own = signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL
                signal.signal(signum, own)  # noqa: TID251


# ── memory ───────────────────────────────────────────────────────────────────────────────────


def peak_resident() -> int:
    """The largest resident size so far, in bytes (getrusage(2)): it is known also without /proc."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * 1024 if LINUX else peak


def own_memory(address: int, size: int) -> bytes:
    """A copy of this process's memory; empty if there is none at `address`, as after the end of a thread.

    Linux only (process_vm_readv(2)). Unlike ctypes.string_at it fails where an access would end the process.
    """
    buffer = ctypes.create_string_buffer(size)
    ours = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), size)  # struct iovec
    theirs = (ctypes.c_size_t * 2)(address, size)
    read = ctypes.CDLL(None).process_vm_readv
    read.restype = ctypes.c_ssize_t
    copied = read(os.getpid(), ours, ctypes.c_ulong(1), theirs, ctypes.c_ulong(1), ctypes.c_ulong(0))
    return buffer.raw[: max(0, copied)]


def smaps_rollup(pid: int | str = "self") -> Mapping[str, int]:
    """Sums over the mappings of a process, in bytes (proc(5)): Pss, Private_Dirty, ... Costs milliseconds."""
    sums: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]:
            name, _, rest = line.partition(":")
            with contextlib.suppress(ValueError):
                sums[name] = int(rest.split()[0]) * 1024
    return sums


# ── the environment in which the app is imported ────────────────────────────────────────────


def working_directory(environ: Mapping[str, str], *, handed_on: bool = False) -> Path:
    """The directory in which this process was started, by the name that its user knows. Raises ConfigError.

    If $PWD leads to the directory by a symlink, the symlink is kept, as gunicorn keeps it: a deploy that switches the
    symlink is then found at the next reload, where the directory itself would stay the old release. `handed_on`: an
    earlier image of this process has checked $PWD.
    """
    named = environ.get("PWD", "")
    if handed_on and named:
        return Path(named)  # a directory that is gone is refused by `load`; the old release would be wrong
    try:
        here = os.getcwd()
    except FileNotFoundError:
        was = f" (PWD is {named})" if named else ""
        raise ConfigError(f"the working directory has been removed{was}; start the server in one that exists") from None
    with contextlib.suppress(OSError):  # $PWD leads nowhere, or this process may not look there
        if os.path.isabs(named) and os.path.samefile(named, here):
            return Path(named)
    return Path(here)


def enter_environment(env: Iterable[str], directory: str | None, umask: int | None) -> None:
    """Set variables ("NAME=value"), the working directory and the umask. Raises ConfigError."""
    for assignment in env:
        name, _, value = assignment.partition("=")
        os.environ[name] = value
    if umask is not None:
        os.umask(umask)
    if directory is not None:
        try:
            os.chdir(directory)
        except OSError as error:
            raise ConfigError(f"chdir {directory}: {error.strerror}; the app would be looked for elsewhere") from None

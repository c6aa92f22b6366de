"""Thin, typed wrappers over the system calls that Python lacks or gets wrong, one fallback each.

Used by every process. It decides nothing and keeps no state; where a facility is missing (macOS has
no pidfd, no memfd and no subreaper) the function says so by its return value, never by a half-working result.
"""

import contextlib
import ctypes
import fcntl
import os
import resource
import select
import signal
import socket
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from aserver.errors import ConfigError

LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36
#: So many signals are kept in order; beyond it one of a kind is enough, as it is to the kernel.
NOTED = 256
#: Orphans that are reaped in one go: some milliseconds.
MOST_REAPED = 1000

#: systemd's and our own plumbing: never the business of the app or of its subprocesses (trap 50).
PLUMBING = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


# ── processes ────────────────────────────────────────────────────────────────────────────────


def open_pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when `pid` ends (pidfd_open(2)); None where there is none."""
    if not LINUX:
        return None
    return os.pidfd_open(pid)


def send_signal(pidfd: int, signum: signal.Signals) -> bool:
    """Signal the very process that `pidfd` stands for; False if it is gone. Never hits a stranger."""
    try:
        signal.pidfd_send_signal(pidfd, signum)
    except ProcessLookupError:
        return False
    return True


def wait_pidfd(pidfd: int) -> int | None:
    """Reap the process behind `pidfd` if it is a dead child of ours; its wait status, else None."""
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:  # the zygote's child, and the zygote lives: it will report
        return None
    if result is None:
        return None
    if result.si_code == os.CLD_EXITED:
        return result.si_status << 8
    return result.si_status | (0x80 if result.si_code == os.CLD_DUMPED else 0)


def reap_strangers(known: Iterable[int]) -> list[int]:
    """Reap dead children that nobody waits for: orphans of user code land on a subreaper or on PID 1.

    `known` pids are left to whoever owns their pidfd. Linux only (waitid(2) with WNOWAIT). Not more than MOST_REAPED:
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
            # A known one at the head of the kernel's list hides the rest until its owner reaps it;
            # the owner's pidfd is readable at this very moment, and the next SIGCHLD or tick sweeps again.
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
    """Have the kernel send us `signum` when the thread that started us ends (prctl(2), PR_SET_PDEATHSIG); 0 ends that.

    False off Linux, where nothing happens.
    """
    return LINUX and int(ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0)) == 0


def end_with_parent(parent: int) -> bool:
    """SIGKILL for this process when its parent, the process `parent`, ends (see `signal_at_parents_end`).

    At once, if it has ended before we could ask for that. The kernel looks at the thread that started us, not at its
    process: only for a child whose starter waits for it. False off Linux, where nothing happens.
    """
    if not LINUX:
        return False
    asked = signal_at_parents_end(signal.SIGKILL)
    if os.getppid() != parent:
        signal.raise_signal(signal.SIGKILL)
    return asked


def set_process_title(title: str) -> None:
    """What `ps` shows."""
    import setproctitle  # noqa: PLC0415  (loading it touches argv: only where a process is ours to name)

    setproctitle.setproctitle(title)


def usable_cpus() -> int:
    """CPUs this process may really use: the affinity mask, cut to the cgroup's quota (cgroup v2 and v1)."""
    count = len(os.sched_getaffinity(0)) if LINUX else (os.cpu_count() or 1)
    quota = _cgroup_cpu_quota()
    return max(1, min(count, int(quota + 0.5)) if quota else count)


def _cgroup_cpu_quota() -> float | None:
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="ascii")
    except OSError:
        return None
    path = next((line.split("::", 1)[1] for line in own.splitlines() if line.startswith("0::")), "/")
    quotas = []
    directory = Path("/sys/fs/cgroup") / path.lstrip("/")
    # Every ancestor may set a tighter quota than the group itself.
    for level in (directory, *directory.parents):
        with contextlib.suppress(OSError, ValueError):
            quota, period = (level / "cpu.max").read_text(encoding="ascii").split()
            if quota != "max":
                quotas.append(int(quota) / int(period))
        if level == Path("/sys/fs/cgroup"):
            break
    with contextlib.suppress(OSError, ValueError):
        v1 = Path("/sys/fs/cgroup/cpu")
        quota_us = int((v1 / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        if quota_us > 0:
            quotas.append(quota_us / int((v1 / "cpu.cfs_period_us").read_text(encoding="ascii")))
    return min(quotas, default=None)


def oom_kills() -> int:
    """How many processes the kernel has killed for memory, in our cgroup if it tells, else in the system."""
    for path, key in (("/sys/fs/cgroup/memory.events", "oom_kill"), ("/proc/vmstat", "oom_kill")):
        with contextlib.suppress(OSError, ValueError):
            for line in Path(path).read_text(encoding="ascii").splitlines():
                name, _, value = line.partition(" ")
                if name == key:
                    return int(value)
    return 0


# ── descriptors ──────────────────────────────────────────────────────────────────────────────


def memory_file(name: str, size: int | None = None) -> int:
    """An anonymous file for shared memory (memfd_create(2)); an unlinked temporary file elsewhere.

    With `size` it has that size for good (F_ADD_SEALS, fcntl(2)): another process that holds it cannot cut it, which
    would end everybody who has it mapped by SIGBUS. Where there are no seals it has the size and no such protection.
    """
    if LINUX:
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:
        with tempfile.TemporaryFile(prefix=name) as file:
            fd = os.dup(file.fileno())
    if size is not None:
        os.ftruncate(fd, size)
        if LINUX:
            with contextlib.suppress(OSError):  # a sandbox that knows no seals: the master reads, it does not map
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


def raise_fd_limit() -> int:
    """Raise the soft limit of open descriptors to the hard one (trap 66); returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS refuses RLIM_INFINITY
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return soft


def open_fds() -> dict[int, str]:
    """Every open descriptor of this process and what it points to (proc(5)); empty without /proc."""
    found: dict[int, str] = {}
    with contextlib.suppress(OSError):
        for entry in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
    return found


def readable(fds: Iterable[int], seconds: float) -> bool:
    """Wait for one of them; not by select(2), which ends at descriptor 1024, and a flood of SIGUSR1 brings more."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def stream_pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a channel: close-on-exec, non-blocking."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    left.setblocking(False)
    right.setblocking(False)
    return left, right


# ── signals ──────────────────────────────────────────────────────────────────────────────────


def _do_nothing(signum: int, frame: object) -> None:
    """A handler must exist for the wakeup descriptor to be written; it never does any work (promise 5)."""


def install_wakeup(signals: Iterable[signal.Signals]) -> socket.socket:
    """Turn `signals` into bytes on the returned socket, for a process without an event loop.

    A no-op handler rather than SIG_IGN: SIG_IGN would be inherited by the app's subprocesses (trap 37).
    """
    reader, writer = stream_pair()
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
    for signum in signals:
        signal.signal(signum, _do_nothing)  # noqa: TID251
        signal.siginterrupt(signum, False)
    return reader


def ignore_signals(signals: Iterable[signal.Signals]) -> None:
    """Let `signals` pass without effect, by a no-op handler (see install_wakeup for why not SIG_IGN)."""
    for signum in signals:
        signal.signal(signum, _do_nothing)  # noqa: TID251


def discard_signals(signals: Iterable[signal.Signals]) -> None:
    """Set SIG_IGN, which what this process execs inherits: only for signals that no other way keeps off."""
    for signum in signals:
        signal.signal(signum, signal.SIG_IGN)  # noqa: TID251


def keep_exit_statuses() -> None:
    """Undo a SIG_IGN of SIGCHLD that we were started with: the kernel forgets how children end under it (wait(2))."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # noqa: TID251


def note_signals(signals: Iterable[signal.Signals], noted: list[int]) -> None:
    """Have each of `signals`, besides waking the loop that hears it, put its number into `noted`.

    For the wakeup socket drops what it has no room for. Of what is noted at least one of each kind is kept, and all as
    long as no more than NOTED wait. An append is the whole of the work: no other signal can tear it.
    """

    def note(signum: int, _frame: object) -> None:
        if len(noted) < NOTED or signum not in noted:
            noted.append(signum)

    for signum in signals:
        signal.signal(signum, note)  # noqa: TID251
        signal.siginterrupt(signum, False)


def reset_signals() -> None:
    """Default dispositions and no wakeup descriptor: what a freshly forked worker starts from (trap 2)."""
    signal.set_wakeup_fd(-1)
    for signum in signal.valid_signals():
        if signum in (signal.SIGKILL, signal.SIGSTOP):
            continue
        with contextlib.suppress(OSError, ValueError, TypeError):
            if signal.getsignal(signum) in (_do_nothing, signal.default_int_handler):
                signal.signal(signum, signal.SIG_DFL)  # noqa: TID251


def give_back_signals(handlers: Iterable[object]) -> None:
    """Python's own dispositions in place of our no-op handler and of `handlers`, and no wakeup descriptor.

    For a child that the app forks: with ours, SIGTERM would not end it, and its signals would wake our loop. Handlers
    that the app has installed stay, as in any fork.
    """
    signal.set_wakeup_fd(-1)
    ours = [_do_nothing, *handlers]
    for signum in signal.valid_signals():
        with contextlib.suppress(OSError, ValueError, TypeError):
            if signal.getsignal(signum) in ours:
                own = signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL
                signal.signal(signum, own)  # noqa: TID251


# ── memory ───────────────────────────────────────────────────────────────────────────────────


def peak_resident() -> int:
    """The largest resident size so far, in bytes: what there is without /proc (getrusage(2))."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * 1024 if LINUX else peak


def own_memory(address: int, size: int) -> bytes:
    """A copy of this process's memory; empty if there is none at `address`, for a thread that owned it may have ended.

    Linux only (process_vm_readv(2)): unlike ctypes.string_at it fails where a look would end the process.
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


# ── what the app finds when it is imported ──────────────────────────────────────────────────


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

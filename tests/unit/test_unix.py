"""Thin wrappers over system calls: processes, descriptors, signals, memory."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aserver import unix
from aserver.errors import ConfigError

needs_pidfd = pytest.mark.skipif(not unix.LINUX, reason="pidfds are Linux's")


def _child(code: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-S", "-c", code])


def _in_python(code: str) -> str:
    """What a fresh interpreter prints: for what changes a whole process."""
    code = f"import os, signal, sys\nfrom aserver import unix\n{code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


# ── processes ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(not unix.LINUX or unix.SCHED_ATTR is None, reason="the time slice of a process is Linux's")
@pytest.mark.parametrize("place", ["", "INVOCATION_ID"])
def test_below_a_filter_of_systemd_no_time_slice_is_asked_for(place: str) -> None:
    """systemd's filters kill, those of containers forbid. Fails without the look at the environment or the filter.

    The filter: a program that returns the one or the other for sched_setattr(2), and allows all else.
    """
    verdict = 0x80000000 if place else 0x00050001  # SECCOMP_RET_KILL_PROCESS, or SECCOMP_RET_ERRNO | EPERM
    assert unix.SCHED_ATTR is not None
    assert (
        _in_python(f"""
import ctypes, importlib, struct
number, verdict = {unix.SCHED_ATTR[0]}, {verdict}
steps = struct.pack("HBBI" * 4, 0x20, 0, 0, 0, 0x15, 0, 1, number, 6, 0, 0, verdict, 6, 0, 0, 0x7FFF0000)
buffer = ctypes.create_string_buffer(steps, len(steps))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(buffer)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0  # no new privileges; seccomp
os.environ[{place or "NOTHING"!r}] = "1"
importlib.reload(unix)
unix.let_others_first()
print("lives")
""")
        == "lives"
    )


@needs_pidfd
def test_pidfd_becomes_readable_and_gives_the_status() -> None:
    """waitpid's encoding, for an exit and for a signal."""
    for code, status in (("raise SystemExit(7)", 7 << 8), ("import os; os.kill(os.getpid(), 9)", 9)):
        child = _child(code)
        pidfd = unix.open_pidfd(child.pid)
        assert pidfd is not None
        assert select.select([pidfd], [], [], 20)[0]
        assert unix.wait_pidfd(pidfd) == status
        assert unix.wait_pidfd(pidfd) is None, "reaped already"
        assert unix.send_signal(pidfd, signal.SIGTERM) is False, "never a stranger"
        os.close(pidfd)
        child.returncode = 0  # reaped behind its back


@needs_pidfd
def test_a_process_that_lives_has_no_status() -> None:
    child = _child("import time; time.sleep(60)")
    pidfd = unix.open_pidfd(child.pid)
    assert pidfd is not None
    assert unix.wait_pidfd(pidfd) is None
    assert unix.send_signal(pidfd, signal.SIGKILL) is True
    os.close(pidfd)
    child.wait()


@needs_pidfd
def test_strangers_are_reaped_and_known_ones_left_alone() -> None:
    """In a process of its own, because it reaps whatever it finds."""
    out = _in_python("""
import time
def dead():
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid
stranger = dead()
print(unix.reap_strangers([]) == [stranger])
known = dead()
print(unix.reap_strangers([known]) == [], os.waitpid(known, 0)[0] == known)
print(unix.reap_strangers([]))
unix.MOST_REAPED = 2
strangers = [dead() for _ in range(3)]
print(len(unix.reap_strangers([])), len(unix.reap_strangers([])))
""")
    assert out.split("\n") == ["True", "True True", "[]", "2 1"], "the last: some now, the rest at the next chores"


@pytest.mark.skipif(not unix.LINUX, reason="PR_SET_PDEATHSIG is Linux's")
def test_a_process_whose_parent_has_ended_before_it_could_ask_ends_at_once() -> None:
    """Fails without the look at getppid(): nobody is told of what was before prctl(2)."""
    for parent, status in (("os.getppid()", 0), ("os.getpid()", -signal.SIGKILL)):
        code = f"import os\nfrom aserver import unix\nassert unix.end_with_parent({parent})"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == status


def test_usable_cpus_is_at_least_one_and_within_the_affinity() -> None:
    assert 1 <= unix.usable_cpus() <= (os.cpu_count() or 1)
    if unix.LINUX:
        assert _in_python("os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nprint(unix.usable_cpus())") == "1"


# ── descriptors ──────────────────────────────────────────────────────────────────────────────


def test_stream_pair_is_private_and_does_not_block() -> None:
    left, right = unix.stream_pair()
    assert [left.get_inheritable(), right.get_inheritable()] == [False, False]
    with pytest.raises(BlockingIOError):
        left.recv(1)
    left.close()
    right.close()


def test_memory_file_is_shared_and_private_to_us() -> None:
    fd = unix.memory_file("a-test")
    os.write(fd, b"kept")
    assert os.pread(fd, 10, 0) == b"kept"
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_raise_fd_limit() -> None:
    """The soft limit goes up to the hard one."""
    out = _in_python("""
import resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(100, hard), hard))
print(unix.raise_fd_limit() == hard, resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard)
""")
    assert out == "True True"


# ── signals ──────────────────────────────────────────────────────────────────────────────────


def test_wakeup_is_one_byte_for_each_signal_and_nothing_else() -> None:
    out = _in_python("""
reader = unix.install_wakeup([signal.SIGTERM, signal.SIGHUP])
os.kill(os.getpid(), signal.SIGTERM)
os.kill(os.getpid(), signal.SIGHUP)
print(sorted(reader.recv(10)) == sorted([signal.SIGTERM, signal.SIGHUP]))
""")
    assert out == "True"


def test_ignored_signals_are_not_ignored_in_subprocesses() -> None:
    """A no-op handler becomes the default disposition at exec. Fails with SIG_IGN."""
    out = _in_python("""
import subprocess
unix.ignore_signals([signal.SIGINT])
os.kill(os.getpid(), signal.SIGINT)
shown = subprocess.run(["grep", "SigIgn", "/proc/self/status"], capture_output=True, text=True).stdout
print(int(shown.split()[1], 16) & (1 << (signal.SIGINT - 1)))
""")
    assert out == "0"


def test_reset_signals_leaves_the_apps_own_handlers() -> None:
    """What the zygote set goes; what the app set at import stays."""
    out = _in_python("""
own = lambda *_: None
signal.signal(signal.SIGUSR1, own)
unix.install_wakeup([signal.SIGTERM])
unix.reset_signals()
print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, signal.getsignal(signal.SIGUSR1) is own,
      signal.set_wakeup_fd(-1))
""")
    assert out == "True True -1"


# ── memory, environment, identity ────────────────────────────────────────────────────────────


@pytest.mark.skipif(not unix.LINUX, reason="smaps are Linux's")
def test_smaps_rollup_counts_in_bytes() -> None:
    sums = unix.smaps_rollup()
    assert sums["Rss"] > 1 << 20
    assert sums["Pss"] <= sums["Rss"]
    child = _child("pass")
    child.wait()
    assert unix.smaps_rollup(child.pid) == {}, "nobody there"


def test_enter_environment(tmp_path: Path) -> None:
    out = _in_python(f"""
unix.enter_environment(["A=1", "B=x=y"], {str(tmp_path)!r}, 0o027)
print(os.environ["A"], os.environ["B"], os.getcwd(), oct(os.umask(0)))
""")
    assert out == f"1 x=y {tmp_path.resolve()} 0o27"


def test_a_directory_that_is_not_there_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"chdir .*/nowhere: No such file"):
        unix.enter_environment([], str(tmp_path / "nowhere"), None)

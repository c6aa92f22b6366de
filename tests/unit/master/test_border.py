"""What the master believes of a zygote's and a worker's messages: real processes, descriptors and pids."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aserver import unix
from aserver.errors import ChannelError
from aserver.ipc import messages as msg
from aserver.ipc.channel import Channel
from aserver.master import border, handles
from aserver.master.handles import WorkerHandle, ZygoteHandle

needs_pidfd = pytest.mark.skipif(not unix.LINUX, reason="there are no pidfds")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")

#: A zygote that forks as told on its standard input: "worker", "grandchild" (its child's child); says the pid.
ZYGOTE = """
import os, sys
if len(sys.argv) > 1:
    os.setuid(int(sys.argv[1]))
for line in sys.stdin:
    reader, writer = os.pipe()
    if os.fork() == 0:
        if line == "grandchild\\n" and os.fork():
            os.read(os.pipe()[0], 1)
        os.write(writer, b"%d" % os.getpid())
        os.read(os.pipe()[0], 1)
    print(os.read(reader, 20).decode(), flush=True)
os.killpg(0, 9)
"""


@contextlib.contextmanager
def zygote_process(*arguments: str) -> Iterator[tuple[ZygoteHandle, Callable[[str], int]]]:
    """Its handle, and a function that has it fork."""
    with subprocess.Popen(
        [sys.executable, "-c", ZYGOTE, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None

        def fork(what: str) -> int:
            assert process.stdin is not None
            assert process.stdout is not None
            print(what, file=process.stdin, flush=True)
            return int(process.stdout.readline())

        ours, theirs = unix.stream_pair()
        handle = ZygoteHandle(
            1, process.pid, os.pidfd_open(process.pid), Channel(ours, msg.FromZygote), unix.memory_file("trace")
        )
        try:
            yield handle, fork
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            handle.close()
            theirs.close()


@contextlib.contextmanager
def pidfd(pid: int) -> Iterator[int]:
    made = os.pidfd_open(pid)
    yield made
    os.close(made)


@needs_pidfd
def test_a_pidfd_is_believed_if_it_is_of_a_child_of_that_zygote() -> None:
    """Fails without each of the refusals: the master would signal whatever it was handed."""
    with zygote_process() as (zygote, fork), zygote_process() as (other, fork_other):
        pid = fork("worker")
        with pidfd(pid) as good:
            border.check_process(good, pid, zygote)
            with pytest.raises(ChannelError, match=f"is not the process {pid + 1} that it names"):
                border.check_process(good, pid + 1, zygote)
        grandchild, stranger = fork("grandchild"), fork_other("worker")
        assert other.pid != zygote.pid
        for wrong in (grandchild, stranger, os.getpid(), 1, os.getppid()):
            with pidfd(wrong) as bad, pytest.raises(ChannelError, match=r"is no child of that zygote|that it names"):
                border.check_process(bad, wrong, zygote)


@needs_pidfd
@pytest.mark.parametrize("what", ["file", "socket", "pipe", "memory", "pid directory"])
def test_what_is_no_pidfd_is_refused(what: str) -> None:
    """Fails without the look at fdinfo; a descriptor of /proc/PID would do for pidfd_send_signal(2)."""
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()
    fd = {
        "file": lambda: os.open(__file__, os.O_RDONLY),
        "socket": lambda: os.dup(ours.fileno()),
        "pipe": lambda: os.dup(reader),
        "memory": lambda: os.memfd_create("x"),
        "pid directory": lambda: os.open(f"/proc/{os.getpid()}", os.O_RDONLY | os.O_DIRECTORY),
    }[what]()
    with zygote_process() as (zygote, _), pytest.raises(ChannelError, match="is none"):
        border.check_process(fd, os.getpid(), zygote)
    for each in (fd, reader, writer):
        os.close(each)
    ours.close()
    theirs.close()


@needs_pidfd
def test_a_pid_that_is_somebody_elses_by_now_is_no_way_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pid's status is looked at while the pidfd still has that pid. A worker that has ended meanwhile can harm
    nobody, and is believed: its end is news. Fails with one look at the pidfd (a refusal of an honest zygote).
    """
    with zygote_process() as (zygote, fork):
        pid = fork("worker")
        with pidfd(pid) as fd:
            looks = [pid, -1]
            monkeypatch.setattr(border, "_pid_behind", lambda each: looks.pop(0) if each == fd else zygote.pid)
            monkeypatch.setattr(border, "_status", lambda _: {})  # another process's, or none
            border.check_process(fd, pid, zygote)
            assert not looks


@needs_pidfd
@needs_root
def test_a_process_of_another_user_is_refused_where_privileges_were_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child of the zygote that is root, such as a setuid program. Fails without the comparison of Uid."""
    with zygote_process() as (_, fork_as_root), zygote_process("65534") as (dropped, fork):
        pid, theirs = fork("worker"), fork_as_root("worker")
        with pidfd(pid) as good:
            border.check_process(good, pid, dropped)

        # As if root's child were the dropped one's: nobody makes a setuid program for a test.
        def status(of: int | str) -> dict[str, str]:
            lines = (line.split(":\t", 1) for line in Path(f"/proc/{of}/status").read_text().splitlines())
            return dict(lines) | ({"PPid": str(dropped.pid)} if of == theirs else {})

        monkeypatch.setattr(border, "_status", status)
        with pidfd(theirs) as bad, pytest.raises(ChannelError, match="belongs to another user"):
            border.check_process(bad, theirs, dropped)


@needs_pidfd
def test_without_proc_only_a_master_that_could_be_abused_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails closed for root, and lets others serve."""
    monkeypatch.setattr(Path, "is_dir", lambda _: False)
    with zygote_process() as (zygote, fork):
        pid = fork("worker")
        with pidfd(pid) as fd:
            monkeypatch.setattr(os, "geteuid", lambda: 1000)
            border.check_process(fd, pid, zygote)
            monkeypatch.setattr(os, "geteuid", lambda: 0)
            with pytest.raises(ChannelError, match="without /proc"):
                border.check_process(fd, pid, zygote)


# ── descriptors ──────────────────────────────────────────────────────────────────────────────


def test_a_channel_is_an_end_of_a_socketpair_and_nothing_else(tmp_path: os.PathLike[str]) -> None:
    """Fails with any socket that recvmsg(2) takes: root would write into a service's socket, or wait on a file."""
    path = os.path.join(tmp_path, "s")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    served, _ = listener.accept()
    ours, theirs = socket.socketpair()
    datagrams = socket.socketpair(type=socket.SOCK_DGRAM)
    others = [listener, client, served, *datagrams, socket.socket(), socket.socket(socket.AF_UNIX)]
    file = os.open(os.devnull, os.O_RDWR)
    for fd in (*(each.fileno() for each in others), file):
        with pytest.raises(ChannelError, match="no end of a stream socketpair"):
            border.channel_of(fd)
        os.fstat(fd)
    border.channel_of(os.dup(ours.fileno())).close()
    theirs.close()
    border.channel_of(os.dup(ours.fileno())).close()  # the worker has ended meanwhile: that is no lie
    os.close(file)
    for each in (*others, ours):
        each.close()


def test_a_trace_is_a_file_in_memory() -> None:
    """Fails without the check: a read of another kind may wait for whoever serves it, for ever."""
    memory = unix.memory_file("trace")
    border.check_trace(memory)
    os.close(memory)
    reader, writer = os.pipe()
    null = os.open(os.devnull, os.O_RDONLY)
    for fd in (reader, writer, null):
        with pytest.raises(ChannelError, match="no file in memory"):
            border.check_trace(fd)
        os.close(fd)


# ── messages ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def zygote() -> Iterator[ZygoteHandle]:
    """One without a process, and, as on macOS, without a pidfd."""
    ours, theirs = unix.stream_pair()
    yield ZygoteHandle(1, 500, None, Channel(ours, msg.FromZygote), unix.memory_file("trace"))
    ours.close()
    theirs.close()


@pytest.mark.parametrize("wrong", ["unknown", "another generation's", "forked already"])
@pytest.mark.parametrize("message", [msg.Forked(1, 501), msg.ForkFailed(1, "EAGAIN")])
def test_an_answer_belongs_to_an_order(zygote: ZygoteHandle, wrong: str, message: msg.Forked | msg.ForkFailed) -> None:
    """Fails without it: ForkFailed about a living worker had it forgotten, and no stop ended any more."""
    worker = None if wrong == "unknown" else WorkerHandle(1, 2 if wrong.startswith("another") else 1, 1, 1)
    if worker is not None and wrong == "forked already":
        worker.pid = 501
    with pytest.raises(ChannelError, match="for serial 1, which it was not told to fork"):
        border.ordered(message, zygote, worker)
    assert border.ordered(message, zygote, WorkerHandle(1, 1, 1, 1)).pid is None


def test_an_end_is_the_zygotes_own_to_tell(zygote: ZygoteHandle) -> None:
    """Nothing follows of a worker that is no longer known. Fails without the comparisons: the status of a worker that
    lives would be made up, and one that was never forked buried.
    """
    assert not border.check_exited(msg.Exited(1, 501, 0), zygote, None)
    assert border.check_exited(msg.Exited(1, 501, 0), zygote, WorkerHandle(1, 1, 1, 1, 501))
    for worker in (WorkerHandle(1, 1, 1, 1), WorkerHandle(1, 1, 1, 1, 502), WorkerHandle(1, 2, 1, 1, 501)):
        with pytest.raises(ChannelError, match="no process of its own"):
            border.check_exited(msg.Exited(1, 501, 0), zygote, worker)


def test_a_pid_is_one_workers(zygote: ZygoteHandle) -> None:
    """Fails without `known`: one process would stand for two workers, or a worker for its zygote."""
    with pytest.raises(ChannelError, match="which is another process of this server"):
        border.believe_forked(msg.Forked(1, 501), [0, 1], zygote, WorkerHandle(1, 1, 1, 1), [500, 501])


def test_a_flood_is_more_than_there_can_be_to_say(zygote: ZygoteHandle) -> None:
    """An honest process with the most files has room. Fails without the count."""
    files = {f"/{number}": (0, 0) for number in range(msg.MOST_FILES + 10)}
    for _ in [*msg.in_pieces(files), "Loaded"]:
        border.count(zygote)
    zygote.said = zygote.may_say
    with pytest.raises(ChannelError, match="it has sent 65 messages, and can have had 64 to send"):
        border.count(zygote)


def test_of_a_fingerprint_only_paths_are_kept_and_not_too_many(zygote: ZygoteHandle) -> None:
    """stat(2) of a path with NUL is a ValueError in the master's chores. Fails without each condition in `_add`."""
    zygote.know({"relative": (1, 2), "/a\0b": (1, 2), "/" + "x" * 5000: (1, 2), "": (1, 2), "/good": (3, 4)})
    assert zygote.files == {"/good": (3, 4)}
    for part in range(4):
        zygote.know({f"/{part}/{number}{'x' * 4000}": (1, 2) for number in range(1000)})
    assert sum(map(len, zygote.files)) <= handles.MOST_CHARACTERS
    assert len(zygote.files) > 1000


def test_texts_are_cut_and_clean() -> None:
    assert border.clean("a\x1b[2J\u2028\u202eb\nc\té") == "a\\x1b[2J\\u2028\\u202eb\nc\té"
    assert len(border.clean("x" * 100_000)) < msg.LONGEST_REASON + 100

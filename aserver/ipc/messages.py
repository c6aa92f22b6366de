"""The whole conversation between master, zygote and worker, on a page.

Pure: only shapes. Descriptors travel beside a message (SCM_RIGHTS, unix(7)): `FDS` has their number, and the message's
docstring their order. `serial` names a worker process for ever, `slot` its place among the `workers`, and `generation`
the zygote whose code it runs; a pid is for people.

Messages to the master come from processes that run the application's code. The decoder holds the bounds of their
numbers; their meaning is checked where they are received (`master.processes`, `master.border`).
"""

from collections.abc import Iterator
from itertools import islice
from typing import Annotated

import msgspec

#: Characters of a text about an error, such as a traceback: an exception may quote a text of any size.
LONGEST_TEXT = 1 << 16
#: Characters of a reason, which is read as a line.
LONGEST_REASON = 2000
#: Requests, tasks and threads, each, that a worker tells, and characters of each stack. Together
#: they fit into a message.
MOST_SEEN, LONGEST_STACK = 200, 1500
#: Files of a fingerprint in a message: some 110 bytes each (measured: litellm's 3,863 files made 435 KB).
FILES_AT_ONCE = 1000
#: The most files of a process's code that are reported and watched: a look at so many takes 0.1 s.
MOST_FILES = 50_000

Files = dict[str, tuple[int, int]]
Serial = Annotated[int, msgspec.Meta(ge=1)]
Pid = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
#: The exit code of a process that failed: not 0, which would mean success.
FailureCode = Annotated[int, msgspec.Meta(ge=1, le=255)]
#: The form of waitpid(2): an exit code in the upper byte, or a signal.
WaitStatus = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
Seconds = Annotated[float, msgspec.Meta(ge=0.0, le=1e9)]


def shorten(text: str, most: int) -> str:
    """The beginning and the end of `text`, if it is longer than `most`: a traceback has its exception at the end."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]} [... {len(text) - most} characters are left out ...] {text[-(most // 2) :]}"


def in_pieces(files: Files) -> Iterator[Files]:
    """`files`, up to MOST_FILES, in parts of FILES_AT_ONCE; the last may be empty."""
    items = islice(files.items(), MOST_FILES)
    while len(piece := dict(islice(items, FILES_AT_ONCE))) == FILES_AT_ONCE:
        yield piece
    yield piece


class Message(msgspec.Struct, tag=True):
    """Base of all messages; the tag on the wire is the class name."""


class ListenerInfo(msgspec.Struct, frozen=True):
    """The facts that a worker needs about a listener; its descriptor travels beside this."""

    name: str  # for logs: "http://127.0.0.1:8000", "unix:/run/a.sock"
    family: str  # "inet", "inet6", "unix"
    tls: bool = False


# ── master → zygote ──────────────────────────────────────────────────────────────────────────


class Boot(Message):
    """The first message, with everything that the zygote needs.

    Fds: board, trace file, writing ends for standard output and error if they are captured, error log, access log if
    there is one, listeners.
    """

    generation: int
    settings: dict[str, object]
    lazy: bool
    hooks: tuple[str, ...]
    master_pid: int
    listeners: tuple[ListenerInfo, ...]
    access_log: bool
    directory: str | None = None  # to change to at the start; None: stay in the master's
    arguments: tuple[bytes, ...] = ()  # sys.argv of the program that the user has started


class Fork(Message):
    """Fork a worker for `slot`; `cell`, its place on the board, is set by `master.workers`.

    Fds: as in Boot, writing ends if there are any. The worker asks to be recycled after so many requests or seconds
    (0: never). The master draws them, because a random generator copied by fork gives every worker the same number.
    """

    generation: int
    serial: int
    slot: int
    recycle_after_requests: int = 0
    recycle_after_seconds: float = 0.0
    cell: int = 0


class Adopt(Message):
    """A living worker that another zygote forked; this zygote kills it if the master dies. Fds: pidfd."""

    serial: int
    pid: int


class Kill(Message):
    """Send `signal` to a worker. Only used where there are no pidfds: else the master sends it."""

    serial: int
    signal: int


class Quit(Message):
    """Exit as soon as no child is left; the master ends the workers. `last`: the whole server ends."""

    last: bool = False


class RunHook(Message):
    """Call a hook that belongs to the server as a whole, with the server and these numbers."""

    name: str
    numbers: tuple[int, ...] = ()


# ── zygote → master ──────────────────────────────────────────────────────────────────────────


class MoreFiles(Message):
    """A part of the fingerprint whose last part comes with Loaded or Ready; from a zygote or a worker."""

    files: Files


class Loaded(Message):
    """The zygote is ready to fork; `lazy` if the app will be loaded in each worker. `fingerprint`: see MoreFiles."""

    generation: int
    lazy: bool
    interface: str
    hazards: tuple[str, ...]
    seconds: Seconds
    fingerprint: Files


class Unforkable(Message):
    """The census found threads or the like, which a fork breaks, and `on_fork_hazard` is lazy: the zygote exits.

    The master starts another zygote for the same generation that loads the app in each worker.
    """

    generation: int
    hazards: tuple[str, ...]


class LoadFailed(Message):
    """The app could not be loaded (or a hazard was refused); the zygote exits after this."""

    generation: int
    exit_code: FailureCode
    reason: str
    detail: str

    def __post_init__(self) -> None:
        self.reason, self.detail = shorten(self.reason, LONGEST_REASON), shorten(self.detail, LONGEST_TEXT)


class Forked(Message):
    """A worker process exists. Fds: its channel, its trace file, its pidfd if the system has pidfds."""

    serial: Serial
    pid: Pid


class ForkFailed(Message):
    """fork(2) failed; `reason` is the system's text (for EAGAIN, ENOMEM)."""

    serial: Serial
    reason: str


class Exited(Message):
    """The zygote has reaped a worker."""

    serial: Serial
    pid: Pid
    status: WaitStatus


# ── worker → master ──────────────────────────────────────────────────────────────────────────


class Ready(Message):
    """The app is loaded, lifespan startup complete, and the worker accepts.

    A lazy worker's fingerprint has the files that it loaded (see MoreFiles).
    """

    serial: Serial
    fingerprint: Files


class BootFailed(Message):
    """The worker cannot serve and exits with `exit_code` (3 lifespan or crash, 4 load)."""

    serial: Serial
    exit_code: FailureCode
    reason: str
    detail: str

    def __post_init__(self) -> None:
        self.reason, self.detail = shorten(self.reason, LONGEST_REASON), shorten(self.detail, LONGEST_TEXT)


class RecycleAsked(Message):
    """The worker asks to be recycled, for `reason`; it serves until it is told to drain."""

    serial: Serial
    reason: str


class Stack(msgspec.Struct):
    """A thread, or a task without a request, and where it stands."""

    name: str
    stack: str


class RequestSeen(msgspec.Struct):
    """A request under way: for how many seconds, for whom, and where its application waits."""

    request: str  # `GET /x`, without the query
    client: str
    seconds: float
    begun: bool  # whether the answer has begun
    request_id: str
    stack: str


class Seen(Message):
    """The answer to Look. `of` is the number of requests and tasks that there are; some may be left out."""

    serial: Serial
    number: int
    of: int
    requests: list[RequestSeen]
    tasks: list[Stack]
    threads: list[Stack]
    clients: dict[str, int]  # how many have to do what before a deadline (`Awaited`)


# ── master → worker ──────────────────────────────────────────────────────────────────────────


class Drain(Message):
    """Stop accepting, finish, leave. `final`: no other worker will take the connections that arrive.

    `graceful` is seconds for requests in flight; 0 means at once. It may come again: with `final`, or with less time.
    """

    serial: Serial
    final: bool
    graceful: float


class Look(Message):
    """Tell the requests under way; `number` is for the answer."""

    number: int


# ── master → the reader of captured output ──────────────────────────────────────────────────


class WatchOutput(Message):
    """Read what a process writes, until no process can. Fds: error log, reading ends of standard output and error."""

    process: str  # for the log: "worker 1/g3"
    pid: int
    log_format: str
    brief: bool


class LeaveOutput(Message):
    """Leave: at the end of everything that is read, or `at_once`, because another reader goes on."""

    at_once: bool


# ── master → both ────────────────────────────────────────────────────────────────────────────


class Reopen(Message):
    """The log files were opened again, for rotation. Fds: error log, access log if there is one."""


ToZygote = Boot | Fork | Adopt | Kill | Quit | RunHook | Reopen
FromZygote = MoreFiles | Loaded | Unforkable | LoadFailed | Forked | ForkFailed | Exited
FromWorker = MoreFiles | Ready | BootFailed | RecycleAsked | Seen
ToWorker = Drain | Reopen | Look
ToReader = WatchOutput | LeaveOutput

#: How many descriptors travel with a message: (least, most).
FDS: dict[type[Message], tuple[int, int]] = {
    Boot: (3, 252),
    Fork: (0, 2),
    WatchOutput: (3, 3),
    Reopen: (1, 2),
    Adopt: (1, 1),
    Forked: (2, 3),
}

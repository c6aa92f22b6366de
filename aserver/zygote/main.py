"""The zygote: loads a generation's code, forks its workers, reaps them, reports, and is the master's deputy.

It has a single thread and no event loop: it polls the master's channel and the wakeup socket. Nothing else in aserver
forks, except the census (native.py) and the rehearsal of imports (warm.py). While the master lives it never decides
when to fork or which worker to end. When the master dies (EOF) it gives the workers their time to drain, and then ends
those that have not left.
"""

import contextlib
import faulthandler
import gc
import importlib
import logging
import os
import select
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import NoReturn

from aserver import importer, privileges, standard_streams, terminal, unix
from aserver.config import Config
from aserver.errors import AppLoadError, AserverError, ExitCode
from aserver.importer.hooks import Hooks, ServerView, WorkerView
from aserver.ipc.board import Board
from aserver.ipc.channel import Channel
from aserver.ipc.messages import (
    Adopt,
    Boot,
    Exited,
    Fork,
    Forked,
    ForkFailed,
    FromZygote,
    Kill,
    Loaded,
    LoadFailed,
    MoreFiles,
    Quit,
    Reopen,
    RunHook,
    ToZygote,
    Unforkable,
    in_pieces,
)
from aserver.log import stdio
from aserver.log.setup import configure
from aserver.protocol.context import COMPILED
from aserver.tls import Certificates
from aserver.worker.acceptor import Endpoint
from aserver.worker.exit import ProcessExit
from aserver.worker.fork_guard import ForkGuard
from aserver.worker.heap import Heap
from aserver.worker.main import Seed
from aserver.worker.main import run as run_worker
from aserver.zygote.allocator import keep_freed_memory
from aserver.zygote.deputy import Adopted, end_stragglers
from aserver.zygote.descriptors import make_private
from aserver.zygote.preload import preload
from aserver.zygote.warm import Teller, Warmth, wait

log = logging.getLogger("aserver.error")

#: Signals that wake the zygote's poll. It obeys only SIGCHLD: the others are sent to the whole group, for the master.
_WAKING = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
#: Seconds that the master may take for each part of the last message before the zygote leaves without it.
LAST_MESSAGE = 5.0
#: Seconds beyond the workers' own drain after which the deputy kills.
DEPUTY_ALLOWANCE = 1.0


def main(fd: int) -> NoReturn:
    """Be the zygote; the master has the other end of the socket `fd`. Ends the process."""
    unix.let_others_first()  # and so do workers, until they are ready
    keep_freed_memory(os.environ)
    terminal.leave_to_master(terminal.GROUP_SIGNALS)
    wake = unix.install_wakeup(_WAKING)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # blocked since before the exec (programs.spawn)
    channel: Channel[ToZygote] = Channel(socket.socket(fileno=fd), ToZygote)
    os.set_inheritable(fd, False)
    boot, fds = _first_message(channel)
    zygote = Zygote(boot, fds, channel, wake)
    try:
        zygote.load()
        zygote.run()
    except BaseException:
        log.critical("the zygote failed", exc_info=True)
        zygote.leave(ExitCode.UNEXPECTED)
    zygote.leave(ExitCode.OK)


def _first_message(channel: Channel[ToZygote]) -> tuple[Boot, list[int]]:
    while not channel.eof:
        select.select([channel], [], [])
        for message, fds in channel.receive():
            assert isinstance(message, Boot)
            return message, fds
    os._exit(ExitCode.OK)  # the master died before its first message


class Zygote:
    """Obeys the master's messages."""

    def __init__(self, boot: Boot, fds: list[int], channel: Channel[ToZygote], wake: socket.socket) -> None:
        self._boot = boot
        self._config = Config.from_wire(boot.settings)
        self._channel = channel
        self._wake = wake
        board_fd, self._trace, *rest = fds
        self._output, rest = (rest[:2], rest[2:]) if self._config.capture_output else ([], rest)
        error_fd, *rest = rest
        access_fd, listeners = (rest[0], rest[1:]) if boot.access_log else (None, rest)
        self._board = Board(board_fd)
        faulthandler.enable(file=self._trace, all_threads=True)  # a crash, or SIGABRT of a master that waits no longer
        unix.set_process_title(f"{self._config.proc_name}: zygote (generation {boot.generation})")
        process, brief = f"zygote g{boot.generation}", self._config.reload
        self._logs = configure(self._config, process=process, error_fd=error_fd, access_fd=access_fd, brief=brief)
        self._logs.serve_others()
        self._logs.share_half_lines(board_fd)
        self._captured: list[os.stat_result] = []  # the pipes of this process's own output
        self._listeners = [socket.socket(fileno=listener) for listener in listeners]
        own = (channel.fileno(), wake.fileno(), *(listener.fileno() for listener in self._listeners))
        self._fork_guard = ForkGuard(own, tuple, traced=True)  # the import of the app may fork
        self._fork_guard.begin()
        self._endpoints: tuple[Endpoint, ...] = ()
        self._app: importer.LoadedApp | None = None
        self._unused_loops: tuple[object, ...] = ()
        self._heap: Heap | None = None
        self._children: dict[int, tuple[int, int | None]] = {}  # pid: (serial, pidfd)
        self._adopted = Adopted()
        self._quitting: Quit | None = None
        server = ServerView(self._config, boot.generation, boot.master_pid)
        self._hooks = Hooks(self._config.config, boot.hooks, server)
        self._views: dict[int, WorkerView] = {}  # by pid, for `child_exit`
        self._warmth = Warmth() if self._config.reload and boot.lazy else None

    # ── load ─────────────────────────────────────────────────────────────────────────────────

    def load(self) -> None:
        """Load the app (unless lazy), take the census, tell the master. Leaves if there is nothing to fork from."""
        began = time.monotonic()
        hazards: tuple[str, ...] = ()
        remarks: tuple[str, ...] = ()
        # The channel is not read while the app is imported: code that hangs there would outlive a master that dies.
        unix.signal_at_parents_end(signal.SIGKILL)
        try:
            self._enter_surroundings()
            self._hooks.define()
            self._hooks.run("on_starting" if self._boot.generation == 1 else "on_reload", self._hooks.server)
            if not self._boot.lazy:
                gc.freeze()  # our own modules, which the collection below need not look at
                preloaded = preload(self._config)
                self._app, self._unused_loops = preloaded.app, preloaded.unused_loops
                hazards, remarks = preloaded.hazards, preloaded.remarks
                standard_streams.keep()  # the app may have closed some
        except AserverError as error:
            detail = error.detail if isinstance(error, AppLoadError) else ""
            self._give_up(LoadFailed(self._boot.generation, error.exit_code, str(error), detail))
        if hazards:
            self._weigh(hazards)
        for remark in remarks:
            log.warning("%s", remark)
        # anyio imports its backend when a loop runs first: without this 40 ms and 2 MB in each worker.
        with contextlib.suppress(ImportError):
            importlib.import_module("anyio._backends._asyncio")
        gc.collect()
        self._heap = Heap() if self._config.max_memory and not self._boot.lazy else None
        gc.freeze()
        unix.signal_at_parents_end(0)
        self._tell_loaded(hazards, time.monotonic() - began)

    def _enter_surroundings(self) -> None:
        """Directory, environment, user, arguments and streams, as the app is to find them. Raises ConfigError."""
        sys.argv[:] = map(os.fsdecode, self._boot.arguments)
        unix.enter_environment((), self._boot.directory, None)  # its name may lead to another release by now
        certificates = self._load_certificates()
        unix.enter_environment(self._config.env, self._config.chdir, self._config.umask)
        privileges.drop_privileges(self._config.user, self._config.group)
        if certificates is not None and (unseen := certificates.unseen()) is not None:
            log.info("%s", unseen)
        if self._output:
            stdio.capture_output(self._output)
            self._captured = [os.fstat(1), os.fstat(2)]
        else:
            stdio.replace_stdio()

    def _tell_loaded(self, hazards: tuple[str, ...], seconds: float) -> None:
        # The versions are logged here and not by the master, because a reload may bring others.
        version, loop = ".".join(map(str, sys.version_info[:3])), sys.modules["uvloop"].__version__
        log.info("Python %s, uvloop %s%s", version, loop, ", protocol compiled" if COMPILED else "")
        interface = self._app.interface if self._app else ""
        *parts, last = in_pieces(importer.fingerprint() if self._app else {})
        for part in parts:
            self._tell(MoreFiles(part))
        self._tell(Loaded(self._boot.generation, self._boot.lazy, interface, hazards, seconds, last))

    def _load_certificates(self) -> Certificates | None:
        """Make the endpoints. Called before privileges are dropped, to read the keys. Raises ConfigError."""
        tls = any(info.tls for info in self._boot.listeners)
        certificates = Certificates(self._config) if tls else None
        self._endpoints = tuple(
            Endpoint(listener, info.name, certificates if info.tls else None)
            for listener, info in zip(self._listeners, self._boot.listeners, strict=True)
        )
        return certificates

    def _weigh(self, hazards: tuple[str, ...]) -> None:
        what = "; ".join(hazards)
        found = f"loading {self._config.target} before the fork left behind what does not survive it: {what}"
        if self._config.on_fork_hazard == "warn":
            log.error("%s; the workers are forked all the same (on_fork_hazard=warn)", found)
        elif self._config.on_fork_hazard == "refuse":
            reason = f"{found}; refused (on_fork_hazard=refuse)"
            self._give_up(LoadFailed(self._boot.generation, ExitCode.APP_LOAD, reason, ""))
        else:
            log.error("%s; each worker loads the app itself instead (on_fork_hazard=lazy)", found)
            self._give_up(Unforkable(self._boot.generation, hazards))

    def _give_up(self, message: LoadFailed | Unforkable) -> NoReturn:
        """Leave, and tell the master why, at the very end: once told, the master does not wait for this process.

        Threads that the import has started are not joined: each attempt starts them again.
        """
        code = message.exit_code if isinstance(message, LoadFailed) else ExitCode.OK
        self.leave(code, join=False, last=lambda: self._tell(message))

    # ── serve the master ─────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        """Obey until told to quit, or until the master is gone."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while self._quitting is None or self._children:
            poll.modify(self._channel, select.POLLIN | (select.POLLOUT if self._channel.pending else 0))
            wait(poll, self._warmth)
            self._channel.flush()
            with contextlib.suppress(BlockingIOError):
                while self._wake.recv(4096):
                    pass
            self._reap()
            self._adopted.forget_dead()
            for message, fds in self._channel.receive():
                self._obey(message, fds)
            if self._channel.eof:
                for listener in self._listeners:
                    listener.close()
                grace = self._config.graceful_timeout + self._config.lifespan_shutdown_timeout
                end_stragglers(self._children.keys(), self._adopted, grace + DEPUTY_ALLOWANCE, self._await_ends)
                return
        if self._quitting.last:
            self._hooks.run("on_exit", self._hooks.server)

    def _obey(self, message: ToZygote, fds: list[int]) -> None:
        match message:
            case Fork():
                self._fork(message, fds)
            case Adopt():
                self._adopted.add(message.serial, fds[0])
            case Kill():
                for pid, (serial, _) in self._children.items():
                    if serial == message.serial:
                        os.kill(pid, message.signal)  # its pid is not used again before it is reaped, below
            case Quit():
                self._quitting = message
                for listener in self._listeners:
                    listener.close()
            case RunHook():
                self._hooks.run(message.name, self._hooks.server, *message.numbers)
            case Reopen():
                self._logs.replace(fds[0], fds[1] if len(fds) > 1 else None)
            case Boot():
                raise AssertionError("a zygote boots once")

    def _tell(self, message: FromZygote, *fds: int) -> None:
        """Send `message`. A rest that the socket does not take is written later, by `run` or by `leave`."""
        self._channel.send(message, fds)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if child is not None:  # else a process that the app has started at import
                serial, pidfd = child
                if pidfd is not None:
                    os.close(pidfd)
                self._tell(Exited(serial, pid, status))
                view = self._views.pop(pid)
                if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGABRT:
                    # gunicorn runs this hook in the worker. There no Python code runs any more when the loop hangs.
                    self._hooks.run("worker_abort", view)
                self._hooks.run("child_exit", self._hooks.server, view)

    # ── fork ─────────────────────────────────────────────────────────────────────────────────

    def _fork(self, order: Fork, output: list[int]) -> None:
        stdio.finish_streams()  # else half a line that the app has printed at import would appear in each worker
        view = WorkerView(self._hooks.server, order.serial, order.slot)
        self._hooks.run("pre_fork", self._hooks.server, view)
        with contextlib.ExitStack() as parents:  # for the parent: the child ends in _become_worker
            for end in output:
                parents.callback(os.close, end)
            try:
                ours, theirs = (parents.enter_context(end) for end in unix.stream_pair())
                trace = unix.memory_file("aserver-trace")
                parents.callback(os.close, trace)
                teller = self._warmth.ask(parents) if self._warmth is not None else None
                # Blocked across the fork: a signal to the child would be written to the zygote's wakeup socket.
                blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
                parents.callback(signal.pthread_sigmask, signal.SIG_SETMASK, blocked)
                self._fork_guard.end()  # a worker needs the listeners, and closes the rest by itself
                parents.callback(self._fork_guard.begin)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which the census has named
                    pid = os.fork()  # noqa: TID251
            except OSError as error:
                self._tell(ForkFailed(order.serial, error.strerror or str(error)))
                return
            if pid == 0:
                if output:
                    stdio.exchange_output(self._captured, output)
                self._become_worker(order, view, (ours, theirs), trace, teller)
            pidfd = unix.open_pidfd(pid)
            self._children[pid] = (order.serial, pidfd)
            view.pid = pid
            self._views[pid] = view
            self._tell(Forked(order.serial, pid), ours.fileno(), trace, *([] if pidfd is None else [pidfd]))

    def _become_worker(
        self,
        order: Fork,
        view: WorkerView,
        ends: tuple[socket.socket, socket.socket],
        trace: int,
        teller: Teller | None,
    ) -> NoReturn:
        """In the child: close everything that is the zygote's, then be a worker."""
        try:
            ends[0].close()
            self._channel.close()
            self._wake.close()
            faulthandler.disable()  # the worker has a trace of its own
            os.close(self._trace)
            for pidfd in self._pidfds():
                os.close(pidfd)
            unix.reset_signals()
            for loop in self._unused_loops:
                make_private(loop)
            self._logs.set_process(f"worker {order.slot}/g{self._boot.generation}")
            seed = Seed(
                order=order,
                generation=self._boot.generation,
                config=self._config,
                app=self._app,
                endpoints=self._endpoints,
                board=self._board,
                channel=ends[1],
                trace=trace,
                logs=self._logs,
                hooks=self._hooks,
                view=view,
                on_loaded=teller.tell if teller is not None else None,
                relay=self._warmth.relay if self._warmth is not None else None,
                heap=self._heap,
            )
            run_worker(seed)
        finally:
            os._exit(ExitCode.UNEXPECTED)

    def _pidfds(self) -> Iterator[int]:
        yield from (pidfd for _, pidfd in self._children.values() if pidfd is not None)
        yield from self._adopted

    # ── leave ────────────────────────────────────────────────────────────────────────────────

    def _await_ends(self) -> None:
        """Wait a moment, or until a worker ends, and reap."""
        unix.readable([self._wake.fileno(), *self._pidfds()], 0.2)
        with contextlib.suppress(BlockingIOError):
            self._wake.recv(4096)
        self._reap()

    def leave(self, code: int, *, join: bool = True, last: Callable[[], None] | None = None) -> NoReturn:
        """End the process as Python ends it. Exit hooks that the app made at import run here, and in no worker."""

        def send_last() -> None:
            if last is not None:
                last()
            self._channel.flush_blocking(LAST_MESSAGE)

        ProcessExit(self._logs, last=send_last).go(code, join=join)

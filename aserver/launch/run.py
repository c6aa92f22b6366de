"""The start of a server: by the command, embedded as a whole, or as a single worker in the caller's loop.

Runs in the master, or in the embedding program. `run` and `serve` are the public names. In an embedding program `serve`
installs no signal handler unless asked, and never renames the process or configures logging.
"""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Unpack

import anyio
import anyio.abc

from aserver import __version__, loading, standard_streams, terminal, unix
from aserver.config import Config, Resolved, layers
from aserver.config import settings as all_settings
from aserver.config.keywords import Settings
from aserver.errors import AppLoadError, AserverError, BindError, BootError, ConfigError, ExitCode
from aserver.launch.advice import advise
from aserver.log.opening import open_private
from aserver.log.setup import configure, read_log_config
from aserver.master.control.answers import controlled
from aserver.master.control.companion import bind as bind_admin
from aserver.master.control.place import bind as bind_control
from aserver.master.core.events import Exit
from aserver.master.notify import ReadyLines
from aserver.master.pidfile import PidFile
from aserver.master.resources import AllResources, provide
from aserver.master.runner import Runner
from aserver.master.signals import handled, obey_pending
from aserver.master.snapshot import Snapshot
from aserver.master.upgrade import answer_preflight, inherited, is_continued
from aserver.sockets import Address, Listener

log = logging.getLogger("aserver.master")

#: The advice for a program under trio.
NO_TRIO = "uvloop and asyncio are its loops: under trio start `aserver run` as a process (trio.run_process)"


def run(app_or_target: Callable[..., Any] | str, **settings: Unpack[Settings]) -> ExitCode:
    """Serve until a signal ends it. Blocks.

    A target string ("module:attribute") is served as by the command `aserver run`, with processes of its own; an app
    object, ASGI or WSGI, by a worker in this very process, so that a debugger sees it. SIGTERM stops gracefully,
    SIGINT (Ctrl-C) at once.

    `settings` are those of docs/settings.md. Returns OK, or KILLED if something had to be killed at the end. Raises
    ConfigError, BindError, AppLoadError or BootError. If the target's module calls it unguarded, a sentence on standard
    error and SystemExit: that module is mostly the program itself, and a traceback would show correct code.
    """
    loading.refuse_nested("aserver.run()")
    _refuse_running_loop()
    target = {"target": app_or_target} if isinstance(app_or_target, str) else {}
    keywords, cwd = {**target, **settings}, started_in()

    def read() -> Resolved:
        return layers.load(keywords=keywords, environ=os.environ, cwd=cwd)

    resolved = read()
    _tell_of_daemon(resolved)
    if isinstance(app_or_target, str):
        if threading.current_thread() is not threading.main_thread():
            raise AserverError("aserver.run() with a target hears signals, as only the main thread can; run it there")
        try:
            return run_resolved(resolved, read)
        except AppLoadError as error:
            if not str(error).endswith(loading.REMEDY):
                raise
            sys.stderr.write(f"aserver: error: {error}\n")
            raise SystemExit(error.exit_code) from None
    # Imported only here, because a master must never load a parser or a loop implementation.
    from aserver.launch.embedded import run_here  # noqa: PLC0415

    return run_here(app_or_target, resolved)


def _tell_of_daemon(resolved: Resolved) -> None:
    if resolved.config.daemon:
        log.warning("daemon does nothing in a program of its own: only the command `aserver run` detaches")


def _refuse_running_loop() -> None:
    """Raise AserverError inside a running loop, asyncio's or trio's, which `run` would block."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        raise AserverError(f"aserver.run() is called under trio, which it would block; {NO_TRIO}")
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        raise AserverError("aserver.run() is called in a running event loop; use `await aserver.serve(...)` there")


def started_in() -> Path:
    """The working directory of a process of our own (see `working_directory`).

    Sets $PWD, for the image of an upgrade.
    """
    found = unix.working_directory(os.environ, handed_on=is_continued(os.environ))
    os.environ["PWD"] = str(found)
    return found


def run_resolved(
    resolved: Resolved,
    reread: Callable[[], Resolved],
    *,
    last: bool = False,
    on_ready: Mapping[int, str] = MappingProxyType({}),
) -> ExitCode:
    """`run` with settings that are read already. For a reload, `reread` reads them again from the same places.

    `last`: the process ends when the server has stopped. Signals are blocked then, so that none changes its exit code.
    `on_ready` are descriptors, and the text that each gets when all workers serve for the first time.
    """
    standard_streams.keep()
    if answer_preflight(os.environ):
        if resolved.config.log_config is not None:
            read_log_config(resolved.config.log_config)  # the next master could not begin without it
        return ExitCode.OK
    continued = is_continued(os.environ)  # then the former image has left its descriptors
    # Before the loop could be given the number of a descriptor that was not passed.
    ready = ReadyLines.passed(None if continued else resolved.config.notify_fd, on_ready)
    with contextlib.ExitStack() as loops:
        loops.enter_context(terminal.modes_kept())
        with _start():
            runner = loops.enter_context(asyncio.Runner())
            runner.get_loop()
        return runner.run(_run_master(resolved, reread, ready, last=last))


@contextlib.contextmanager
def _start() -> Iterator[None]:
    """Around system calls of a start: an error becomes a sentence, with the limit that the operator can raise."""
    try:
        yield
    except OSError as error:
        limit = {errno.EMFILE: "open files (ulimit -n)", errno.EFBIG: "file sizes (ulimit -f)"}.get(error.errno or 0)
        if limit is None:
            raise AserverError(f"the server cannot start: {error}") from error
        raise ConfigError(f"the server cannot start: {error.strerror}; raise the limit of {limit}") from error


async def _run_master(resolved: Resolved, reread: Callable[[], Resolved], ready: ReadyLines, *, last: bool) -> ExitCode:
    snapshot = inherited(os.environ)
    unix.keep_exit_statuses()
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as undo:
        with contextlib.ExitStack() as standing:
            with terminal.blocked(terminal.PASSING):  # a signal by the pidfile may come before the handlers stand
                with _start():
                    runner = (
                        _first(resolved, undo, reread, ready) if snapshot is None else _resumed(snapshot, undo, reread)
                    )
                standing.enter_context(handled(loop, runner))
                standing.enter_context(controlled(runner))
            obey_pending()
            result = await runner.run()
            if last and result.code in (ExitCode.OK, ExitCode.KILLED):
                signal.pthread_sigmask(signal.SIG_BLOCK, terminal.GROUP_SIGNALS)
        if result.code in (ExitCode.OK, ExitCode.KILLED):
            log.info("stopped")
        elif runner.resources.next.config.errorlog != "-":
            log.critical("%s\n%s", result.reason, result.detail)  # the command prints it on standard error as well
    return _conclude(result)


def _first(resolved: Resolved, undo: contextlib.ExitStack, reread: Callable[[], Resolved], ready: ReadyLines) -> Runner:
    """The master of a new server."""
    config, fd_limit = resolved.config, unix.raise_fd_limit()
    unix.set_process_title(f"{config.proc_name}: master ({config.target})")
    with contextlib.ExitStack() as failed:
        pidfile = PidFile(config.pidfile) if config.pidfile else None
        if pidfile is not None:
            failed.callback(pidfile.remove)
        control, uncontrolled = bind_control(config)
        if control is not None:
            failed.callback(control.close)
        resources = provide(resolved, os.environ)
        failed.pop_all()
    logs = configure(
        config,
        process="master",
        error_fd=open_private(resources.log_fds[0]),
        loop=asyncio.get_running_loop(),
        brief=config.reload,
    )
    admin = bind_admin(config)
    runner = Runner(
        AllResources(resources),
        logs=logs,
        reread=reread,
        pidfile=pidfile,
        control=control,
        admin=admin,
        ready_lines=ready,
    )
    undo.callback(logs.close)
    count = f"{resources.workers} worker{'' if resources.workers == 1 else 's'}"
    log.info("aserver %s, pid %d: %s, %s", __version__, os.getpid(), config.target, count)
    for info in all_settings():
        if (origin := resolved.origins[info.name]) != "default":
            log.debug("%s = %s (%s)", info.name, info.show(getattr(config, info.name)), origin)
    for note in resolved.notes:
        log.info("%s", note)
    for warning in (
        *([uncontrolled] if uncontrolled else []),
        *resolved.warnings,
        *_replaced(resolved, resources.listeners),
        *advise(config, resources.workers, environ=os.environ, fd_limit=fd_limit),
    ):
        log.warning("%s", warning)
    return runner


def _replaced(resolved: Resolved, listeners: Sequence[Listener]) -> Iterator[str]:
    """A sentence if `bind` is set, and systemd's sockets take its place (as in gunicorn)."""
    origin, passed = resolved.origins["bind"], any(listener.adopted for listener in listeners)
    if origin != "default" and passed and not any(spec.startswith("fd://") for spec in resolved.config.bind):
        yield f"bind ({origin}) is not used: systemd passed sockets (LISTEN_FDS); an `fd://` among the binds keeps both"


def _resumed(snapshot: Snapshot, undo: contextlib.ExitStack, reread: Callable[[], Resolved]) -> Runner:
    """The master of a server that the image of this process before the upgrade has left."""
    config = Config.from_wire(snapshot.resources[snapshot.serving].settings)
    unix.set_process_title(f"{config.proc_name}: master ({config.target})")
    error_fd = next(
        open_private(log.fd) for log in snapshot.logs if (log.which, log.path) == ("error", config.errorlog)
    )
    logs = configure(config, process="master", error_fd=error_fd, loop=asyncio.get_running_loop(), brief=config.reload)
    pidfile = None
    if snapshot.pidfile is not None and config.pidfile is not None:
        pidfile = PidFile.adopt(config.pidfile, snapshot.pidfile, snapshot.pidfile_lock)
    runner = Runner.resumed(snapshot, logs=logs, reread=reread, pidfile=pidfile)
    undo.callback(logs.close)
    log.info("aserver %s, pid %d, goes on after the upgrade", __version__, os.getpid())
    return runner


def _conclude(result: Exit) -> ExitCode:
    if result.code == ExitCode.APP_LOAD:
        raise AppLoadError(result.reason, result.detail)
    if result.code == ExitCode.BIND:
        raise BindError(result.reason)
    if result.code in (ExitCode.OK, ExitCode.KILLED):
        return ExitCode(result.code)
    if result.code == ExitCode.CONFIG:  # found by the zygote: certificates, users, directories
        raise ConfigError(result.reason)
    error = BootError(result.reason)
    if result.detail:
        error.add_note(result.detail)
    raise error


# ── embedded ─────────────────────────────────────────────────────────────────────────────────


async def serve(
    app_or_target: Callable[..., Any] | str,
    *,
    task_status: anyio.abc.TaskStatus[tuple[Address, ...]] = anyio.TASK_STATUS_IGNORED,
    install_signal_handlers: bool = False,
    **settings: Unpack[Settings],
) -> None:
    """Serve inside the caller's running event loop (asyncio or uvloop, or an anyio program on either) until cancelled.

    An app object, ASGI or WSGI, is served by a worker in this very loop; a target string gets a whole master, its
    zygote and `workers`. `await task_group.start(serve, app)` returns the bound addresses as soon as connections are
    accepted. Cancelling it drains: requests under way get `graceful_timeout`; then no process, handler, thread or
    descriptor is left.
    Raises ConfigError, BindError, AppLoadError or BootError.
    """
    loading.refuse_nested("aserver.serve()")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise AserverError(f"aserver.serve() needs a running asyncio loop; {NO_TRIO}") from None
    target = {"target": app_or_target} if isinstance(app_or_target, str) else {}
    resolved = layers.load(keywords={**target, **settings}, environ=os.environ, cwd=unix.working_directory(os.environ))
    for warning in resolved.warnings:
        log.warning("%s", warning)
    _tell_of_daemon(resolved)
    if isinstance(app_or_target, str):
        await _serve_master(resolved, task_status, install_signal_handlers=install_signal_handlers)
    else:
        from aserver.launch.embedded import serve_here  # noqa: PLC0415 - as in `run`

        await serve_here(app_or_target, resolved, task_status, install_signal_handlers=install_signal_handlers)


async def _serve_master(
    resolved: Resolved,
    task_status: anyio.abc.TaskStatus[tuple[Address, ...]],
    *,
    install_signal_handlers: bool,
) -> None:
    with contextlib.ExitStack() as failed:
        # In a program of others there is a control socket only if it was asked for.
        control = None if resolved.config.control == "auto" else bind_control(resolved.config)[0]
        if control is not None:
            failed.callback(control.close)
        resources = provide(resolved, os.environ)
        failed.pop_all()
    admin = bind_admin(resolved.config)
    runner = Runner(AllResources(resources), logs=None, reread=lambda: resolved, control=control, admin=admin)
    loop = asyncio.get_running_loop()
    handlers = handled(loop, runner) if install_signal_handlers else contextlib.nullcontext()
    with handlers, controlled(runner):
        async with anyio.create_task_group() as group:

            async def announce() -> None:
                await runner.listening.wait()
                task_status.started(tuple(listener.address for listener in resources.listeners))

            group.start_soon(announce)
            result = await runner.run()
            group.cancel_scope.cancel()
    _conclude(result)

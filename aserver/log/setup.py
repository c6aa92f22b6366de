"""The `aserver` loggers of this process: a handler over a sink; the app's own loggers are left alone.

Loggers of other servers that applications write to lead there as well (`serve_others`).

Master and zygote each configure their own. A worker keeps its zygote's and names itself by `Logging.set_process`. This
module must never open a log file by path (the master does, `opening.open_log`) and never touch the root logger.
"""

import logging
import os
from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from aserver.errors import ConfigError
from aserver.ipc.board import HalfLine
from aserver.log import stdio
from aserver.log.layout import JsonLayout, Layout, TextLayout
from aserver.log.opening import SinkKind, open_private
from aserver.log.sink import ACCESS_BOUND, Sink, SinkState

ROOT = "aserver"
ACCESS = "aserver.access"
ERROR = "aserver.error"
#: Loggers of other servers, which give them a handler; so applications write to them, or copy their handlers.
BORROWED = ("uvicorn", "gunicorn.error", "hypercorn.error")


class LogSettings(Protocol):
    """The part of `config.Config` that this module reads."""

    @property
    def loglevel(self) -> str: ...
    @property
    def log_format(self) -> str: ...
    @property
    def log_config(self) -> str | None: ...


class Lines(Protocol):
    """The target of access lines: a `Sink`, or a logger of the user's.

    The caller appends to `batch`, and calls `begin` after the first entry of an empty batch. `make` turns entries into
    lines.
    """

    batch: list[Any]
    make: Callable[[list[Any]], list[str]]

    @property
    def wants_records(self) -> bool:
        """Whether each entry must be a record."""

    @property
    def limit(self) -> int | None:
        """Bytes of the longest line that is taken whole."""

    def begin(self) -> None: ...
    def flush(self) -> None: ...


class LineHandler(logging.Handler):
    """Writes a record before anything else happens; safe from signal handlers and finalisers.

    It keeps `logging`'s lock (docs/traps.md, 82): the lock is re-entrant, and its holder never waits for anything.
    """

    def __init__(self, sink: Sink, layout: Layout) -> None:
        super().__init__()
        self.sink = sink
        self.layout = layout

    def emit(self, record: logging.LogRecord) -> None:
        """Lay out and write; several pieces only if the sink takes no long ones."""
        for piece in self.layout.render(record, self.sink.limit):
            self.sink.write(piece)


class BorrowedHandler(LineHandler):
    """The handler of other servers' loggers. Silent if the application has a handler for the record, at any level."""

    def emit(self, record: logging.LogRecord) -> None:
        """Look each time: the application may configure its logging at any moment."""
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None:
            if not all(isinstance(each, BorrowedHandler | logging.NullHandler) for each in logger.handlers):
                return
            logger = logger.parent if logger.propagate else None
        super().emit(record)


def uvicorn_arguments(record: Any) -> tuple[str, str, str, str, int]:
    """The arguments of an access record of uvicorn: client, method, path with query, HTTP version, status."""
    client = f"{record.client[0]}:{record.client[1]}" if record.client else ""
    return client, record.method, record.target.decode("latin-1"), record.version, record.status


class LoggerLines:
    """Access lines for the logger `aserver.access`, if the user's `log_config` names it."""

    limit = None
    wants_records = True

    def __init__(self) -> None:
        self.batch: list[Any] = []
        self.make: Callable[[list[Any]], list[str]] = list
        self._logger = logging.getLogger(ACCESS)

    def begin(self) -> None:
        """Log at once: the handlers of the user's logger do not know of turns of the loop."""
        self.flush()

    def flush(self) -> None:
        """Log each line at INFO."""
        records = self.batch.copy()
        lines = self.make(records)  # takes the records out of which no line can be made
        self.batch.clear()
        for record, line in zip(records, lines, strict=True):
            # The arguments are uvicorn's: its AccessFormatter takes them apart, and filters look at the path, args[2].
            text = line.rstrip("\n").replace("%", "%%") + "%.0s" * 5
            self._logger.info(text, *uvicorn_arguments(record))


class Logging:
    """The logs of this process; `error` and `access` are the same sink if both go to the same terminal.

    `lines` takes the access lines; None without an access log.
    """

    def __init__(self, error: Sink, access: Sink | None, layout: Layout) -> None:
        self.error = error
        self.access = access
        self.lines: Lines | None = access
        self.logger = logging.getLogger(ERROR)
        self._layout = layout
        self._pid = os.getpid()
        self._levelled: list[logging.Logger] = []
        #: Where complaints about the error log itself go, unless standard error *is* the error log.
        self.last_resort = None if stdio.same_file(error.fd, 2) else _standard_error()
        error.report = self._report_error_log
        if access is not None and access is not error:
            access.report = report_access_log

    @property
    def dropped(self) -> int:
        """How many records this process has lost because a log did not take them."""
        more = self.access.dropped if self.access is not None and self.access is not self.error else 0
        return self.error.dropped + more

    def _report_error_log(self, sink: Sink, text: str) -> None:
        if sink.state is SinkState.OPEN:
            self.logger.warning("%s", text)
        else:
            self._tell_standard_error(text)

    def share_half_lines(self, board_fd: int) -> None:
        """Let the processes with this board know of each other's half lines on a terminal, also after a kill."""
        for log, sink in enumerate((self.error, self.access)):
            if sink is not None and sink.descriptor.exclusive and sink.descriptor.half is None:
                sink.descriptor.half = HalfLine(board_fd, log)

    def _tell_standard_error(self, text: str) -> None:
        if self.last_resort is not None:
            record = self.logger.makeRecord(self.logger.name, logging.ERROR, __file__, 0, "%s", (text,), None)
            for piece in self._layout.render(record, self.last_resort.limit):
                self.last_resort.write(piece)

    def serve_others(self) -> None:
        """Lead records of BORROWED into the error log, if nothing else handles them; for processes that run the app.

        With `log_config` nothing is done: it decides by itself which handler a logger has.
        """
        ours = logging.getLogger(ROOT)
        if not any(isinstance(handler, LineHandler) for handler in ours.handlers):
            return
        self._return_borrowed()
        for logger in map(logging.getLogger, BORROWED):
            logger.addHandler(BorrowedHandler(self.error, self._layout))
            if logger.level == logging.NOTSET:  # else an INFO record would not even be made
                logger.setLevel(ours.level)
                self._levelled.append(logger)

    def _return_borrowed(self) -> None:
        for logger in map(logging.getLogger, BORROWED):
            for handler in [each for each in logger.handlers if isinstance(each, BorrowedHandler)]:
                logger.removeHandler(handler)
        while self._levelled:
            self._levelled.pop().setLevel(logging.NOTSET)

    def _sinks(self) -> list[Sink]:
        return [sink for sink in (self.error, self.access, self.last_resort) if sink is not None]

    def set_process(self, process: str, loop: AbstractEventLoop | None = None) -> None:
        """Name this process on each line ("worker 1/g3") and let `loop` flush and wake the logs.

        Call it in the worker right after the fork, with None, and again as soon as there is a loop.
        """
        self._layout.process = process
        forked = os.getpid() != self._pid
        self._pid = os.getpid()
        for sink in self._sinks():
            if forked:
                sink.forget()
            sink.attach(loop)

    def replace(self, error_fd: int | None, access_fd: int | None) -> None:
        """Go on in reopened files, whose descriptors are taken over. In the loop's thread."""
        if error_fd is not None:
            self.error.replace(error_fd)
        if access_fd is not None:
            if self.access is not None:
                self.access.replace(access_fd)
            else:
                os.close(access_fd)

    def renew(self, config: LogSettings, error_fd: int, environ: Mapping[str, str] = os.environ) -> None:
        """Go on with other settings in `error_fd`, which is taken over; lines that wait for a slow reader are kept.

        For the master, which has no access log. Raises ConfigError if `log_config` is unusable: then nothing changes.
        """
        root = logging.getLogger(ROOT)
        try:
            theirs = apply_log_config(config.log_config) if config.log_config is not None else {}
        except ConfigError:
            os.close(error_fd)
            raise
        for handler in root.handlers.copy():
            if isinstance(handler, LineHandler):
                root.removeHandler(handler)
        _set_level(root, config, theirs)
        self.error.replace(error_fd)
        brief = isinstance(self._layout, TextLayout) and self._layout.brief
        self._layout = layout_for(config.log_format, self._layout.process, self.error.kind, environ, brief=brief)
        if config.log_config is None:
            root.addHandler(LineHandler(self.error, self._layout))

    def close(self, seconds: float = 1.0) -> None:
        """Write the rest, waiting at most `seconds` per log, and close all. Call it at the very end of a process.

        The error log tells of lost access lines, standard error of lost records of the error log.
        """
        self._return_borrowed()
        logger = logging.getLogger(ROOT)
        if self.access is not None and self.access is not self.error and (lost := self.access.close(seconds)):
            self.logger.warning("%s", _last_loss(self.access, lost))
        if lost := self.error.close(seconds):
            self._tell_standard_error(_last_loss(self.error, lost))
        if self.last_resort is not None:
            self.last_resort.close(seconds)
        for handler in logger.handlers.copy():
            if isinstance(handler, LineHandler) and handler.sink is self.error:
                logger.removeHandler(handler)


def _last_loss(sink: Sink, lost: int) -> str:
    lines = "1 line is" if lost == 1 else f"{lost} lines are"
    return f"{sink.name}: {lines} lost as this process ends ({sink.trouble})"


def report_access_log(sink: Sink, text: str) -> None:
    """Tell the error log when trouble with the access log begins, and when it is over."""
    level = logging.WARNING if sink.state is SinkState.OPEN else logging.ERROR
    logging.getLogger(ERROR).log(level, "%s", text)


def _standard_error() -> Sink | None:
    try:
        return Sink.for_fd(open_private(2), name="standard error")
    except OSError:
        return None


def configure(
    config: LogSettings,
    *,
    process: str,
    error_fd: int,
    access_fd: int | None = None,
    loop: AbstractEventLoop | None = None,
    environ: Mapping[str, str] = os.environ,
    brief: bool = False,
) -> Logging:
    """Set up the `aserver` loggers of this process over descriptors from `open_log`, which are taken over.

    `log_config` replaces our handler: records of `aserver.*` then reach the handlers that it gives `aserver` or the
    root logger, and access lines are logged to `aserver.access` if it names that. Raises ConfigError if `log_config`
    is unusable. `brief`: lines on a terminal are short (`TextLayout`).
    """
    theirs = apply_log_config(config.log_config) if config.log_config is not None else {}  # fails before all else
    error = Sink.for_fd(error_fd, name="error log")
    if access_fd is None:
        access = None
    elif error.kind is SinkKind.TERMINAL and stdio.same_file(access_fd, error_fd):
        # Two sinks of a process share its locks on the terminal: neither would wait for the other's half line.
        os.close(access_fd)
        access = error
    else:
        access = Sink.for_fd(access_fd, name="access log", bound=ACCESS_BOUND)
    layout = layout_for(config.log_format, process, error.kind, environ, brief=brief)
    logs = Logging(error, access, layout)
    root = logging.getLogger(ROOT)
    for handler in [handler for handler in root.handlers if isinstance(handler, LineHandler)]:
        root.removeHandler(handler)
    _set_level(root, config, theirs)
    if config.log_config is None:
        root.addHandler(LineHandler(error, layout))
    elif access is not None and ACCESS in theirs.get("loggers", {}):
        logs.lines = LoggerLines()
    logs.set_process(process, loop)
    return logs


def _set_level(root: logging.Logger, config: LogSettings, theirs: Mapping[str, Any]) -> None:
    """Let our loggers have the level and the ways that `log_config` gives them, or else `loglevel` and all ways."""
    named = theirs.get("loggers", {}).get(ROOT, {})
    root.setLevel(named.get("level") or config.loglevel.upper())
    root.propagate = config.log_config is not None and bool(named.get("propagate", True))


def shows_colours(kind: SinkKind, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether lines may be coloured: on a terminal, unless its variables forbid it."""
    # https://no-color.org: set to anything but the empty string.
    return kind is SinkKind.TERMINAL and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def layout_for(
    log_format: str, process: str, kind: SinkKind, environ: Mapping[str, str], *, brief: bool = False
) -> Layout:
    """The layout of a log of this kind."""
    if log_format == "json":
        return JsonLayout(process)
    # A file is read long after. A terminal is watched now, and collectors behind pipes and sockets add the date.
    colour, brief = shows_colours(kind, environ), brief and kind is SinkKind.TERMINAL
    return TextLayout(process, dated=kind is SinkKind.FILE, colour=colour, brief=brief)


def read_log_config(path: str) -> dict[str, Any]:
    """Read a `logging.config.dictConfig` from the file of `log_config` (`config_file`).

    `version` may be missing. Loggers that the file does not name stay as they are, unlike dictConfig's own default.
    Raises ConfigError if the file cannot be read or parsed.
    """
    from aserver.log import config_file  # noqa: PLC0415 - rarely needed, and a start waits for each import

    return config_file.read(path)


def apply_log_config(path: str) -> dict[str, Any]:
    """Read a file as `read_log_config` does, apply it, and return it. Raises ConfigError also if logging refuses it."""
    from aserver.log import config_file  # noqa: PLC0415 - rarely needed, and a start waits for each import

    config = read_log_config(path)
    try:
        config_file.apply(path, config)
    except (ValueError, TypeError, AttributeError, ImportError, KeyError, OSError) as error:
        because = f" ({error.__cause__})" if error.__cause__ else ""
        raise ConfigError(f"log_config {path}: {error}{because}") from error
    return config

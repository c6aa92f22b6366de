"""Captured output: the pipes of zygotes and workers, and the process that reads them (`output.reader`).

Runs in the master, which makes the pipes and holds their reading ends, but does not read. So no writer ends with the
reading process: another is started and goes on, also for rotated logs and after an upgrade. Without `capture_output`
nothing here happens.
"""

import asyncio
import contextlib
import logging
import os
import select
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from aserver import unix
from aserver.errors import ChannelError
from aserver.ipc.channel import Channel
from aserver.ipc.messages import LeaveOutput, ToReader, WatchOutput
from aserver.master import handles, programs
from aserver.master.resources import Resources
from aserver.master.snapshot import SavedOutput

log = logging.getLogger("aserver.master")

#: Seconds between two starts of a reader that ends again and again. The pipes are emptied first.
PAUSE = 1.0
#: Seconds between two looks at which pipes are at their end.
LOOK = 1.0
#: Seconds that a stop waits until the last output is in the log.
LAST_OUTPUT = 1.0
#: Where the reader finds its channel and the board.
_FDS = (3, 4)
_READER = Path(__file__).resolve().parent.parent / "output" / "__main__.py"


class Output:
    """The pipes of all processes whose generation captures output, and the readers: two while they are exchanged."""

    def __init__(self, of: Mapping[int, Resources], board_fd: int) -> None:
        """`of` are the resources of each generation."""
        self.pipes: list[SavedOutput] = []
        self._of = of
        self._board_fd = board_fd
        self._loop = asyncio.get_running_loop()
        self._readers: dict[int, Channel[ToReader]] = {}  # by pid
        self._pid = 0  # of the reader that is told of pipes; 0 if there is none
        self._started = 0.0
        self._quick_ends = 0  # in a row
        self._timer: asyncio.TimerHandle | None = None  # of the next start
        self._looks: asyncio.TimerHandle | None = None

    @property
    def pids(self) -> list[int]:
        """Of the readers."""
        return list(self._readers)

    @contextlib.contextmanager
    def writing_ends(self, generation: int, serial: int, process: str) -> Iterator[list[int]]:
        """Two pipes for a process that is about to be made; `serial` is 0 for a zygote. Raises OSError.

        Empty if the generation does not capture.
        """
        resources = self._of.get(generation)
        if resources is None or not resources.config.capture_output:
            yield []
            return
        with contextlib.ExitStack() as writers, contextlib.ExitStack() as failed:
            ends: list[tuple[int, int]] = []
            for _ in range(2):
                reader, writer = os.pipe()
                failed.callback(os.close, reader)
                writers.callback(os.close, writer)
                os.set_blocking(reader, False)  # of this end alone; the writers wait for room, as they expect
                ends.append((reader, writer))
            yield [writer for _, writer in ends]
            failed.pop_all()
            self.pipes.append(SavedOutput(process, generation, serial, 0, [reader for reader, _ in ends]))
            self._look_later()

    def born(self, generation: int, serial: int, pid: int) -> None:
        """A process exists; if it has pipes, have them read."""
        for pipes in self.pipes:
            if (pipes.generation, pipes.serial, pipes.pid) == (generation, serial, 0):
                pipes.pid = pid
                if self._pid:
                    self._pass(pipes)
                elif self._timer is None:
                    self._start()

    def hand_over(self) -> list[SavedOutput]:
        """The pipes for the next image of this master. The reader leaves; if the exec fails, `look` starts another."""
        self._dismiss()
        return self.pipes

    def inherit(self, pipes: list[SavedOutput]) -> None:
        """Go on with pipes of this master's former image."""
        self.pipes += pipes
        self.look()

    def look(self) -> None:
        """Close the pipes that are at their end, as no process can write any more; start a reader if none runs."""
        for pipes in [each for each in self.pipes if all(map(_is_over, each.ends))]:
            self.pipes.remove(pipes)
            _close(pipes)
        if not self.pipes:
            self._dismiss()
        elif not self._pid and self._timer is None and any(pipes.pid for pipes in self.pipes):
            self._start()
        self._look_later()

    def _look_later(self) -> None:
        if self._looks is not None:
            self._looks.cancel()
        self._looks = self._loop.call_later(LOOK, self.look) if self.pipes else None

    def exchange(self) -> None:
        """Replace the reader: the next reader writes to the log files as they are now."""
        self._dismiss()
        self.look()

    def _dismiss(self) -> None:
        if self._pid:
            self._readers[self._pid].send(LeaveOutput(at_once=True))
        self._pid = 0

    def close(self) -> None:
        """Wait until the last output is in the log, and close everything. The processes have ended."""
        for timer in (self._timer, self._looks):
            if timer is not None:
                timer.cancel()
        deadline = time.monotonic() + LAST_OUTPUT
        for pid, channel in list(self._readers.items()):
            channel.send(LeaveOutput(at_once=False))
            if unix.readable([channel.fileno()], max(0.0, deadline - time.monotonic())):
                self._forget(pid)
            else:
                text = "output is still read by pid %d: there is more, or a child of the application can write to it"
                log.info(text, pid)
                channel.close()
        for pipes in self.pipes:
            _close(pipes)
        self.pipes.clear()

    def _pass(self, pipes: SavedOutput) -> None:
        resources = self._of.get(pipes.generation) or self._of[max(self._of)]
        config = resources.config
        watch = WatchOutput(pipes.process, pipes.pid, config.log_format, config.reload)
        try:
            self._readers[self._pid].send(watch, [resources.log_fds[0], *pipes.ends])
        except OSError as error:  # no descriptor is left for the copies: it begins anew
            log.error("output of %s cannot be read: %s", pipes.process, error.strerror)  # noqa: TRY400
            os.kill(self._pid, signal.SIGKILL)  # our own child, not yet reaped

    def _start(self) -> None:
        self._timer = None
        self._started = time.monotonic()
        title = f"{next(iter(self._of.values())).config.proc_name}: output"
        ours, theirs = unix.stream_pair()
        with theirs:
            try:
                fds = dict(zip(_FDS, (theirs.fileno(), self._board_fd), strict=True))
                pid = programs.spawn_program(_READER, *_FDS, title, fds=fds)
            except OSError as error:
                ours.close()
                self._start_later(f"cannot be started ({error.strerror})")
                return
        self._pid = pid
        channel: Channel[ToReader] = Channel(ours, ToReader)
        self._readers[pid] = channel
        self._loop.add_reader(channel.fileno(), self._on_end, pid)
        channel.flush_by(self._loop)
        for pipes in self.pipes:
            if pipes.pid:
                self._pass(pipes)

    def _start_later(self, how: str) -> None:
        """Start a reader after a pause. The pipes are emptied, since the writers would wait for room."""
        lost = sum(map(_throw_away, (end for pipes in self.pipes for end in pipes.ends)))
        log.error("the reader of captured output %s; another follows in %g s, %d bytes are lost", how, PAUSE, lost)
        self._timer = self._loop.call_later(PAUSE, self._start)

    def _on_end(self, pid: int) -> None:
        with contextlib.suppress(ChannelError):
            self._readers[pid].receive()
        code, signum = handles.decode_status(self._forget(pid))
        if pid != self._pid:
            return
        self._pid = 0
        how = f"was ended by {signum}" if signum else f"ended with exit code {code}"
        self._quick_ends = self._quick_ends + 1 if time.monotonic() - self._started < PAUSE else 0
        if self._quick_ends > 1:
            self._start_later(how)
            return
        log.error("the reader of captured output (pid %d) %s; another goes on", pid, how)
        self.exchange()

    def _forget(self, pid: int) -> int | None:
        """Forget a reader whose channel has ended; returns its wait status."""
        channel = self._readers.pop(pid)
        self._loop.remove_reader(channel.fileno())
        channel.close()
        with contextlib.suppress(ChildProcessError):
            os.kill(pid, signal.SIGKILL)  # it is ending, in any case, so the wait is short
            return os.waitpid(pid, 0)[1]
        return None


def _is_over(end: int) -> bool:
    poll = select.poll()
    poll.register(end, select.POLLIN)
    return any(events & select.POLLHUP and not events & select.POLLIN for _, events in poll.poll(0))


def _throw_away(end: int) -> int:
    with contextlib.suppress(BlockingIOError):
        return len(os.read(end, 1 << 20))
    return 0


def _close(pipes: SavedOutput) -> None:
    for end in pipes.ends:
        os.close(end)

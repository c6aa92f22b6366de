"""Reads the output of processes on their descriptors 1 and 2, and writes each line into the error log as a record.

Runs in a process of its own: a zygote or worker that read its own pipe would wait for itself when the pipe is full, and
the master must wait for no log. The master passes the reading ends of the pipes, and keeps them as well. So this
process may end at any moment, and the next goes on. A line that is not finished is kept until the end of the pipe. It
never stops reading: a log whose reader is stuck loses lines, which are counted, and holds up no writer.
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Iterable

from aserver import terminal, unix
from aserver.ipc.board import HalfLine
from aserver.ipc.channel import Channel
from aserver.ipc.messages import LeaveOutput, ToReader, WatchOutput
from aserver.log import stdio
from aserver.log.setup import layout_for
from aserver.log.sink import Sink

#: Bytes; longer output without a line's end becomes several records.
LONGEST_LINE = 64 << 10
#: Bytes that are read before others have their turn.
_PORTION = 16 << 10


def main(channel_fd: int, board_fd: int, title: str) -> None:
    """Be the process: read until the master has ended or says so, and no process can write any more."""
    # It starts no program that could inherit this, and ends by itself when a stop leaves nothing to read.
    unix.discard_signals(terminal.GROUP_SIGNALS)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # blocked since before the exec (programs.spawn)
    unix.set_process_title(title)
    asyncio.run(OutputReader(Channel(socket.socket(fileno=channel_fd), ToReader), board_fd).run())


class ErrorLog:
    """The error log as a process has it: its lines in that process's name, and in the format of its settings."""

    def __init__(self, sink: Sink, watch: WatchOutput) -> None:
        self._sink = sink
        self._pid = watch.pid
        self._layout = layout_for(watch.log_format, watch.process, sink.kind, os.environ, brief=watch.brief)

    def say(self, texts: Iterable[str], level: int = logging.INFO) -> None:
        """Write a record for each of `texts`, at once as many as stay together."""
        values = {"name": "aserver.output", "levelno": level, "levelname": logging.getLevelName(level), "msg": "%s"}
        record = logging.makeLogRecord({**values, "process": self._pid})
        limit = self._sink.limit
        batch: list[bytes] = []
        size = 0
        for text in texts:
            record.args = (text,)
            for piece in self._layout.render(record, limit):
                if batch and size + len(piece) > (limit or _PORTION):
                    self._sink.write(b"".join(batch), len(batch))
                    batch, size = [], 0
                batch.append(piece)
                size += len(piece)
        self._sink.write(b"".join(batch), len(batch))


class PipeStream:
    """The reading end of a pipe: the standard output or error of a process."""

    def __init__(self, name: str, fd: int, log: ErrorLog) -> None:
        self._name = name
        self.fd = fd
        self._log = log
        self._rest = b""

    def read(self) -> bool:
        """Log the lines that have come; False at the end, which comes when no process can write any more."""
        try:
            data = os.read(self.fd, _PORTION)
        except BlockingIOError:  # a former reader was quicker
            return True
        *lines, self._rest = (self._rest + data).split(b"\n")
        if lines:
            self._say(lines)
        if self._rest and (not data or len(self._rest) > LONGEST_LINE):
            self.finish()
        return bool(data)

    def finish(self) -> None:
        """Log the line that is not finished, if any."""
        if self._rest:
            self._say([self._rest])
        self._rest = b""

    def _say(self, lines: list[bytes]) -> None:
        self._log.say(f"{self._name}: {line.decode('utf-8', 'backslashreplace')}" for line in lines)


class OutputReader:
    """All streams and logs of this process."""

    def __init__(self, channel: Channel[ToReader], board_fd: int) -> None:
        self._channel = channel
        self._board = board_fd
        self._streams: dict[int, PipeStream] = {}
        self._sinks: list[Sink] = []
        self._leaving = False
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Read until the master has ended or says so, and every stream is at its end."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._channel.fileno(), self._hear)
        await self._over.wait()
        for stream in self._streams.values():
            stream.finish()
        for sink in self._sinks:
            sink.close()

    def _hear(self) -> None:
        for message, fds in self._channel.receive():
            if isinstance(message, LeaveOutput):
                self._leave(at_once=message.at_once)
            else:
                self._watch(message, *fds)
        if self._channel.eof:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._leave()

    def _watch(self, message: WatchOutput, log_fd: int, *ends: int) -> None:
        log = ErrorLog(self._sink(log_fd, message), message)
        for name, fd in zip(("stdout", "stderr"), ends, strict=True):
            self._streams[fd] = PipeStream(name, fd, log)
            asyncio.get_running_loop().add_reader(fd, self._read, self._streams[fd])

    def _sink(self, fd: int, message: WatchOutput) -> Sink:
        """The sink of a log, which all processes share: two would share its locks on a terminal."""
        for sink in self._sinks:
            if stdio.same_file(sink.fd, fd):
                os.close(fd)
                return sink
        sink = Sink.for_fd(fd, name="error log")
        own = ErrorLog(sink, WatchOutput("output", os.getpid(), message.log_format, message.brief))
        sink.report = lambda _, text: own.say([text], logging.WARNING)
        if sink.descriptor.exclusive:
            sink.descriptor.half = HalfLine(self._board, 0)
        sink.attach(asyncio.get_running_loop())
        self._sinks.append(sink)
        return sink

    def _read(self, stream: PipeStream) -> None:
        if stream.read():
            return
        asyncio.get_running_loop().remove_reader(stream.fd)
        os.close(stream.fd)
        del self._streams[stream.fd]
        self._leave_if_done()

    def _leave(self, *, at_once: bool = False) -> None:
        self._leaving = True
        if at_once:
            self._over.set()
        self._leave_if_done()

    def _leave_if_done(self) -> None:
        if self._leaving and not self._streams:
            self._over.set()

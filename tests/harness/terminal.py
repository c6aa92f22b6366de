"""A terminal for a server under test: the test holds the keyboard and the screen, the server the other end."""

import fcntl
import os
import select
import struct
import sys
import termios
import threading
from typing import Self

#: Makes the terminal named first the controlling one of this session, its standard input and output, and execs the
#: rest; as a job of its own, in the foreground or not, if the second argument says so, and then waits for it.
_ATTACH = """
import os, signal, sys
terminal = os.open(sys.argv[1], os.O_RDWR)
os.dup2(terminal, 0)
os.dup2(terminal, 1)
os.close(terminal)
if sys.argv[2] != "leader":
    job = os.fork()
    if job:
        def end(*_):
            os.killpg(job, signal.SIGINT)
            os.killpg(job, signal.SIGCONT)
        signal.signal(signal.SIGINT, end)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _, status = os.waitpid(job, 0)
        sys.exit(os.waitstatus_to_exitcode(status))
    os.setpgid(0, 0)
    if sys.argv[2] == "foreground":
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        os.tcsetpgrp(0, os.getpgrp())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Terminal:
    """A pseudoterminal. Use as a context manager; what comes to its screen is kept in `screen`.

    One that is not `watched` fills up, until `watch` is called.
    """

    def __init__(self, *, watched: bool = True) -> None:
        self._watched = watched
        self._keyboard, far = os.openpty()
        self.name = os.ttyname(far)
        self._far = far
        self.screen = b""
        self._ending, self._end = os.pipe()
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        if self._watched:
            self._reader.start()
        return self

    def watch(self) -> None:
        """Take what has come to the screen, and go on with that."""
        self._watched = True
        self._reader.start()

    def __exit__(self, *_: object) -> None:
        self.hang_up()

    def _read(self) -> None:
        """Until told to end: a thread inside read(2) would keep the terminal open after its `close`."""
        while True:
            ready, _, _ = select.select([self._keyboard, self._ending], [], [])
            if self._ending in ready:
                return
            self.screen += os.read(self._keyboard, 4096)

    def attach(self, command: list[str], role: str = "leader") -> list[str]:
        """A command that runs `command` on this terminal, in a session of its own.

        `role`: "leader" of the session, as in a container or a fresh tmux window, or a job of a shell in the
        "foreground" or "background".
        """
        return [sys.executable, "-S", "-c", _ATTACH, self.name, role, *command]

    def resize(self, rows: int, columns: int) -> None:
        """As a window manager does; the kernel sends SIGWINCH to the foreground group if it is a change."""
        fcntl.ioctl(self._keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, key: bytes) -> None:
        """Type: b"\\x03" is Ctrl-C, b"\\x1a" Ctrl-Z, b"\\x1c" Ctrl-backslash."""
        os.write(self._keyboard, key)

    def stop_background_output(self) -> None:
        """`stty tostop`: who writes from the background is stopped."""
        modes = termios.tcgetattr(self._far)
        modes[3] |= termios.TOSTOP
        termios.tcsetattr(self._far, termios.TCSANOW, modes)

    def hang_up(self) -> None:
        """Close it, as the end of an ssh session does."""
        if self._keyboard < 0:
            return
        if self._watched:
            os.write(self._end, b"x")
            self._reader.join()
        for fd in (self._keyboard, self._far, self._ending, self._end):
            os.close(fd)
        self._keyboard = -1

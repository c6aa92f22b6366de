"""Detaching from the terminal (`daemon`), as init scripts want it: the command returns when the server is ready.

Runs in the command's process, before it has a loop or a thread. After two forks the server is a child of init and does
not lead its session, so that it never gets a terminal again (daemon(7)). The first process stays until the server is
ready or has failed, prints the error, and ends with the server's exit code.
"""

import codecs
import os
import socket
import sys
from collections.abc import Callable

from aserver import unix
from aserver.errors import ExitCode

#: Sent when the server is ready; no text contains it.
READY = "\0"


def detached(serve: Callable[[int], int]) -> int:
    """Call `serve` in a process that is detached, with the descriptor into which READY goes when the server is ready.

    Returns twice: in the first process with the exit code, in the detached process with the result of `serve`. Until
    that is ready, the first process prints the errors that it writes to `sys.stderr`, which has the same descriptor.
    """
    here, there = socket.socketpair()
    unix.become_subreaper()  # else the exit status of the server would be told to init
    if os.fork():  # noqa: TID251 - nothing runs yet: no loop, no thread, no other child
        there.close()
        return await_server(here)
    here.close()
    os.setsid()
    if os.fork():  # noqa: TID251
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in range(3):
        os.dup2(null, fd)
    os.close(null)
    errors = there.detach()
    sys.stderr = open(errors, "w", encoding="utf-8", errors="replace", buffering=1)  # noqa: SIM115
    return serve(errors)


def await_server(server: socket.socket) -> int:
    """Print the errors that the server sends, until it is ready or has ended. Returns the exit code."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode  # a character may come in two pieces
    while data := server.recv(1 << 16):
        text, ready, _ = data.partition(READY.encode())
        sys.stderr.write(decode(text, final=bool(ready)))
        if ready:
            return ExitCode.OK
    code = _status_of_last_child()
    if code < 0:
        sys.stderr.write(f"aserver: error: the server was ended by signal {-code} before it was ready\n")
    return 128 - code if code < 0 else code or ExitCode.BOOT


def _status_of_last_child() -> int:
    """The exit code of the child that ends last: the server, and not the process between."""
    code = 0
    while True:
        try:
            _, status = os.wait()
        except ChildProcessError:
            return code
        code = os.waitstatus_to_exitcode(status)

"""The descriptors 0, 1 and 2, which may be closed where a process of ours starts.

Used by every process of ours, and by none that embeds us. It must import nothing of aserver, nor ctypes: libffi opens
its own library (3.8, with Python 3.14) and keeps it open, at the first number that is free.
"""

import errno
import os
import stat
import termios


def keep() -> None:
    """Lead each of the descriptors 0, 1 and 2 that is closed, or a terminal that has hung up, to /dev/null.

    The kernel gives a closed descriptor's number to the next file that this process opens, a socket or the board, and
    text for "standard error" would be written into it. After a hang-up each `print` would raise EIO.
    """
    for fd in range(3):
        if _leads_somewhere(fd):
            continue
        null = os.open(os.devnull, os.O_RDWR)
        if null != fd:
            os.dup2(null, fd)
            os.close(null)
        os.set_inheritable(fd, True)


def _leads_somewhere(fd: int) -> bool:
    try:
        if not stat.S_ISCHR(os.fstat(fd).st_mode):
            return True
    except OSError:
        return False
    try:
        termios.tcgetattr(fd)
    except termios.error as error:  # ENOTTY: another device
        return bool(error.args[0] != errno.EIO)
    return True

"""Servers and clients for tests of listeners."""

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from aserver.sockets import Listener
from tests.harness.tools import has_ipv6

LINUX = sys.platform == "linux"
needs_linux = pytest.mark.skipif(not LINUX, reason="reads /proc, or uses abstract names")
Bind = Callable[..., list[Listener]]


@contextmanager
def other_server(code: str) -> Iterator[tuple[int, str]]:
    """Another process that runs `code`, which must print one line when it is ready; yields its pid and that line."""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", f"import socket, sys\n{code}\nsys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process.pid, process.stdout.readline().strip()


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be nobody for a while; changing the effective uid takes the capabilities away (capabilities(7))."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def connect(listener: Listener) -> socket.socket:
    client = socket.socket(listener.socket.family, socket.SOCK_STREAM)
    client.settimeout(10)
    address = listener.address
    try:
        client.connect("\0" + address[1:] if isinstance(address, str) and address.startswith("@") else address)
    except BaseException:
        client.close()
        raise
    return client


def closed(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError as error:
        return error.errno == errno.EBADF
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")

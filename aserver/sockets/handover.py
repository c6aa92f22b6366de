"""Listeners across a re-exec: the facts to be kept beside the descriptor, and the listener made of them again.

Runs in the master, before and after `execve`. The socket, its queue and its names in the file system are untouched.
"""

import os
import socket

import msgspec

from aserver.sockets.listener import Listener
from aserver.sockets.path import PathListener


class Handover(msgspec.Struct, frozen=True):
    """A listener on its way. `inode` is (device, inode) of a socket path that this server made, keeps and removes."""

    fd: int
    name: str
    address: tuple[str, int] | str
    inode: tuple[int, int] | None = None
    public: bool = False
    tls: bool = False


def hand_over(listener: Listener) -> Handover:
    """Describe `listener` for the next image of this process, which inherits the descriptor."""
    fd = listener.socket.fileno()
    if isinstance(listener, PathListener):
        return Handover(fd, listener.name, listener.address, listener.inode, listener.public)
    return Handover(fd, listener.name, listener.address, tls=listener.tls)


def take_over(handover: Handover) -> Listener:
    """Make the listener again."""
    os.set_inheritable(handover.fd, False)
    sock = socket.socket(fileno=handover.fd)
    if handover.inode is not None:
        assert isinstance(handover.address, str)
        return PathListener.adopt(sock, handover.address, handover.inode, public=handover.public)
    return Listener(sock, handover.name, handover.address, tls=handover.tls)

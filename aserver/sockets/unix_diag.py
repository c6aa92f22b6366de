"""The accept queue of a listening unix socket, which only the kernel's sock_diag tells (sock_diag(7)).

Runs in the master, when it is asked for its status. Linux only.
"""

import os
import socket
import struct

#: NETLINK_SOCK_DIAG and SOCK_DIAG_BY_FAMILY (linux/sock_diag.h), NLM_F_REQUEST (linux/netlink.h).
_SOCK_DIAG, _BY_FAMILY, _REQUEST = 4, 20, 1
#: UDIAG_SHOW_RQLEN and UNIX_DIAG_RQLEN (linux/unix_diag.h); no cookie is compared.
_SHOW_QUEUE, _QUEUE, _ANY = 0x10, 4, 0xFFFFFFFF
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_ASK = struct.Struct("=BBHIIIII")  # unix_diag_req
_FOUND = struct.Struct("=BBBBIII")  # unix_diag_msg
_ATTRIBUTE = struct.Struct("=HH")  # nlattr; the next begins at a multiple of four bytes


def unix_queue(fd: int) -> tuple[int, int] | None:
    """(clients that wait to be accepted, the most that may wait); None if the kernel does not tell."""
    ask = _ASK.pack(socket.AF_UNIX, 0, 0, _ANY, os.fstat(fd).st_ino, _SHOW_QUEUE, _ANY, _ANY)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCK_DIAG) as kernel:
            kernel.settimeout(0.1)  # it answers within sendto(2)
            kernel.send(_HEADER.pack(_HEADER.size + len(ask), _BY_FAMILY, _REQUEST, 1, 0) + ask)
            reply = kernel.recv(4096)
    except OSError:
        return None
    length, kind, *_ = _HEADER.unpack_from(reply)
    at = _HEADER.size + _FOUND.size
    while kind == _BY_FAMILY and at + _ATTRIBUTE.size <= min(length, len(reply)):
        size, name = _ATTRIBUTE.unpack_from(reply, at)
        if name == _QUEUE:
            waiting, most = struct.unpack_from("=II", reply, at + _ATTRIBUTE.size)
            return waiting, most
        at += max(_ATTRIBUTE.size, (size + 3) & ~3)
    return None

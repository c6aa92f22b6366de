"""TLS by aiofastnet's transports, if it is installed (the extra `tls-fast`): a fifth less CPU for a request.

Runs in the worker's loop or the embedding program's; `load` before the fork, so that the workers share the library. It
must never be given a context with a callback of Python's, nor one that asks for client certificates: see `suits`.
"""

import asyncio
import importlib
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

log = logging.getLogger("aserver.error")

#: Seconds for the loops' own timers of handshakes and of the end of a TLS connection, which must never be the first to
#: cut off a client: the deadlines of `Handshakes` do, and `Connection.write_expired`, which asks for progress.
NEVER = 3600.0

#: Bytes of the buffers for encrypted bytes, of which each connection has two: four records (RFC 8446 section 5.2).
_BUFFER = 4 * (16384 + 64)

_library: Any = None


def load() -> bool:
    """Import aiofastnet, and return whether it can be used: without OpenSSL as a shared library it is of no use."""
    global _library  # noqa: PLW0603
    try:
        library = importlib.import_module("aiofastnet")
        shared = importlib.import_module("aiofastnet.openssl_compat").OPENSSL_DYN_LIBS is not None
    except ImportError:
        return False
    if shared:
        _library = library
        logging.getLogger("aiofastnet").setLevel(logging.CRITICAL)  # a line for each client that fails a handshake
    return _library is not None


def suits(context: ssl.SSLContext) -> bool:
    """Whether aiofastnet can serve connections of a context.

    Not with a callback for SNI: Python hands it the connection as an object of the ssl module. aiofastnet makes
    OpenSSL's connections itself, without that object, and 1.2.0 crashes. Nor with certificates of clients: it decodes
    each by way of a temporary file, three times for a connection here.
    """
    return context.sni_callback is None and context.verify_mode is ssl.CERT_NONE


async def connect(
    loop: asyncio.AbstractEventLoop,
    make: Callable[[], asyncio.BaseProtocol],
    sock: socket.socket,
    context: ssl.SSLContext,
) -> None:
    """Do `loop.connect_accepted_socket` with aiofastnet, after `load`."""
    await _library.connect_accepted_socket(
        _WithoutTimers(loop),
        make,
        sock,
        ssl=context,
        ssl_handshake_timeout=NEVER,
        ssl_shutdown_timeout=NEVER,
        ssl_incoming_bio_size=_BUFFER,
        ssl_outgoing_bio_size=_BUFFER,
    )


class _NoTimer:
    def cancel(self) -> None:
        """Do nothing."""


class _WithoutTimers:
    """The loop, except that it arms no timers. aiofastnet 1.2.0 leaves them armed when a transport is cut off, and they
    would keep the transport in memory.
    """

    __slots__ = ("_loop",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> _NoTimer:
        """Arm no timer."""
        del delay, callback, args
        return _NoTimer()

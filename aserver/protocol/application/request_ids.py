"""An id for each request: a trusted peer's `X-Request-Id`, or the server's own, in scope, response and both logs.

Runs in the worker's loop, and only if a log shows ids (`RequestIds.wanted`). It must never put an untrusted client's
bytes into a log or a response.
"""

import itertools
import os
import re
from typing import Final

from aserver.asgi import Message
from aserver.config import Config
from aserver.protocol.semantics import fields

NAME: Final = b"x-request-id"

#: Ids that are believed: those that other servers make (UUIDs, hex, base64, `trace/span`), and no more than a log line
#: can bear.
_GOOD: Final = re.compile(rb"[0-9A-Za-z._~:/+=@-]{1,128}")


class RequestIds:
    """The ids of a worker: 64 random bits and a number, unique without asking the system at each request."""

    def __init__(self) -> None:
        self._prefix = os.urandom(8).hex()
        self._numbers = itertools.count()

    @staticmethod
    def wanted(config: Config) -> bool:
        """Tell whether the access log is to show ids."""
        return config.access_log_format == "json" or "{request_id}e" in config.access_log_format

    def choose(self, headers: list[tuple[bytes, bytes]], *, trusted: bool) -> str:
        """Return the id of a request: that among its headers if its peer is `trusted`."""
        if trusted:
            given = [value for name, value in headers if name == NAME]
            if len(given) == 1 and _GOOD.fullmatch(given[0]) is not None:
                return given[0].decode("ascii")
        return f"{self._prefix}{next(self._numbers):08x}"


def with_id(message: Message, request_id: str) -> Message:
    """Return `http.response.start` with the id among the headers, unless the application has set another."""
    headers = fields.as_pairs(message.get("headers") or ())
    if not any(name.lower() == NAME for name, _ in headers):
        headers.append((NAME, request_id.encode("ascii")))
    return {**message, "headers": headers}

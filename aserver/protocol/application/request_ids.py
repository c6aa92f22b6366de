"""An id for each request, which its scope, its response and both logs have. A trusted peer may give it.

Runs in the worker's loop, and only if the access log shows ids (`RequestIds.wanted`). It must never put an untrusted
client's bytes into a log or a response.
"""

import itertools
import os
import re
from typing import Final

from aserver.asgi import Message
from aserver.config import Config
from aserver.protocol.semantics import fields

NAME: Final = b"x-request-id"

#: The shape of ids that are taken from a trusted peer: UUIDs, hex, base64, `trace/span`. The length is for log lines.
_GOOD: Final = re.compile(rb"[0-9A-Za-z._~:/+=@-]{1,128}")


class RequestIds:
    """The ids of a worker: 64 random bits, drawn once, and a number. No id costs a system call."""

    def __init__(self) -> None:
        self._prefix = os.urandom(8).hex()
        self._numbers = itertools.count()

    @staticmethod
    def wanted(config: Config) -> bool:
        """Tell whether the access log's format shows ids."""
        return config.access_log_format == "json" or "{request_id}e" in config.access_log_format

    def choose(self, headers: list[tuple[bytes, bytes]], *, trusted: bool) -> str:
        """Return the id of a request: its X-Request-Id if that is good and the peer `trusted`, else a new id."""
        if trusted:
            given = [value for name, value in headers if name == NAME]
            if len(given) == 1 and _GOOD.fullmatch(given[0]) is not None:
                return given[0].decode("ascii")
        return f"{self._prefix}{next(self._numbers):08x}"


def with_id(message: Message, request_id: str) -> Message:
    """Return `http.response.start` with the id among the headers, unless it has an id already."""
    headers = fields.as_pairs(message.get("headers") or ())
    if not any(name.lower() == NAME for name, _ in headers):
        headers.append((NAME, request_id.encode("ascii")))
    return {**message, "headers": headers}

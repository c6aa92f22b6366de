"""An id for each request: a trusted peer's `X-Request-Id`, or one of ours, in scope, response and both logs.

Runs in the worker's loop, and only where somebody wants ids (`wanted`): then `Service` makes its exchanges of this
kind, so that nobody else pays for them. It must never put into a log or a response what an untrusted client sent.
"""

import itertools
import re
import secrets
from collections.abc import Iterator
from typing import ClassVar, Final

from aserver.asgi import Message, Scope
from aserver.config import Config
from aserver.protocol.application.exchange import Carrier, Exchange
from aserver.protocol.semantics import wire

NAME: Final = b"x-request-id"

#: What is believed: what other servers make (UUIDs, hex, base64, `trace/span`), and no more than a log line can bear.
_GOOD: Final = re.compile(rb"[0-9A-Za-z._~:/+=@-]{1,128}")


def wanted(config: Config) -> bool:
    """Tell whether the access log is to show ids."""
    return config.access_log_format == "json" or "{request_id}e" in config.access_log_format


class IdentifiedExchange(Exchange):
    """A request that has an id, as `scope["request_id"]`."""

    __slots__ = ()

    #: 64 random bits for each worker process, and a number: unique without asking the system at each request.
    _prefix: ClassVar[str] = ""
    _numbers: ClassVar[Iterator[int]] = itertools.count()

    @classmethod
    def renew(cls) -> None:
        """Choose another prefix; call it in each process."""
        cls._prefix = secrets.token_hex(8)

    def __init__(  # noqa: PLR0917 - see Exchange
        self,
        connection: Carrier,
        scope: Scope,
        target: bytes,
        modern: bool,  # noqa: FBT001
        head_only: bool,  # noqa: FBT001
        keep_alive: bool,  # noqa: FBT001
    ) -> None:
        super().__init__(connection, scope, target, modern, head_only, keep_alive)
        forwarding = connection.context.forwarding
        if forwarding is not None and forwarding.trusts(connection.client):
            given = [value for name, value in scope["headers"] if name == NAME]
            if len(given) == 1 and _GOOD.fullmatch(given[0]) is not None:
                scope["request_id"] = given[0].decode("ascii")
                return
        scope["request_id"] = f"{self._prefix}{next(self._numbers):08x}"

    def start(self, message: Message) -> None:
        """Add the id to the head, unless the application has set one."""
        headers = wire.as_pairs(message.get("headers") or ())
        if not any(name.lower() == NAME for name, _ in headers):
            headers.append((NAME, self.scope["request_id"].encode("ascii")))
        super().start({**message, "headers": headers})

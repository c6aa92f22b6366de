"""The shape of a finished response, or of a WebSocket's opening or end, as the access log takes it.

Pure: only names of shapes. `protocol` makes such records, if there is an access log, and the worker passes them on.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from aserver.asgi import Scope

#: The most bytes of fields whose texts are kept: they are kept as long as the connection is open, idle or not.
MOST_KEPT = 2048


class AccessRecord(Protocol):
    """Read at the end of the loop's turn, when the lines are made: until then nothing in it may change."""

    @property
    def client(self) -> tuple[str, int] | None:
        """Address and port; None over unix sockets."""

    @property
    def method(self) -> str:
        """Such as "GET"; "" if the request line could not be read."""

    @property
    def target(self) -> bytes:
        """The request target as sent, with its query; b"" if it could not be read."""

    @property
    def version(self) -> str:
        """Such as "1.1"; "" if it could not be read."""

    @property
    def status(self) -> int:
        """0 if the connection ended before the application gave a status."""

    @property
    def sent(self) -> int:
        """Bytes of body, without framing; for HEAD the length of GET's body."""

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """The fields of the request, names in lower case; nothing changes this sequence or its items."""

    @property
    def response_headers(self) -> Sequence[tuple[bytes, bytes]]:
        """The fields as the application gave them, without the server's own additions."""

    @property
    def started(self) -> float:
        """When the head was complete: seconds of the loop's clock (monotonic)."""

    @property
    def duration(self) -> float:
        """Seconds from `started` until the last byte was handed to the transport."""

    @property
    def request_id(self) -> str | None:
        """The id that the server gave the request, or took from a trusted peer; None if no log shows ids."""

    @property
    def scope(self) -> Scope | None:
        """The ASGI scope, which the application may have changed or emptied; None for a head that was refused."""

    @property
    def connection(self) -> Any:
        """The connection of an HTTP request that was served, else None.

        Its attribute `logged` is None at first and belongs to the formatter, which keeps texts in it.
        """


class PlainLines(NamedTuple):
    """The parts of lines of the format `before time "method target HTTP/1.1" status bytes after`.

    `batch` takes a line, or the record of a line that is not plain. While it is empty, `renew` is called before the
    first of them, and `begin` after it. `moment` has the time's text. `texts` makes `before` and `after` of a client
    and its fields, `escape` a target's text. `limit`: the most bytes of a line.
    """

    batch: list[Any]
    moment: list[str]
    renew: Callable[[], None]
    begin: Callable[[], None]
    texts: Callable[[object, Sequence[tuple[bytes, bytes]]], tuple[str, str]]
    escape: Mapping[bytes | str | int, str]
    limit: int | None

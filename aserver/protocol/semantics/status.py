"""Status codes (RFC 9110 section 15): the legal statuses, those without a body, and the server's own answers.

Pure.
"""

import re
from http import HTTPStatus
from typing import Final

from aserver.errors import ApplicationError

PHRASES: Final[dict[int, bytes]] = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}

#: Statuses without a body. Nothing may follow the head of 204 and 304 (RFC 9112 section 6.3, rule 1). 205 says that its
#: body is empty, by `content-length: 0` (RFC 9110 section 15.3.6).
BODILESS: Final = frozenset((204, 205, 304))
RESET_CONTENT: Final = 205

#: Statuses for which the application's content-length is ignored: 204 has none (RFC 9110 section 8.6), 205 has 0.
WITHOUT_LENGTH: Final = frozenset((204, 205))

_CONTROL: Final = re.compile(rb"[\0-\x08\x0a-\x1f\x7f]")


def check_status(status: object) -> int:
    """Return the status of a final response.

    Raises ApplicationError unless it is an int from 200 to 599 (RFC 9110 section 15). Interim statuses, below 200, are
    not sent by `http.response.start`.
    """
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise ApplicationError(f"http.response.start: status is {status!r}, must be an int from 200 to 599")
    return int(status)


def legal_reason(phrase: bytes) -> bytes:
    """Return a reason phrase, or b"" if it has control characters (RFC 9112 section 4)."""
    return b"" if _CONTROL.search(phrase) else phrase


def plain_text(status: int) -> bytes:
    """Return the body of the server's own answer: the reason phrase of the status, as a line of text."""
    return PHRASES[status] + b"\n"


def plain_fields(status: int) -> list[tuple[bytes, bytes]]:
    """Return the fields of the server's own answer, whose body is `plain_text`."""
    fields = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(plain_text(status))),
    ]
    if status == 503:
        fields.append((b"retry-after", b"1"))
    return fields

"""Request lines that have begun: waited for, or refused before their end."""

import pytest

from aserver.errors import ClientError
from aserver.protocol.http1 import framing


@pytest.mark.parametrize(
    "line", [b"GET /a?b=c HTTP/1.1\r", b"M-SEARCH * HTTP/1.0\r", b"\r", b"!X http://a/ HTTP/9.9\r"]
)
def test_what_can_become_a_request_line_is_waited_for(line: bytes) -> None:
    for end in range(len(line) + 1):
        framing.check_begun(line[:end], 100)


@pytest.mark.parametrize(
    "line",
    [
        b"\0",
        b" ",
        b"\t",
        b"\x16\x03",
        b"GET\t",
        b"GET  ",
        b"GET / X",
        b"GET / HTTP/1.1 ",
        b"GET /\x80",
        b"G\rE",
        b"\r\r",
    ],
)
def test_what_cannot_is_refused_before_its_end_has_come(line: bytes) -> None:
    """Else who speaks another protocol waits for `header_timeout`. Fails without `_BEGUN_LINE`."""
    with pytest.raises(ClientError, match="malformed") as error:
        framing.check_begun(line, 100)
    assert error.value.status == 400

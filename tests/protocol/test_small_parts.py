"""Pure parts by themselves: begun request lines, records of refusals, departures, who is trusted over a unix socket."""

import functools
from http import HTTPStatus
from unittest import mock

import pytest

from aserver.errors import ClientError
from aserver.protocol.application.access_record import refusal
from aserver.protocol.http1 import framing
from aserver.protocol.peer.forwarded import Forwarding
from aserver.protocol.peer.trust import Peers
from aserver.protocol.websocket.departure import Departure


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


def test_a_refusal_tells_what_is_known_of_the_request() -> None:
    exchange = mock.Mock(
        method="POST", target=b"/x", version="1.1", headers=[(b"a", b"b")], started=4.0, scope={"a": 1}
    )
    refuse = functools.partial(refusal, client=("1.2.3.4", 5), line=("", b"/other", ""), headers=[], now=10.0)
    known = refuse(413, exchange)
    assert (known.method, known.target, known.version, known.headers) == ("POST", b"/x", "1.1", [(b"a", b"b")])
    assert (known.status, known.started, known.duration, known.scope) == (413, 4.0, 6.0, {"a": 1})
    assert known.sent == len(HTTPStatus(413).phrase) + 1, "the phrase, which Python 3.13 has changed, and a newline"
    unknown = refuse(400, None)
    assert (unknown.method, unknown.target, unknown.version, unknown.headers) == ("", b"/other", "", [])
    assert (unknown.started, unknown.duration, unknown.scope) == (10.0, 0.0, None)


def test_a_departure_that_is_called_off_tells_nobody_any_more() -> None:
    loop, leavers = mock.Mock(), [mock.Mock() for _ in range(4)]
    loop.time.return_value = 0.0
    departure = Departure(loop, leavers, 1000.0)
    assert not any(leaver.leave.called for leaver in leavers)
    departure.cancel()
    loop.call_later.return_value.cancel.assert_called_once_with()


@pytest.mark.parametrize(("allowed", "trusted"), [(["127.0.0.1"], False), (["unix"], True), (["*"], True), ([], False)])
def test_who_comes_over_a_unix_socket(allowed: list[str], trusted: bool) -> None:
    assert Forwarding(Peers(allowed)).trusts(None) == trusted

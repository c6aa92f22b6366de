"""The record of a request that the server refuses."""

import functools
from http import HTTPStatus
from unittest import mock

from aserver.protocol.application.access_record import refusal


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

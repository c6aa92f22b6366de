"""wire: tables and pure rules."""

from unittest import mock

import pytest

from aserver.errors import ClientError
from aserver.protocol.http1.head import RequestHead
from aserver.protocol.http1.rules import RequestLimits
from aserver.protocol.semantics import wire


@pytest.mark.parametrize("host", [b"a", b"a.b:80", b"[::1]", b"[::1]:8000", b"a:", b"1.2.3.4:5", b"a_b-c~d", b"%41"])
def test_good_host(host: bytes) -> None:
    wire.check_host(host)


@pytest.mark.parametrize(
    "host", [b"", b"a b", b"a/b", b"a@b", b"a:b", b":80", b"[::1", b"a:123456", b"a\x80", b"%4", b"a,b/"]
)
def test_bad_host(host: bytes) -> None:
    with pytest.raises(ClientError) as error:
        wire.check_host(host)
    assert error.value.status == 400


@pytest.mark.parametrize(
    ("method", "target", "wanted"),
    [
        ("GET", b"/", (b"/", b"", None)),
        ("GET", b"/a?b?c", (b"/a", b"b?c", None)),
        ("OPTIONS", b"*", (b"*", b"", None)),
        ("GET", b"http://h/a?b", (b"/a", b"b", b"h")),
        ("GET", b"HTTP://h:8/", (b"/", b"", b"h:8")),
        ("GET", b"http://h", (b"/", b"", b"h")),
        ("GET", b"http://h?q", (b"/", b"q", b"h")),
        ("GET", b"//h/a", (b"//h/a", b"", None)),
    ],
)
def test_target(method: str, target: bytes, wanted: tuple[bytes, bytes, bytes | None]) -> None:
    assert wire.split_target(method, target) == wanted


@pytest.mark.parametrize(
    ("method", "target"),
    [("GET", b"*"), ("GET", b"a:1"), ("GET", b"ftp://h/"), ("GET", b"http:///a"), ("GET", b"http://u@h/")],
)
def test_refused_target(method: str, target: bytes) -> None:
    with pytest.raises(ClientError) as error:
        wire.split_target(method, target)
    assert error.value.status == 400


@pytest.mark.parametrize(
    ("path", "text"),
    [(b"/a%20b", "/a b"), (b"/%C3%A9", "/é"), (b"/%2F", "//"), (b"/%zz", "/%zz"), (b"/%FF", "/\ufffd")],
)
def test_decoded_path(path: bytes, text: str) -> None:
    assert wire.decode_path(path) == text


@pytest.mark.parametrize(
    ("coding", "version", "has_length", "status"),
    [
        (b"chunked", "1.0", False, 400),
        (b"chunked", "1.1", True, 400),
        (b"gzip, chunked", "1.1", False, 501),
        (b"chunked, gzip", "1.1", False, 400),
        (b"chunked, chunked", "1.1", False, 400),
        (b"identity", "1.1", False, 400),
        (b"", "1.1", False, 400),
    ],
)
def test_refused_transfer_encoding(coding: bytes, version: str, has_length: bool, status: int) -> None:
    with pytest.raises(ClientError) as error:
        wire.check_transfer_encoding(coding, version, has_length=has_length)
    assert error.value.status == status


def test_chunked_in_any_case() -> None:
    wire.check_transfer_encoding(b"Chunked", "1.1", has_length=False)


def test_special_names_are_never_taken_for_plain_ones() -> None:
    assert not {name.lower() for name in wire.REQUEST_NAMES} & wire.SPECIAL_REQUEST_NAMES


@pytest.mark.parametrize("name", [b"Host", b"content-length"])
def test_fields_that_must_not_be_repeated(name: bytes) -> None:
    """Joined they would be refused as well, as no Host and no number; this says what is wrong."""
    limits = RequestLimits(line=100, fields=9, field_size=100, body=0)
    head = RequestHead(limits, on_headers_complete=mock.Mock(), on_body=mock.Mock(), on_message_complete=mock.Mock())
    head.on_header(name, b"1")
    with pytest.raises(ClientError, match="repeated") as error:
        head.on_header(name.title(), b"1")
    assert error.value.status == 400

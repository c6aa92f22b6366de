"""The request target, Host, and the decoded path."""

import pytest

from aserver.errors import ClientError
from aserver.protocol.semantics.target import check_host, decode_path, split_target


@pytest.mark.parametrize("host", [b"a", b"a.b:80", b"[::1]", b"[::1]:8000", b"a:", b"1.2.3.4:5", b"a_b-c~d", b"%41"])
def test_good_host(host: bytes) -> None:
    check_host(host)


@pytest.mark.parametrize(
    "host", [b"", b"a b", b"a/b", b"a@b", b"a:b", b":80", b"[::1", b"a:123456", b"a\x80", b"%4", b"a,b/"]
)
def test_bad_host(host: bytes) -> None:
    with pytest.raises(ClientError) as error:
        check_host(host)
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
    assert split_target(method, target) == wanted


@pytest.mark.parametrize(
    ("method", "target"),
    [("GET", b"*"), ("GET", b"a:1"), ("GET", b"ftp://h/"), ("GET", b"http:///a"), ("GET", b"http://u@h/")],
)
def test_refused_target(method: str, target: bytes) -> None:
    with pytest.raises(ClientError) as error:
        split_target(method, target)
    assert error.value.status == 400


@pytest.mark.parametrize(
    ("path", "text"),
    [(b"/a%20b", "/a b"), (b"/%C3%A9", "/é"), (b"/%2F", "//"), (b"/%zz", "/%zz"), (b"/%FF", "/\ufffd")],
)
def test_decoded_path(path: bytes, text: str) -> None:
    assert decode_path(path) == text

"""The environ of a request, as PEP 3333 and the CGI variables of gunicorn have it."""

from typing import Any

import pytest

from aserver.wsgi.environ import make_environ


def environ(**changes: Any) -> dict[str, Any]:
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/a b",
        "raw_path": b"/a%20b",
        "query_string": b"q=%20&r",
        "root_path": "",
        "headers": [],
        "client": ("192.0.2.7", 4711),
        "server": ("127.0.0.1", 8000),
    }
    return make_environ(scope | changes, {"wsgi.version": (1, 0)})


def test_a_plain_request() -> None:
    assert environ() == {
        "wsgi.version": (1, 0),
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b",
        "QUERY_STRING": "q=%20&r",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "RAW_URI": "/a%20b?q=%20&r",
        "REQUEST_URI": "/a%20b?q=%20&r",
        "REMOTE_ADDR": "192.0.2.7",
        "REMOTE_PORT": "4711",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
    }


def test_behind_tls_the_variables_of_apache_say_so() -> None:
    found = environ(scheme="https")
    assert (found["wsgi.url_scheme"], found["HTTPS"]) == ("https", "on")


def test_fields() -> None:
    """Bytes beyond ASCII are latin-1; repeated fields are joined, cookies with their own separator."""
    headers = [
        (b"host", b"example.org"),
        (b"content-type", b"text/plain"),
        (b"content-length", b"0"),
        (b"x-name", b"caf\xc3\xa9"),
        (b"accept", b"a"),
        (b"accept", b"b"),
        (b"cookie", b"a=1"),
        (b"cookie", b"b=2"),
        (b"x_name", b"forged"),
        (b"content_length", b"7"),
    ]
    found = environ(headers=headers)
    assert {key: value for key, value in found.items() if key.startswith(("HTTP_", "CONTENT_"))} == {
        "HTTP_HOST": "example.org",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "0",
        "HTTP_X_NAME": "caf\xc3\xa9",
        "HTTP_ACCEPT": "a,b",
        "HTTP_COOKIE": "a=1; b=2",
    }


@pytest.mark.parametrize(
    ("path", "raw", "root", "expected"),
    [
        ("/caf\xe9", b"/caf%C3%A9", "", ("", "/caf\xc3\xa9", "/caf%C3%A9")),
        ("/\ufffd", b"/%FF", "", ("", "/\xff", "/%FF")),
        ("/app/x", b"/app/x", "/app", ("/app", "/x", "/x")),
        ("/pr\xe9/x", b"/pr%C3%A9/x", "/pr\xe9", ("/pr\xc3\xa9", "/x", "/x")),
        ("/pr\xe9/x", b"/pr?/x", "/pr\xe9", ("/pr\xc3\xa9", "/x", "/x")),
        ("/app/\ufffd", b"/app/%FE%20", "/app", ("/app", "/\xfe ", "/%FE%20")),
        ("*", b"*", "", ("", "*", "*")),
    ],
)
def test_paths(path: str, raw: bytes, root: str, expected: tuple[str, str, str]) -> None:
    """SCRIPT_NAME, PATH_INFO with the very bytes of the client, and RAW_URI as it was sent to this server."""
    found = environ(path=path, raw_path=raw, root_path=root, query_string=b"")
    assert (found["SCRIPT_NAME"], found["PATH_INFO"], found["RAW_URI"]) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (b"example.org", ("example.org", "80")),
        (b"example.org:81", ("example.org", "81")),
        (b"[::1]", ("[::1]", "80")),
        (b"[::1]:81", ("[::1]", "81")),
        (None, ("localhost", "80")),
    ],
)
def test_on_a_unix_socket_the_name_is_the_one_that_was_asked_for(host: bytes | None, expected: tuple[str, str]) -> None:
    found = environ(server=("/run/a.sock", None), client=None, headers=[(b"host", host)] if host is not None else [])
    assert (found["SERVER_NAME"], found["SERVER_PORT"]) == expected
    assert found["REMOTE_ADDR"] == ""
    assert "REMOTE_PORT" not in found

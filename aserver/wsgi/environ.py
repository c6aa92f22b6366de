"""The `environ` of a WSGI request (PEP 3333), from the scope of an ASGI request.

Pure. A name that the client chooses must never become a name that a proxy sets: `X_Real_IP` and `X-Real-IP` would be
the same name here, so names with an underscore are left out.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from aserver.asgi import Scope

#: Names of fields that have been converted. Clients choose them, so the number has a bound.
_NAMES_KEPT = 512

_PORTS = {"http": "80", "https": "443"}


def make_environ(scope: Scope, common: Mapping[str, Any]) -> dict[str, Any]:
    """Make the environ of a request. `common` has the values that are the same for all requests: `wsgi.version`...

    Texts are those of PEP 3333: each character is a byte. The caller adds `wsgi.input` and `wsgi.errors`.
    """
    root: str = scope.get("root_path", "")
    path: str = scope["path"]
    query: str = scope["query_string"].decode("latin-1")
    environ: dict[str, Any] = {
        **common,
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": _bytes_as_text(root),
        "PATH_INFO": _bytes_as_text(path[len(root) :] if root and path.startswith(root) else path),
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": "HTTP/" + scope["http_version"],
        "wsgi.url_scheme": scope["scheme"],
    }
    if scope["scheme"] == "https":
        environ["HTTPS"] = "on"
    for name, value in scope["headers"]:
        key = _key(name)
        if key in environ:
            # A list, as RFC 9110 section 5.3 allows; a cookie's own separator is another.
            environ[key] += ("; " if key == "HTTP_COOKIE" else ",") + value.decode("latin-1")
        elif key:
            environ[key] = value.decode("latin-1")
    target = _sent_path(scope, root)
    environ["RAW_URI"] = environ["REQUEST_URI"] = f"{target}?{query}" if query else target
    if "\ufffd" in path:  # no UTF-8: only the path as it was sent has the very bytes
        environ["PATH_INFO"] = unquote_to_bytes(target).decode("latin-1")
    client, server = scope.get("client"), scope.get("server")
    environ["REMOTE_ADDR"] = client[0] if client else ""
    if client:
        environ["REMOTE_PORT"] = str(client[1])
    if server and server[1] is not None:
        environ["SERVER_NAME"], environ["SERVER_PORT"] = server[0], str(server[1])
    else:  # a unix socket: the name and port that the client has used
        environ["SERVER_NAME"], environ["SERVER_PORT"] = _asked(environ.get("HTTP_HOST", ""), scope["scheme"])
    return environ


@lru_cache(maxsize=_NAMES_KEPT)
def _key(name: bytes) -> str:
    """The name of a field in environ; empty for a name with an underscore."""
    if b"_" in name:
        return ""
    key = name.decode("latin-1").upper().replace("-", "_")
    return key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"


def _bytes_as_text(text: str) -> str:
    """Return `text` as PEP 3333 wants it: the bytes of its UTF-8, each as a character."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("latin-1")


def _sent_path(scope: Scope, root: str) -> str:
    """The path as the client has sent it, without the prefix that `root_path` puts before it."""
    raw: bytes | None = scope.get("raw_path")
    path = raw.decode("latin-1") if raw is not None else quote(scope["path"])
    if root:
        for prefix in (root, quote(root), root.encode("ascii", "replace").decode()):
            if path.startswith(prefix):
                return path[len(prefix) :]
    return path


def _asked(host: str, scheme: str) -> tuple[str, str]:
    """Name and port of a Host field."""
    name, colon, port = host.rpartition(":")
    if not colon or port.endswith("]"):  # without a port, perhaps an IPv6 address
        name, port = host, ""
    return name or "localhost", port or _PORTS.get(scheme, "80")

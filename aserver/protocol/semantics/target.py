"""The method, the target and the Host of a request (RFC 9110 section 7, RFC 9112 section 3.2).

Pure functions and tables.
"""

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from aserver.errors import ClientError

#: llhttp's methods, as the ASGI scope has them. CONNECT, PRI (HTTP/2's) and RTSP's methods are not served.
_METHODS: Final = (
    "DELETE GET HEAD POST PUT OPTIONS TRACE COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK BIND REBIND "
    "UNBIND ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PATCH PURGE MKCALENDAR "
    "LINK UNLINK SOURCE QUERY"
)
METHODS: Final[dict[bytes, str]] = {name.encode(): name for name in _METHODS.split()}

_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|(?:[!$&'()*+,;=\-._~0-9A-Za-z]|%[0-9A-Fa-f]{2})+)(?::[0-9]{0,5})?")
_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/?#]*)((?:[/?][^#]*)?)")


def check_host(host: bytes) -> None:
    """Raise ClientError(400) unless `host` is `uri-host [":" port]` and not empty (RFC 9110 section 7.2)."""
    if _HOST.fullmatch(host) is None:
        raise ClientError(400, f"malformed Host {host[:80]!r}")


def split_target(method: str, target: bytes) -> tuple[bytes, bytes, bytes | None]:
    """Split a request target into path, query and, for the absolute form, its authority (RFC 9112 section 3.2).

    Raises ClientError(400) for the authority form (CONNECT's), for `*` with a method other than OPTIONS, and for a
    target that has none of the four forms.
    """
    authority = None
    if not target.startswith(b"/"):
        if target == b"*" and method == "OPTIONS":
            return b"*", b"", None
        match = _ABSOLUTE.fullmatch(target)
        if match is None:
            raise ClientError(400, f"request target {target[:80]!r} is neither a path nor an absolute URI")
        authority, target = match.groups()
        check_host(authority)
        if not target and method == "OPTIONS":
            target = b"*"  # RFC 9112 section 3.2.4
        elif not target.startswith(b"/"):
            target = b"/" + target
    path, _, query = target.partition(b"?")
    return path, query, authority


def decode_path(path: bytes) -> str:
    """Return the `path` of an ASGI scope: percent sequences and UTF-8 decoded, errors replaced by U+FFFD."""
    return unquote_to_bytes(path).decode("utf-8", "replace")

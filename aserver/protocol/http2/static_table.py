"""The static table of HPACK (RFC 7541 appendix A). Pure."""

from typing import Final

Field = tuple[bytes, bytes]

_ROWS: Final = """
:authority
:method GET
:method POST
:path /
:path /index.html
:scheme http
:scheme https
:status 200
:status 204
:status 206
:status 304
:status 400
:status 404
:status 500
accept-charset
accept-encoding gzip, deflate
accept-language
accept-ranges
accept
access-control-allow-origin
age
allow
authorization
cache-control
content-disposition
content-encoding
content-language
content-length
content-location
content-range
content-type
cookie
date
etag
expect
expires
from
host
if-match
if-modified-since
if-none-match
if-range
if-unmodified-since
last-modified
link
location
max-forwards
proxy-authenticate
proxy-authorization
range
referer
refresh
retry-after
server
set-cookie
strict-transport-security
transfer-encoding
user-agent
vary
via
www-authenticate
"""


def _field(row: str) -> Field:
    name, _, value = row.partition(" ")
    return name.encode(), value.encode()


#: By index; there is no index 0.
STATIC: Final[list[Field]] = [(b"", b""), *(_field(row) for row in _ROWS.split("\n")[1:-1])]

#: The first index of each name.
NAMES: Final[dict[bytes, int]] = {field[0]: index for index, field in reversed(list(enumerate(STATIC))) if index}

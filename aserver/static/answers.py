"""The answer to a request for a file that is there: status, fields and the part to send (RFC 9110, 12 to 14).

Pure: it is given the facts of the file.
"""

import mimetypes
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime

Fields = list[tuple[bytes, bytes]]

#: Endings of files beside a file that hold it compressed, and the coding of each, the best first.
ENCODINGS = {".br": "br", ".gz": "gzip"}

#: Python's own table, without the system's, so that every machine answers alike.
_TYPES = mimetypes.MimeTypes(filenames=())
#: Types that the tables of some versions of Python do not have.
_MORE_TYPES = {
    ".avif": "image/avif",
    ".br": "application/x-brotli",
    ".gz": "application/gzip",
    ".js": "text/javascript",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".otf": "font/otf",
    ".ttf": "font/ttf",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}
#: Types beside text/* that are text, which is UTF-8.
_TEXTS = frozenset({"application/json", "application/manifest+json", "application/xml", "image/svg+xml"})
#: A single range. Several are not served: the whole file is an answer, too (section 14.2).
_RANGE = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})", re.ASCII | re.IGNORECASE)
_CODING = re.compile(r"([^\s;]+)\s*(?:;\s*q\s*=\s*([01](?:\.\d{0,3})?))?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Representation:
    """The facts of a file in a coding: `encoding` is "br", "gzip" or empty, `varies` if there is another."""

    name: str
    size: int
    mtime_ns: int
    encoding: str = ""
    varies: bool = False

    @property
    def etag(self) -> str:
        """Strong: it changes with each write that changes the time or the size."""
        return f'"{self.mtime_ns:x}-{self.size:x}{self.encoding and "-" + self.encoding}"'

    @property
    def modified(self) -> int:
        """The time of the last change in whole seconds, as fields have it."""
        return self.mtime_ns // 1_000_000_000


@dataclass(frozen=True, slots=True)
class Selection:
    """The status and fields, and the bytes of the file from `start` to before `end`."""

    status: int
    fields: Fields
    start: int = 0
    end: int = 0


def media_type(name: str) -> str:
    """The Content-Type for a file of that name, from its last ending alone."""
    ending = "." + name.rpartition(".")[2].lower() if "." in name else ""
    kind = _MORE_TYPES.get(ending) or _TYPES.types_map[True].get(ending) or "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") or kind in _TEXTS else kind


def accepted(value: str | None) -> frozenset[str]:
    """The codings of ENCODINGS that an Accept-Encoding field takes (section 12.5.3)."""
    if value is None:
        return frozenset()
    weights = {
        match[1].lower(): float(match[2] or 1)
        for match in map(_CODING.fullmatch, map(str.strip, value.split(",")[:64]))
        if match
    }
    every = weights.get("*", 0.0)
    return frozenset(coding for coding in ENCODINGS.values() if weights.get(coding, every) > 0)


def answer(method: str, fields: Mapping[str, str], file: Representation) -> Selection:
    """The answer to a GET or HEAD with those request fields (names in lower case)."""
    common: Fields = [
        (b"etag", file.etag.encode()),
        (b"last-modified", formatdate(file.modified, usegmt=True).encode()),
    ]
    if file.varies:
        common.append((b"vary", b"accept-encoding"))
    status = _precondition(fields, file)
    if status:
        return Selection(status, common if status == 304 else [*common, (b"content-length", b"0")])
    common += [
        (b"content-type", media_type(file.name).encode("ascii")),
        (b"accept-ranges", b"bytes"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if file.encoding:
        common.append((b"content-encoding", file.encoding.encode()))
    status, start, end = 200, 0, file.size
    wanted = _range(fields["range"], file.size) if method == "GET" and "range" in fields else None
    if wanted is not None and _range_holds(fields.get("if-range"), file):
        status, (start, end) = 206, wanted
        if start >= end:
            return Selection(416, [(b"content-range", b"bytes */%d" % file.size), (b"content-length", b"0")])
        common.append((b"content-range", b"bytes %d-%d/%d" % (start, end - 1, file.size)))
    common.append((b"content-length", b"%d" % (end - start)))
    return Selection(status, common, start, end)


def _precondition(fields: Mapping[str, str], file: Representation) -> int:
    """412 or 304 if a condition says so, else 0; in the order of section 13.2.2."""
    if (condition := fields.get("if-match")) is not None:
        if condition.strip() != "*" and file.etag not in _tags(condition):
            return 412
    elif (date := _date(fields.get("if-unmodified-since"))) is not None and file.modified > date:
        return 412
    if (condition := fields.get("if-none-match")) is not None:
        return (
            304 if condition.strip() == "*" or file.etag in {tag.removeprefix("W/") for tag in _tags(condition)} else 0
        )
    date = _date(fields.get("if-modified-since"))
    return 304 if date is not None and file.modified <= date else 0


def _tags(value: str) -> Iterable[str]:
    return map(str.strip, value.split(","))


def _date(value: str | None) -> int | None:
    """Seconds since 1970, or None if the field is missing or no date."""
    if value is None:
        return None
    try:
        return int(parsedate_to_datetime(value).timestamp())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _range_holds(condition: str | None, file: Representation) -> bool:
    """Whether a range may be sent: If-Range, if the request has it, must name this version (section 13.1.5)."""
    if condition is None or condition.strip() == file.etag:
        return True
    return '"' not in condition and _date(condition) == file.modified


def _range(value: str, size: int) -> tuple[int, int] | None:
    """The wanted bytes as (start, end), without the byte at `end`.

    (0, 0) if the range lies behind the end of the file. None for anything but a single range, which is ignored.
    """
    match = _RANGE.fullmatch(value.strip())
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        return max(0, size - int(match[2])), size
    first, last = int(match[1]), int(match[2] or size)
    if last < first:
        return None
    return (first, min(last + 1, size)) if first < size else (0, 0)

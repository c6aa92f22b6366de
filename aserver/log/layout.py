"""How a record of the error log looks, as text and as JSON.

Used by every process, on records only: it opens nothing and writes nothing. A record becomes a piece, or, where
the sink takes no more than `limit` bytes at once, several pieces of whole lines: a long traceback is not cut.

Text: `12:01:07.482 worker 1/g3 [4711] INFO  message`. In regular files the date stands in front. Further lines of the
same record are indented, so that no message can pass for a record. JSON: an object a line, with the fields

    time        local time, ISO 8601 with milliseconds and offset
    level       debug, info, warning, error, critical
    process     "master", "zygote g3", "worker 1/g3"
    pid         number
    logger      name of the logger
    message     text
    request_id  text, where the record has one (`extra={"request_id": ...}`)
    event, worker, generation, reason, outcome
                of the master's decisions (docs/operate.md)
    traceback   text, where there is an exception
    part, parts numbers, where a traceback was too long for a line of a pipe: its parts follow each other
"""

import json
import logging
import re
import time
from typing import Protocol

_COLOURS = {
    logging.DEBUG: "\x1b[2m",
    logging.INFO: "\x1b[32m",
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[31m",
    logging.CRITICAL: "\x1b[1;31m",
}
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
_SHORT = {"WARNING": "WARN", "CRITICAL": "CRIT"}
_INDENT = b"    "
#: The end of a text that was cut.
_CUT = " [cut]"
#: Fields of the master's decisions (docs/operate.md).
FACTS = ("reason", "outcome", "generation", "worker", "event")
#: Fields that are left out, in this order, of a JSON line that is too long although its texts were cut.
_DISPENSABLE = (*FACTS, "request_id", "logger", "pid", "process", "time", "level", "message")
#: Characters that could end a line early or command a terminal: C0 but tab and newline, DEL, C1, Unicode's line ends.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_traceback = logging.Formatter().formatException
_stack = logging.Formatter().formatStack


class Layout(Protocol):
    """Turns a record into pieces of at most `limit` bytes, each of whole lines."""

    process: str

    def render(self, record: logging.LogRecord, limit: int | None) -> list[bytes]: ...


def message_of(record: logging.LogRecord) -> str:
    """The record's message, also if its arguments do not fit: a line about trouble must not be lost."""
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 - str() of an application's object is user code
        return f"{record.msg!r} ({type(error).__name__} while its arguments were put in)"


def _details(record: logging.LogRecord) -> str:
    parts = [record.exc_text or (_traceback(record.exc_info) if record.exc_info and record.exc_info[0] else "")]
    if record.stack_info:
        parts.append(_stack(record.stack_info))
    return "\n".join(part for part in parts if part)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


class TextLayout:
    """Lines for people, in the form that the module's docstring shows."""

    def __init__(self, process: str, *, dated: bool = False, colour: bool = False, brief: bool = False) -> None:
        """`brief` is for a developer's terminal: the time alone stands before a message, and a level that matters."""
        self.process = process
        self.dated = dated
        self.colour = colour
        self.brief = brief

    def _head(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%Y-%m-%d %H:%M:%S" if self.dated else "%H:%M:%S", time.localtime(record.created))
        if self.brief:
            name = "" if record.levelno == logging.INFO else record.levelname.lower() + ": "
            colour = (_DIM, _PLAIN, _COLOURS.get(record.levelno, ""), _PLAIN) if self.colour else ("",) * 4
            return f"{colour[0]}{clock}{colour[1]} {colour[2]}{name}{colour[3]}"
        level = f"{_SHORT.get(record.levelname, record.levelname):<5}"
        # 11 is the width of "worker 1/g3".
        origin = f"{clock}.{int(record.msecs):03d} {self.process:<11} [{record.process}]"
        if self.colour:
            return f"{_DIM}{origin}{_PLAIN} {_COLOURS.get(record.levelno, '')}{level}{_PLAIN} "
        return f"{origin} {level} "

    def render(self, record: logging.LogRecord, limit: int | None) -> list[bytes]:
        """Lay out one record."""
        body = message_of(record)
        details = _details(record)
        if details:
            body = f"{body}\n{details}"
        lines = _UNSAFE.sub(_escape, body).rstrip("\n").split("\n")
        request_id = getattr(record, "request_id", None)
        if request_id:
            lines[0] += f" [request {_UNSAFE.sub(_escape, str(request_id)).replace(chr(10), ' ')}]"
        head = _encode(self._head(record))
        encoded = [_encode(line) for line in lines]
        whole = head + (b"\n" + _INDENT).join(encoded) + b"\n"
        if limit is None or len(whole) <= limit:
            return [whole]
        return self._pieces(head, encoded, limit)

    @staticmethod
    def _pieces(head: bytes, lines: list[bytes], limit: int) -> list[bytes]:
        pieces: list[bytes] = []
        piece, mark = head, _encode(_CUT) + b"\n"
        for number, line in enumerate(lines):
            text = (b"" if number == 0 else _INDENT) + line + b"\n"
            again = head + b"(continued)\n"
            room = limit - len(again)
            if len(text) > room:
                kept = text[: max(0, room - len(mark))].decode("utf-8", "ignore")  # no half of a character
                text = _encode(kept) + mark
            if len(piece) + len(text) > limit:
                pieces.append(piece)
                piece = again
            piece += text
        return [*pieces, piece]


class JsonLayout:
    """Lines for machines, in the form that the module's docstring shows.

    They are pure ASCII, so that no reader finds a line end inside a line.
    """

    def __init__(self, process: str) -> None:
        self.process = process

    def render(self, record: logging.LogRecord, limit: int | None) -> list[bytes]:
        """Lay out one record."""
        local = time.localtime(record.created)
        offset = time.strftime("%z", local)
        fields: dict[str, object] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{int(record.msecs):03d}{offset[:3]}:{offset[3:]}",
            "level": record.levelname.lower(),
            "process": self.process,
            "pid": record.process,
            "logger": record.name,
            "message": message_of(record),
        }
        request_id = getattr(record, "request_id", None)
        if request_id:
            fields["request_id"] = str(request_id)
        fields.update({name: value for name in FACTS if isinstance(value := getattr(record, name, None), str | int)})
        details = _details(record)
        whole = _json_line({**fields, "traceback": details} if details else fields)
        if limit is None or len(whole) <= limit:
            return [whole]
        return _json_pieces(fields, details, limit)


def _json_line(fields: dict[str, object]) -> bytes:
    return json.dumps(fields).encode("ascii") + b"\n"


def _shorten(text: str, size: int) -> str:
    """`text`, cut and marked as cut if its JSON is longer than `size` bytes; "" if the mark alone is longer."""
    if len(json.dumps(text)) <= size:
        return text
    length = len(text)
    while length:
        length = length * 3 // 4
        cut = text[:length] + _CUT
        if len(json.dumps(cut)) <= size:
            return cut
    return ""


def _fit(fields: dict[str, object], limit: int) -> dict[str, object]:
    """Cut message and request id to a third of `limit` each; if that is not enough, leave out whole fields."""
    fitted = fields.copy()
    for name in ("message", "request_id", "reason"):
        if name in fitted:
            fitted[name] = _shorten(str(fitted[name]), limit // 3)
    for name in _DISPENSABLE:
        if len(_json_line(fitted)) <= limit:
            break
        fitted.pop(name, None)
    return fitted


def _json_pieces(fields: dict[str, object], details: str, limit: int) -> list[bytes]:
    lines = details.split("\n") if details else []
    # At least a quarter is left for the traceback. There are never more parts than lines.
    head = _fit(fields, limit * 3 // 4)
    room = limit - len(_json_line({**head, "traceback": "", "part": len(lines), "parts": len(lines)}))
    if not lines or room < len(json.dumps(_CUT)):
        line = _json_line(_fit(fields, limit))
        return [line] if len(line) <= limit else []
    groups: list[list[str]] = [[]]
    used = 0
    for each in lines:
        text = _shorten(each, room)
        cost = len(json.dumps(text))  # with its quotes, which pay for the line end between two
        if groups[-1] and used + cost > room:
            groups.append([])
            used = 0
        groups[-1].append(text)
        used += cost
    return [
        _json_line({**head, "traceback": "\n".join(group), "part": number, "parts": len(groups)})
        for number, group in enumerate(groups, 1)
    ]

"""What a client sent, made safe inside a line: printable ASCII, and nothing that could end or split the line.

Pure, run by workers for every request.
"""

import json
from collections.abc import Callable

_PLAIN = bytes(code for code in range(0x20, 0x7F) if code not in b'"\\')
#: For charmap_decode, which refuses what is mapped to U+FFFE, or not at all.
PLAIN_MAP = "".join(chr(code) if code in _PLAIN else "\ufffe" for code in range(256))
NO_MAP = "\ufffe" * 256
_HEX = [chr(code) if code in _PLAIN else f"\\x{code:02x}" for code in range(256)]
#: Values that need no escape are remembered, because browsers repeat themselves: a lookup takes 30 ns, a check 250.
#: 1024 of at most 256 bytes are less than 0.5 MB, whatever clients send.
_REMEMBERED, _LONGEST = 1024, 256


def escape_text(raw: bytes) -> str:
    r"""`\xHH` for control characters, quotes, backslashes, and anything beyond ASCII, so also broken UTF-8."""
    return "".join([_HEX[code] for code in raw])


def escape_json(raw: bytes) -> str:
    """As inside a JSON string, in ASCII; broken UTF-8 becomes `\\\\xHH`."""
    return json.dumps(raw.decode("utf-8", "backslashreplace"))[1:-1]


class _Printable(dict[int, int | str]):
    """For str.translate: printable characters, line ends and tabs stay, others become their escape."""

    def __missing__(self, code: int) -> int | str:
        char = chr(code)
        kept: int | str = code if char.isprintable() or char in "\n\t" else ascii(char)[1:-1]
        if len(self) < _REMEMBERED:
            self[code] = kept
        return kept


_PRINTABLE = _Printable()


def printable(text: str) -> str:
    """Text of several lines without what moves a terminal's cursor, rings, colours, or ends a line in another way."""
    return text if text.isprintable() else text.translate(_PRINTABLE)


class Escaper(dict[bytes | str | int, str]):
    """`escaper[value]` is the value, safe inside a line; the escaped form is at most `longest` characters long.

    A dict, because `__missing__` leaves what is remembered to C.
    """

    __slots__ = ("_escape", "longest")

    def __init__(self, escape: Callable[[bytes], str], longest: int | None = None) -> None:
        super().__init__()
        self._escape = escape
        self.longest = longest

    def __missing__(self, value: bytes | str | int) -> str:
        """Escape it, and remember it if it was plain and short."""
        if isinstance(value, int):  # a status, whose text is found sooner than made
            raw = b"%d" % value
        else:
            raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else bytes(value)
        # One look by translate(): what is left after deleting the plain characters. A regex takes three times as long.
        plain = not raw.translate(None, _PLAIN)
        safe = raw.decode("ascii") if plain else self._escape(raw)
        if self.longest is not None and len(safe) > self.longest:
            # No escape is longer than six bytes (backslash, u, four digits), so this many fit whatever they are.
            safe = (safe[: self.longest] if plain else self._escape(raw[: self.longest // 6])) + "..."
        if plain and len(raw) <= _LONGEST:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[value] = safe
        return safe

"""Clients' bytes made safe inside a line: printable ASCII, and no character that could end or split the line.

Pure, run by workers for every request.
"""

import json
from collections.abc import Callable

_PLAIN = bytes(code for code in range(0x20, 0x7F) if code not in b'"\\')
#: For charmap_decode, which refuses a byte that is mapped to U+FFFE, or not at all.
PLAIN_MAP = "".join(chr(code) if code in _PLAIN else "\ufffe" for code in range(256))
NO_MAP = "\ufffe" * 256
_HEX = [chr(code) if code in _PLAIN else f"\\x{code:02x}" for code in range(256)]
#: The values that need no escape are remembered, because browsers repeat themselves: a lookup takes 30 ns, a check 250.
#: 1024 of them, of at most 256 bytes, are less than 0.5 MB.
_REMEMBERED, _LONGEST = 1024, 256


def escape_text(raw: bytes) -> str:
    r"""Write `\xHH` for control characters, quotes, backslashes, and bytes beyond ASCII, so also for broken UTF-8."""
    return "".join([_HEX[code] for code in raw])


def escape_json(raw: bytes) -> str:
    """Escape as inside a JSON string, in ASCII; broken UTF-8 becomes `\\\\xHH`."""
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
    """Text of several lines without other line ends, and without characters that command a terminal."""
    return text if text.isprintable() else text.translate(_PRINTABLE)


class Escaper(dict[bytes | str | int, str]):
    """`escaper[value]` is the value, safe inside a line; the escaped form is at most `longest` characters long.

    It is a dict with `__missing__`, so that a remembered value is found without a call of Python code.
    """

    __slots__ = ("_escape", "longest")

    def __init__(self, escape: Callable[[bytes], str], longest: int | None = None) -> None:
        super().__init__()
        self._escape = escape
        self.longest = longest

    def __missing__(self, value: bytes | str | int) -> str:
        """Escape the value, and remember it if it was plain and short."""
        if isinstance(value, int):  # a status: finding its text is quicker than making it
            raw = b"%d" % value
        else:
            raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else bytes(value)
        # translate() deletes the plain characters: nothing may be left. A regex takes three times as long.
        plain = not raw.translate(None, _PLAIN)
        safe = raw.decode("ascii") if plain else self._escape(raw)
        if self.longest is not None and len(safe) > self.longest:
            # An escape has at most six bytes (backslash, u, four digits), so a sixth of the characters always fits.
            safe = (safe[: self.longest] if plain else self._escape(raw[: self.longest // 6])) + "..."
        if plain and len(raw) <= _LONGEST:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[value] = safe
        return safe

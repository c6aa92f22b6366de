r"""Access lines: a format is compiled once into a function that makes one line.

Pure, run by workers once per request, so every operation here is paid for a hundred thousand times a second. A line is
text, because f-strings are a third quicker than `bytes %`; being ASCII, it is as many bytes long. The rules:

* Nothing that a client sent reaches a line but through `Escaper`; lines are printable ASCII. What could end or split
  a line (control characters, quotes, backslashes, anything beyond ASCII, so also broken UTF-8) becomes `\xHH`, or
  JSON's own escapes.
* The compiled source contains no text of the user's but literals, by `repr`; header names are constants beside it.

Formats: `combined` (the default; the same as gunicorn's default), `common`, `json`, or any text with the atoms of
gunicorn (https://docs.gunicorn.org/en/stable/settings.html#access-log-format), each as `%(x)s`:

    h client address        l "-"                  u user of HTTP Basic      t time in CLF form
    r request line          m method               U path                    q query, without "?"
    H protocol              s status               B bytes of body           b the same, "-" for none
    f referer               a user agent           T seconds, whole          M milliseconds, whole
    D microseconds, whole   L seconds, 6 places    p pid in <>
    {name}i request field   {name}o response field {name}e CGI variable (remote_addr, http_x, ...) or key of the scope

The JSON object has `time` (ISO 8601), `client`, `user`, `method`, `target`, `protocol`, `status`, `bytes`, `duration`
(seconds), `referer`, `user_agent`, `request_id`; numbers are numbers, what is missing is "".

WebSockets write two lines: method GET with status 101 when open, and method WEBSOCKET with the close code as status,
the bytes sent and the whole duration when closed.
"""

import base64
import binascii
import difflib
import json
import re
from codecs import charmap_decode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from aserver.errors import ConfigError


class Record(Protocol):
    """A finished request, as `protocol` has it; taken apart during the call, not kept."""

    @property
    def client(self) -> tuple[str, int] | None:
        """None for unix sockets."""

    @property
    def method(self) -> str: ...
    @property
    def target(self) -> bytes:
        """As the client sent it, with the query."""

    @property
    def version(self) -> str:
        """Such as "1.1"."""

    @property
    def status(self) -> int: ...
    @property
    def sent(self) -> int:
        """Bytes of body."""

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """Names in lower case."""

    @property
    def response_headers(self) -> Sequence[tuple[bytes, bytes]]: ...
    @property
    def duration(self) -> float:
        """Seconds."""

    @property
    def scope(self) -> Any:
        """The ASGI scope, or None where there was none."""


Compiled = Callable[[Record, str], str]
#: Local year, month, day, hour, minute, second, and the offset from UTC in seconds.
When = tuple[int, int, int, int, int, int, int]


class Formatter(NamedTuple):
    """`line(record, time)` makes a line, `stamp` the text of a time, `shortened` a line where `line`'s is too long."""

    line: Compiled
    stamp: Callable[[When], str]
    shortened: Compiled


# ── escaping ─────────────────────────────────────────────────────────────────────────────────

_PLAIN = bytes(code for code in range(0x20, 0x7F) if code not in b'"\\')
#: For charmap_decode, which refuses what is mapped to U+FFFE, or not at all.
_PLAIN_MAP = "".join(chr(code) if code in _PLAIN else "\ufffe" for code in range(256))
_NO_MAP = "\ufffe" * 256
_HEX = [chr(code) if code in _PLAIN else f"\\x{code:02x}" for code in range(256)]
#: Values that need no escape are remembered, because browsers repeat themselves: a lookup takes 60 ns, a check 250.
#: 1024 of at most 256 bytes are less than 0.5 MB, whatever clients send.
_REMEMBERED, _LONGEST = 1024, 256


def _escape_text(raw: bytes) -> str:
    return "".join([_HEX[code] for code in raw])


def _escape_json(raw: bytes) -> str:
    return json.dumps(raw.decode("utf-8", "backslashreplace"))[1:-1]


class Escaper:
    """`escaper[value]` is the value, safe inside a line; the escaped form is at most `longest` characters long.

    `known` has what was escaped before: a line is made with that alone first, and with the escaper if that fails,
    because looking into a plain dict takes half the time.
    """

    __slots__ = ("_escape", "known", "longest")

    def __init__(self, escape: Callable[[bytes], str], longest: int | None = None) -> None:
        self._escape = escape
        self.known: dict[bytes | str | int, str] = {}
        self.longest = longest

    def __getitem__(self, value: bytes | str | int) -> str:
        if value in self.known:
            return self.known[value]
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
            if len(self.known) >= _REMEMBERED:
                self.known.clear()
            self.known[value] = safe
        return safe


# ── what stands for an atom ──────────────────────────────────────────────────────────────────


def _user(authorization: bytes) -> bytes:
    """Return the user of HTTP Basic (RFC 7617), or b"". A space in it would shift the columns."""
    if authorization[:6].lower() != b"basic ":
        return b""
    try:
        return base64.b64decode(authorization[6:].strip(), validate=True).partition(b":")[0].replace(b" ", b"+")
    except binascii.Error:
        return b""


_CGI: Mapping[str, Callable[[Record], bytes | str]] = {
    "remote_addr": lambda record: record.client[0] if record.client else "",
    "remote_port": lambda record: str(record.client[1]) if record.client else "",
    "request_method": lambda record: record.method,
    "raw_uri": lambda record: record.target,
    "path_info": lambda record: record.target.partition(b"?")[0],
    "query_string": lambda record: record.target.partition(b"?")[2],
    "server_protocol": lambda record: f"HTTP/{record.version}",
    "script_name": lambda record: str((record.scope or {}).get("root_path", "")),
}


def _variable(name: str) -> Callable[[Record], bytes | str]:
    if name in _CGI:
        return _CGI[name]
    if name.startswith("http_"):
        field = name[5:].replace("_", "-").encode("latin-1", "replace")
        return lambda record: next((value for key, value in record.headers if key == field), b"")
    return lambda record: str((record.scope or {}).get(name, ""))


#: Where a value goes in a template; literals cannot hold it, since control characters in them are escaped.
_SLOT = "\0"
#: Atom: what it puts into the template, and the expressions for it; names in them are bound by `_compile`'s prologue.
_ATOMS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "h": ("\0", ("escape[client[0]] if client else DASH",)),
    "l": ("-", ()),
    "u": ("\0", ("DASH if {authorization}i is MISSING else escape[user({authorization}i)] or DASH",)),
    "t": ("\0", ("time",)),
    "r": ("\0 \0 HTTP/\0", ("escape[method]", "text", "escape[version]")),
    "m": ("\0", ("escape[method]",)),
    "U": ("\0", ("escape[target.partition(QUESTION)[0]]",)),
    "q": ("\0", ("escape[target.partition(QUESTION)[2]]",)),
    "H": ("HTTP/\0", ("escape[version]",)),
    "s": ("\0", ("escape[record.status]",)),
    "B": ("\0", ("record.sent",)),
    "b": ("\0", ("record.sent or DASH",)),
    "f": ("\0", ("escape[{referer}i]",)),
    "a": ("\0", ("escape[{user-agent}i]",)),
    "T": ("\0", ("int(record.duration)",)),
    "M": ("\0", ("int(record.duration * 1e3)",)),
    "D": ("\0", ("int(record.duration * 1e6)",)),
    "L": ("\0", ("record.duration:.6f",)),
    "p": ("<\0>", ("pid",)),
}
_NAMED = re.compile(r"\{([^{}]+)\}([ioe])")
_TOKEN = re.compile(r"%%|%\(([^()]*)\)([a-zA-Z]?)|%|[^%]+")

_FORMATS = {
    "common": '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s',
    "combined": '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"',
}
_JSON: tuple[str, tuple[str, ...]] = (
    (
        '{"time":"\0","client":"\0","user":"\0","method":"\0","target":"\0","protocol":"HTTP/\0","status":\0,'
        '"bytes":\0,"duration":\0,"referer":"\0","user_agent":"\0","request_id":"\0"}\n'
    ),
    (
        "time",
        "escape[client[0]] if client else NOTHING",
        "NOTHING if {authorization}i is MISSING else escape[user({authorization}i)]",
        "escape[method]",
        "text",
        "escape[version]",
        "escape[record.status]",
        "record.sent",
        "record.duration:.6f",
        "escape[{referer}i]",
        "escape[{user-agent}i]",
        "escape[{request_id}e]",
    ),
)


def compile_format(text: str, *, pid: int = 0, limit: int | None = None) -> Formatter:
    """Compile an `access_log_format`. `limit` is what the sink takes at once (bytes), for `shortened`.

    Raises ConfigError that names an unknown atom and the nearest known one.
    """
    if text == "json":
        template, expressions = _JSON
        escape, stamp, missing = _escape_json, iso_time, b""
    else:
        template, expressions = _parse(_FORMATS.get(text, text))
        escape, stamp, missing = _escape_text, clf_time, b"-"
    # What can be long gets an even share of what the template and the other values leave; 64 is more than those need.
    long = sum(bool(re.search(r"\b(target|text)\b|[{]", expression)) for expression in expressions)
    share = max(64, ((limit or 1 << 20) - len(template) - 64 * (len(expressions) - long)) // max(1, long))
    return Formatter(
        _compile(template, expressions, Escaper(escape), missing, pid),
        stamp,
        _compile(template, expressions, Escaper(escape, share - 3), missing, pid),
    )


def _parse(source: str) -> tuple[str, tuple[str, ...]]:
    template: list[str] = []
    expressions: list[str] = []
    for match in _TOKEN.finditer(source):
        text, atom, conversion = match[0], match[1], match[2]
        if atom is None:
            if text == "%":
                raise ConfigError(
                    f"access_log_format: `%` at character {match.start()} begins no atom; write %% for a percent sign"
                )
            literal = "%" if text == "%%" else text.encode("ascii", "backslashreplace").decode("ascii")
            template.append(re.sub(r"[\x00-\x1f\x7f]", lambda bad: f"\\x{ord(bad[0]):02x}", literal))
        elif conversion != "s":
            raise ConfigError(f"access_log_format: `{text}` must end in `s`: %({atom})s")
        elif atom in _ATOMS:
            piece, values = _ATOMS[atom]
            template.append(piece)
            expressions.extend(values)
        elif _NAMED.fullmatch(atom):
            template.append(_SLOT)
            expressions.append(f"escape[{atom.lower()}]")
        else:
            known = [*_ATOMS, "{header}i", "{header}o", "{variable}e"]
            # Letters differ most often by case; difflib does not see that two single letters are near.
            near = [name for name in known if name.lower() == atom.lower()] or difflib.get_close_matches(atom, known, 1)
            hint = f"did you mean %({near[0]})s?" if near else f"known are {' '.join(known)}"
            raise ConfigError(f"access_log_format: there is no atom %({atom})s; {hint}")
    return "".join(template) + "\n", tuple(expressions)


def _compile(template: str, expressions: Sequence[str], escape: Escaper, missing: bytes, pid: int) -> Compiled:
    """Make the function. Header names become variables that one pass over the header list fills."""
    namespace: dict[str, Any] = {
        "escape": escape,
        "careful": _give_up,
        "user": _user,
        "pid": pid,
        "DASH": "-",
        "NOTHING": "",
        "QUESTION": b"?",
        "decode": charmap_decode,
        # For short lines no target counts as plain, so that each is measured.
        "PLAIN": _PLAIN_MAP if escape.longest is None else _NO_MAP,
        "MISSING": missing,
    }
    loops: dict[str, list[str]] = {"i": [], "o": []}

    def bind(match: re.Match[str]) -> str:
        name, kind = match[1], match[2]
        if kind == "e":
            number = len(namespace)
            namespace[f"variable{number}"] = _variable(name)
            return f"variable{number}(record) or MISSING"
        if name not in loops[kind]:
            loops[kind].append(name)
        return f"{kind}{loops[kind].index(name)}"

    values = [_NAMED.sub(bind, expression) for expression in expressions]
    source = _prologue(" ".join(values), needs_headers=bool(loops["i"]))
    for kind, headers in (("i", "headers"), ("o", "record.response_headers")):
        names = loops[kind]
        if not names:
            continue
        source.append(f" {' = '.join(f'{kind}{number}' for number in range(len(names)))} = MISSING")
        source.append(f" for name, value in {headers}:")
        if kind == "o":
            source.append("  name = name.lower()")  # the application's, in any case
        # One look for the many fields that are not asked for: their names are shared, so the hashes are known.
        namespace[f"NAMES_{kind}"] = frozenset(name.encode("latin-1", "replace") for name in names)
        source.append(f"  if name in NAMES_{kind}:")
        for number, name in enumerate(names):
            namespace[f"NAME_{kind}{number}"] = name.encode("latin-1", "replace")
            source.append(f"   {'if' if number == 0 else 'elif'} name == NAME_{kind}{number}:")
            source.append(f"    {kind}{number} = value or MISSING")
    # Strings side by side are one constant to Python's compiler.
    literals = map(repr, template.split(_SLOT))
    line = " ".join([next(literals), *(f'f"{{{value}}}" {next(literals)}' for value in values)])
    source.append(f" return {line}")
    body = [" try:", *(f" {each}" for each in source), " except KeyError:", "  return careful(record, time)"]
    # Compiled rather than composed of closures: one call instead of one per atom. Of the user's, it has only literals.
    code = compile("\n".join(["def line(record, time):", *body]), "<access_log_format>", "exec")
    exec(code, namespace)  # noqa: S102
    careful: Compiled = namespace["line"]
    hasty = {**namespace, "escape": escape.known, "careful": careful}
    exec(code, hasty)  # noqa: S102
    made: Compiled = hasty["line"]
    return made


def _give_up(record: Record, time: str) -> str:  # noqa: ARG001 - in the place of a compiled function
    raise LookupError("its scope lacks a key")


def _prologue(used: str, *, needs_headers: bool) -> list[str]:
    """Fetch from the scope, where there is one, what would otherwise be a property each (100 ns)."""
    wanted = {
        "client": ("client", re.search(r"\bclient\b", used)),
        "method": ("method", re.search(r"\bmethod\b", used)),
        "target": ("", re.search(r"\b(target|text)\b", used)),
        "version": ("http_version", re.search(r"\bversion\b", used)),
        "headers": ("headers", needs_headers),
    }
    text = re.search(r"\btext\b", used)
    names = [(name, key) for name, (key, needed) in wanted.items() if needed]
    if not names:
        return []
    fetch = {name: f"scope[{key!r}]" for name, key in names}
    fetch["target"] = "record.target"
    fetch["method"] = "scope['method'] if 'method' in scope else record.method"  # a WebSocket's scope has none
    return [
        " scope = record.scope",
        " if scope is None:",
        *(f"  {name} = record.{name}" for name, _ in names),
        " else:",
        *(f"  {name} = {fetch[name]}" for name, _ in names),
        # Targets differ too much to be remembered, and most are short and plain: one look that is also the decoding.
        *([" try:", "  text = decode(target, 'strict', PLAIN)[0]"] if text else []),
        *([" except UnicodeDecodeError:", "  text = escape[target]"] if text else []),
    ]


# ── time ─────────────────────────────────────────────────────────────────────────────────────

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _offset(seconds: int) -> tuple[str, int, int]:
    hours, minutes = divmod(abs(seconds) // 60, 60)
    return "-" if seconds < 0 else "+", hours, minutes


def clf_time(when: When) -> str:
    """Return `[21/Nov/2026:12:01:07 +0100]`: English whatever the locale, as log readers expect."""
    year, month, day, hour, minute, second, offset = when
    sign, hours, minutes = _offset(offset)
    zone = f"{sign}{hours:02d}{minutes:02d}"
    return f"[{day:02d}/{_MONTHS[month - 1]}/{year:04d}:{hour:02d}:{minute:02d}:{second:02d} {zone}]"


def iso_time(when: When) -> str:
    """Return `2026-11-21T12:01:07+01:00` (RFC 3339)."""
    year, month, day, hour, minute, second, offset = when
    sign, hours, minutes = _offset(offset)
    zone = f"{sign}{hours:02d}:{minutes:02d}"
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}{zone}"

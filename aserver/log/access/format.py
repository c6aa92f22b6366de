r"""Access lines: a format is compiled once into a function that makes a line.

Pure, run by workers once per request, so every operation here is paid for a hundred thousand times a second. A line is
text, because f-strings are a third quicker than `bytes %`. It is ASCII, so its length is also that in bytes. The rules:

* Clients' bytes reach a line only through `Escaper`; lines are printable ASCII. Characters that could end or split a
  line (control characters, quotes, backslashes, bytes beyond ASCII, so also broken UTF-8) become `\xHH`, or JSON's own
  escapes.
* The compiled source contains no text of the user's but literals, by `repr`; header names are constants beside it.
* Texts that depend on the client and its fields alone are kept by the connection, for as long as they stay the same.

Formats: `combined` (the default; the same as gunicorn's default), `common`, `json`, or any text with the atoms of
gunicorn (https://docs.gunicorn.org/en/stable/settings.html#access-log-format), each as `%(x)s`:

    h client address        l "-"                  u user of HTTP Basic      t time in CLF form
    r request line          m method               U path                    q query, without "?"
    H protocol              s status               B bytes of body           b the same, "-" for none
    f referer               a user agent           T seconds, whole          M milliseconds, whole
    D microseconds, whole   L seconds, 6 places    p pid in <>
    {name}i request field   {name}o response field {name}e CGI variable (remote_addr, http_x, ...) or key of the scope
                                                   {trace_id}e of `traceparent`

The JSON object has `time` (ISO 8601), `client`, `user`, `method`, `target`, `protocol`, `status`, `bytes`, `duration`
(seconds), `referer`, `user_agent`, `request_id`, `trace_id`; numbers are numbers, and a missing value is "".

WebSockets write two lines: method GET with status 101 when open, and method WEBSOCKET with the close code as status,
the bytes sent and the whole duration when closed.
"""

import base64
import binascii
import re
from codecs import charmap_decode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from aserver.errors import ConfigError
from aserver.log.access.escape import NO_MAP, PLAIN_MAP, Escaper, escape_json, escape_text
from aserver.log.access.record import MOST_KEPT, AccessRecord
from aserver.log.access.timestamp import When, clf_time, clock_time, dim_time, iso_time

Compiled = Callable[[Sequence[AccessRecord], str], list[str]]
Texts = Callable[[object, Sequence[tuple[bytes, bytes]]], tuple[str, str]]


class Formatter(NamedTuple):
    """`lines(records, time)` makes lines, `shortened` shorter lines where those are too long.

    `stamp` makes the text of a time. `timed`: lines have a duration, so it must be measured.
    """

    lines: Compiled
    stamp: Callable[[When], str]
    shortened: Compiled
    timed: bool
    plain: tuple[Texts, Escaper] | None  # see `PlainLines`; None for other formats


# ── the atoms ────────────────────────────────────────────────────────────────────────────────


def _user(authorization: bytes) -> bytes:
    """Return the user of HTTP Basic (RFC 7617), or b"". A space in it would shift the columns."""
    if authorization[:6].lower() != b"basic ":
        return b""
    try:
        return base64.b64decode(authorization[6:].strip(), validate=True).partition(b":")[0].replace(b" ", b"+")
    except binascii.Error:
        return b""


_TRACE = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


def _trace_id(traceparent: bytes) -> bytes:
    """Return the trace id of W3C's Trace Context, or b"" where the field makes no sense."""
    found = _TRACE.fullmatch(traceparent)
    return found[1] if found is not None else b""


_CGI: Mapping[str, Callable[[AccessRecord], bytes | str]] = {
    "remote_addr": lambda record: record.client[0] if record.client else "",
    "remote_port": lambda record: str(record.client[1]) if record.client else "",
    "request_method": lambda record: record.method,
    "raw_uri": lambda record: record.target,
    "path_info": lambda record: record.target.partition(b"?")[0],
    "query_string": lambda record: record.target.partition(b"?")[2],
    "server_protocol": lambda record: record.version and f"HTTP/{record.version}",
    "request_id": lambda record: record.request_id or "",
    "trace_id": lambda record: _trace_id(next((v for k, v in record.headers if k == b"traceparent"), b"")),
    "script_name": lambda record: str((record.scope or {}).get("root_path", "")),
}


def _variable(name: str) -> Callable[[AccessRecord], bytes | str]:
    if name in _CGI:
        return _CGI[name]
    if name.startswith("http_"):
        field = name[5:].replace("_", "-").encode("latin-1", "replace")
        return lambda record: next((value for key, value in record.headers if key == field), b"")
    return lambda record: str((record.scope or {}).get(name, ""))


#: Numbers as text: most bodies are small, and making the text takes 70 ns.
_SIZES = tuple(map(str, range(1024)))
#: The value that most requests have is compared, which takes 8 ns; a look-up takes 27.
_METHOD = "method if method == 'GET' else escape[method]"
_PROTOCOL = "'HTTP/1.1' if version == '1.1' else version and 'HTTP/' + escape[version]"
#: A request line that could not be read has neither method nor target nor version: it is `-`, as in nginx.
_REQUEST_LINE = (
    "'GET ' if method == 'GET' else method and escape[method] + ' '",
    "text or DASH",
    "' HTTP/1.1' if version == '1.1' else version and ' HTTP/' + escape[version]",
)
_STATUS = "'200' if status == 200 else escape[status]"
_BYTES = "SIZES[sent] if sent < KNOWN_SIZES else sent"
#: The place of a value in a template. Literals cannot hold this character, because it is escaped in them.
_SLOT = "\0"
#: Atom: its piece of the template, and the expressions for its values. `_compile` binds the names in them.
_ATOMS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "h": ("\0", ("escape[client[0]] if client else DASH",)),
    "l": ("-", ()),
    "u": ("\0", ("DASH if {authorization}i is MISSING else escape[user({authorization}i)] or DASH",)),
    "t": ("\0", ("time",)),
    "r": ("\0\0\0", _REQUEST_LINE),
    "m": ("\0", (_METHOD,)),
    "U": ("\0", ("escape[target.partition(QUESTION)[0]]",)),
    "q": ("\0", ("escape[target.partition(QUESTION)[2]]",)),
    "H": ("\0", (f"({_PROTOCOL}) or DASH",)),
    "s": ("\0", (_STATUS,)),
    "B": ("\0", (_BYTES,)),
    "b": ("\0", ("SIZES[sent] if 0 < sent < KNOWN_SIZES else sent or DASH",)),
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
        '{"time":"\0","client":"\0","user":"\0","method":"\0","target":"\0","protocol":"\0","status":\0,'
        '"bytes":\0,"duration":\0,"referer":"\0","user_agent":"\0","request_id":"\0",'
        '"trace_id":"\0"}\n'
    ),
    (
        "time",
        "escape[client[0]] if client else NOTHING",
        "NOTHING if {authorization}i is MISSING else escape[user({authorization}i)]",
        _METHOD,
        "text",
        _PROTOCOL,
        _STATUS,
        _BYTES,
        "record.duration:.6f",
        "escape[{referer}i]",
        "escape[{user-agent}i]",
        "escape[{request_id}e]",
        "NOTHING if {traceparent}i is MISSING else escape[trace_id({traceparent}i)]",
    ),
)


#: For a developer's terminal, whose own lines have the same time in front.
_SHORT: tuple[str, tuple[str, ...]] = (
    "\0 \0 \0 \0 \0 ms\n",
    ("time", "paint(status)", _METHOD, "text", "record.duration * 1e3:.1f"),
)


def _paint(status: int) -> str:
    return f"\x1b[{_PAINTS.get(status // 100, 31)}m{status}\x1b[0m"


_PAINTS = {1: 36, 2: 32, 3: 36, 4: 33}


def compile_format(text: str, *, pid: int = 0, limit: int | None = None, colour: bool = False) -> Formatter:
    """Compile an `access_log_format`. Lines of `shortened` have at most `limit` bytes, which the sink takes at once.

    Raises ConfigError that names an unknown atom and the nearest known atom.
    """
    if text == "json":
        template, expressions = _JSON
        escape, stamp, missing = escape_json, iso_time, b""
    elif text == "short":
        template, expressions = _SHORT
        escape, stamp, missing = escape_text, dim_time if colour else clock_time, b"-"
    else:
        template, expressions = _parse(_FORMATS.get(text, text))
        escape, stamp, missing = escape_text, clf_time, b"-"
    # Template and short values need less than 64 bytes a value. The long values share the rest evenly.
    long = sum(bool(re.search(r"\b(target|text)\b|\{(?!traceparent)", expression)) for expression in expressions)
    share = max(64, ((limit or 1 << 20) - len(template) - 64 * (len(expressions) - long)) // max(1, long))
    paint = _paint if colour else str
    escaper = Escaper(escape)
    lines, steady = _compile(template, expressions, escaper, missing, pid, paint=paint)
    return Formatter(
        lines,
        stamp,
        _compile(template, expressions, Escaper(escape, share - 3), missing, pid, paint=paint)[0],
        any("duration" in expression for expression in expressions),
        (_before_and_after(steady), escaper) if text in _FORMATS else None,
    )


def _before_and_after(steady: Callable[..., tuple[str, ...]]) -> Texts:
    """Return the function for the texts of `PlainLines`."""

    def texts(client: object, fields: Sequence[tuple[bytes, bytes]]) -> tuple[str, str]:
        before, *after = steady(client, fields)
        return before, after[0] if after else "\n"

    return texts


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
            import difflib  # noqa: PLC0415 - rarely needed, and a start waits for each import

            # The usual mistake in a letter is its case, and difflib does not see that "R" is near to "r".
            near = [name for name in known if name.lower() == atom.lower()] or difflib.get_close_matches(atom, known, 1)
            hint = f"did you mean %({near[0]})s?" if near else f"known are {' '.join(known)}"
            raise ConfigError(f"access_log_format: there is no atom %({atom})s; {hint}")
    return "".join(template) + "\n", tuple(expressions)


def _compile(
    template: str, expressions: Sequence[str], escape: Escaper, missing: bytes, pid: int, *, paint: Callable[[int], str]
) -> tuple[Compiled, Callable[..., tuple[str, ...]]]:
    """Make the function, and that of the texts which depend on the client and its fields alone.

    Header names become variables, and a single pass over the header list fills them all.
    """
    namespace: dict[str, Any] = {
        "escape": escape,
        "user": _user,
        "trace_id": _trace_id,
        "pid": pid,
        "paint": paint,
        "DASH": "-",
        "NOTHING": "",
        "QUESTION": b"?",
        "SIZES": _SIZES,
        "KNOWN_SIZES": len(_SIZES),
        "decode": charmap_decode,
        # For short lines no target counts as plain, so that the escaper measures each.
        "PLAIN": PLAIN_MAP if escape.longest is None else NO_MAP,
        "MISSING": missing,
        "remember": _remember,
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

    line, steady = _join(template.split(_SLOT), [_NAMED.sub(bind, each) for each in expressions], expressions)
    source = ["def steady(client, headers):", *_loop("headers", "i", loops["i"], namespace)]
    source.append(f" return ({''.join(f'{each}, ' for each in steady)})")
    source += ["def lines(records, time):", " made = []", " for record in records:"]
    body = _prologue(line, len(steady), keeps=escape.longest is None)
    body += _loop("record.response_headers", "o", loops["o"], namespace)
    source += [f" {each}" for each in (*body, f" made.append({line})")]
    source.append(" return made")
    # Compiled rather than composed of closures: so an atom or a line costs no call. The source has no text of the
    # user's but literals.
    exec(compile("\n".join(source), "<access_log_format>", "exec"), namespace)  # noqa: S102
    return namespace["lines"], namespace["steady"]


def _join(literals: Sequence[str], values: Sequence[str], expressions: Sequence[str]) -> tuple[str, list[str]]:
    """Source of a line, and of the texts in it between values that always change: `steady0`, `steady1`, ..."""
    line = text = ""
    steady: list[str] = []
    kept = False
    for number, literal in enumerate(literals):
        text += f"{literal!r} "  # Python's compiler makes a single constant of strings side by side
        value = f'f"{{{values[number]}}}" ' if number < len(values) else ""
        if value and _is_steady(expressions[number]):
            text += value
            kept = True
            continue
        if kept:
            steady.append(text)
            text = f'f"{{steady{len(steady) - 1}}}" '
            kept = False
        line += text + value
        text = ""
    return line, steady


def _is_steady(expression: str) -> bool:
    """Whether the value comes from the client's fields or address, which are mostly the same for each request."""
    names = _NAMED.findall(expression)
    return all(kind == "i" for _, kind in names) and bool(names or "client" in expression or expression == "pid")


def _loop(headers: str, kind: str, names: list[str], namespace: dict[str, Any]) -> list[str]:
    """Source that fills the variables of header names."""
    if not names:
        return []
    source = [f" {' = '.join(f'{kind}{number}' for number in range(len(names)))} = MISSING"]
    source.append(f" for name, value in {headers}:")
    if kind == "o":
        source.append("  name = name.lower()")  # the application may write it in capitals
    # A single look-up leaves out the many fields that the format does not name. Names are shared, so hashes are known.
    namespace[f"NAMES_{kind}"] = frozenset(name.encode("latin-1", "replace") for name in names)
    source.append(f"  if name in NAMES_{kind}:")
    for number, name in enumerate(names):
        namespace[f"NAME_{kind}{number}"] = name.encode("latin-1", "replace")
        source.append(f"   {'if' if number == 0 else 'elif'} name == NAME_{kind}{number}:")
        source.append(f"    {kind}{number} = value or MISSING")
    return source


def _prologue(used: str, steady: int, *, keeps: bool) -> list[str]:
    """Source that fetches the values of a line."""
    steadies = ", ".join(f"steady{number}" for number in range(steady))
    source = []
    if steady:
        source = [" client = record.client", " headers = record.headers"]
    if steady and keeps:
        source += [
            " connection = record.connection",
            " logged = None if connection is None else connection.logged",
            " if logged is None or (logged[0] is not headers and logged[0] != headers) or logged[1] is not client:",
            "  logged = remember(connection, client, headers, steady(client, headers))",
            f" _, _, {steadies} = logged",
        ]
    elif steady:
        source.append(f" {steadies}, = steady(client, headers)")
    for name in ("method", "version", "status", "sent", "target"):
        if re.search(rf"\b({'target|text' if name == 'target' else name})\b", used):
            source.append(f" {name} = record.{name}")
    if re.search(r"\btext\b", used):
        # Targets differ too much to be remembered, and most are short and plain. Decoding also checks it.
        source += [" try:", "  text = decode(target, 'strict', PLAIN)[0]"]
        source += [" except UnicodeDecodeError:", "  text = escape[target]"]
    return source


_Fields = Sequence[tuple[bytes, bytes]]


def _remember(connection: Any, client: object, headers: _Fields, texts: tuple[str, ...]) -> tuple[object, ...]:
    """Keep the texts of a connection's first request; keep none once a request has other fields, as behind a proxy."""
    made = (headers, client, *texts)
    if connection is not None:
        small = connection.logged is None and sum(len(name) + len(value) for name, value in headers) <= MOST_KEPT
        connection.logged = made if small else (None,)
    return made

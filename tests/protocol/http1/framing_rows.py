"""Raw requests with the answer that RFC 9110 and 9112 (or a stricter reading of ours) want, by section."""

import re
from collections.abc import Iterator
from typing import NamedTuple

#: What follows a row's bytes: no answer may ever be to this, where the row is refused or closes.
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n"

HOST = b"Host: t"
CHUNKED = b"Transfer-Encoding: chunked"
WEBSOCKET = (b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")


_CLOSE = re.compile(rb"(?im)^connection:(?:[^\r\n]*,)?[ \t]*close[ \t]*(?:,|\r)")


class Row(NamedTuple):
    """One raw request. `wanted` is the status of the refusal, or what the application must be asked, in order."""

    section: str
    name: str
    raw: bytes
    wanted: int | tuple[bytes, ...]

    @property
    def closes(self) -> bool:
        """Whether no other request may follow."""
        heads = self.raw.replace(b"0\r\nConnection: close", b"")  # in trailers it means nothing
        return isinstance(self.wanted, int) or _CLOSE.search(heads) is not None or b" HTTP/1.0" in heads


def head(*lines: bytes, start: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"\r\n".join((start, *lines, b"", b""))


def post(*lines: bytes) -> bytes:
    return head(HOST, *lines, start=b"POST / HTTP/1.1")


def asked(body: bytes = b"", *, method: bytes = b"POST", path: bytes = b"/?", host: bytes = b"t") -> tuple[bytes, ...]:
    return (b"%s %s %s 1.1 %s" % (method, path, host, body),)


def rows() -> Iterator[Row]:
    """All of them; names are unique within a section."""
    for section, lines in (
        ("9112-2.2 empty lines", _empty_lines()),
        ("9112-2.2 line ends", _line_ends()),
        ("9112-3 request line", _request_lines()),
        ("9110-9.1 methods", _methods()),
        ("9112-2.3 versions", _versions()),
        ("9112-3.2 targets", _targets()),
        ("9110-7.2 Host", _hosts()),
        ("9112-5 fields", _fields()),
        ("9110-5.5 values", _values()),
        ("9112-6.2 Content-Length", _lengths()),
        ("9112-6.1 Transfer-Encoding", _codings()),
        ("9112-7.1 chunks", _chunks()),
        ("9112-7.1.1 extensions", _extensions()),
        ("9112-7.1.2 trailers", _trailers()),
        ("9110-10.1.1 Expect", _expectations()),
        ("9112-9 connections", _connections()),
    ):
        for name, raw, wanted in lines:
            yield Row(section, name, raw, wanted)


Lines = Iterator[tuple[str, bytes, int | tuple[bytes, ...]]]

GET = head(HOST)
GOT = asked(method=b"GET")


def _empty_lines() -> Lines:
    yield "none", GET, GOT
    for count in (1, 2, 5):
        yield f"{count} empty", b"\r\n" * count + GET, GOT
    for before in (
        b"\n",
        b"\r",
        b"\r\r\n",
        b"\n\r\n",
        b"\r\n\n",
        b"\r\n\r",
        b"\r\n\n\r\n\r\n",
        b" ",
        b"\t",
        b" \r\n",
        b"\0",
    ):
        yield f"{before!r} first", before + GET, 400
    yield "empty line between two", GET + b"\r\n" + GET, GOT * 2
    yield "two empty lines between two", GET + b"\r\n\r\n" + GET, GOT * 2
    yield "LF between two", head(HOST, b"X: y") + b"\n" + GET, (*GOT, b"400")
    yield "CR between two", GET + b"\r" + GET, (*GOT, b"400")
    yield "CR LF LF CR LF CR LF between two", GET + b"\n\r\n\r\n" + GET, (*GOT, b"400")
    for behind in (b"\n\r\n\r\n", b"\r\r\n\r\n", b"\r\n\n\r\n\r\n"):
        yield f"{behind!r} behind", GET + behind, (*GOT, b"400")
    yield "empty lines behind", GET + b"\r\n\r\n", GOT
    yield "empty line behind a body", post(b"Content-Length: 1") + b"a\r\n" + GET, (*asked(b"a"), *GOT)
    yield "byte order mark", b"\xef\xbb\xbf" + GET, 400


def _line_ends() -> Lines:
    for end in (b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"\0\r\n", b" \r\n", b"\t\r\n", b"\x0b\r\n"):
        yield f"request line ends {end!r}", b"GET / HTTP/1.1" + end + b"Host: t\r\n\r\n", 400
    for end in (b"\n", b"\r", b"\r\r\n", b"\n\n"):
        yield f"field ends {end!r}", b"GET / HTTP/1.1\r\nHost: t" + end + b"A: b\r\n\r\n", 400
    for end in (b"\n", b"\r", b"\r\r\n", b"\r\n\n"):
        yield (
            f"head ends {end!r}",
            b"GET / HTTP/1.1\r\nHost: t\r\nA: b\r\n" + end + b"X: y\r\n\r\n",
            400 if end != b"\r\n\n" else (*asked(method=b"GET"), b"400"),
        )
    yield "LF everywhere", b"GET / HTTP/1.1\nHost: t\n\n", 400
    yield "bad chunks to HEAD", head(HOST, CHUNKED, start=b"HEAD / HTTP/1.1") + b"1\r\nab", 400
    yield "LF at the end of a body", post(CHUNKED) + b"1\na\n0\n\n", 400


def _request_lines() -> Lines:
    for line in (
        b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b"GET   /   HTTP/1.1", b"GET\t/ HTTP/1.1", b"GET /\tHTTP/1.1",
        b"GET / HTTP/1.1 ", b"GET / HTTP/1.1 x", b" GET / HTTP/1.1", b"GET / HTTP/1.1\x0b", b"GET\x0b/ HTTP/1.1",
        b"GET\xa0/ HTTP/1.1", b"GET", b"GET ", b"GET /", b"GET / ", b"/ HTTP/1.1", b"HTTP/1.1", b"GET HTTP/1.1",
        b"GET / HTTP", b"GET / HTTP/", b"GET / HTTP/1", b"GET / HTTP/1.", b"GET / HTTP/.1", b"GET / HTTP/1,1",
        b"GET / HTTP 1.1", b"GET / HTTP/ 1.1", b"GET / http/1.1", b"GET / Http/1.1", b"GET / HTTPS/1.1",
        b"GET / HTTP/x.y", b"GET / HTTP/-1.1", b"GET / HTTP/1.1.1", b"GET / HTTP/1.10", b"GET / HTTP/01.1",
        b"GET / HTTP/11.1", b"GET / ICE/1.0", b"SOURCE / ICE/1.1", b"OPTIONS / RTSP/1.0", b"OPTIONS * RTSP/1.0",
        b"DESCRIBE / RTSP/1.0", b"GET / RTSP/1.1", b"GET / SHTTP/1.1", b"GET / HTTP/1.1\x00", b"GET / HTTP/\xb2.1",
    ):  # fmt: skip
        yield repr(line), line + b"\r\nHost: t\r\n\r\n", 400


def _methods() -> Lines:
    for method in (
        b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH", b"QUERY", b"PROPFIND", b"REPORT",
        b"M-SEARCH", b"SOURCE", b"BREW", b"X", b"GETT", b"GE", b"get", b"Get", b"PRI", b"DESCRIBE", b"SETUP", b"PLAY",
        b"!#$%&'*+-.^_`|~09", b"G" * 300,
    ):  # fmt: skip
        wanted = () if method == b"HEAD" else asked(method=method)
        yield f"{method[:20]!r}", head(HOST, start=method + b" / HTTP/1.1"), wanted or (b"",)
        if method != b"HEAD":
            raw = head(HOST, b"Content-Length: 1", start=method + b" / HTTP/1.1") + b"a"
            yield f"{method[:20]!r} with body", raw, asked(b"a", method=method)
    yield "1024 bytes", head(HOST, start=b"G" * 1024 + b" / HTTP/1.1"), asked(method=b"G" * 1024)
    yield "1025 bytes", head(HOST, start=b"G" * 1025 + b" / HTTP/1.1"), 501
    yield "8180 bytes", head(HOST, start=b"G" * 8180 + b" / HTTP/1.1"), 501
    yield "100 KB", head(HOST, start=b"G" * 100_000 + b" / HTTP/1.1"), 501
    yield "endless", b"G" * 100_000, 501
    yield "2 KB and no method", head(HOST, start=b"G" * 2000 + b"\0 / HTTP/1.1"), 501
    yield "1 KB and no method", head(HOST, start=b"G" * 1000 + b"\0" * 1000 + b" / HTTP/1.1"), 400
    for method in (b"G(T", b"G@T", b'G"T', b"G\x7fT", b"G\xe9T", b"G\0T", b"G/T", b"{GET}", b"GET,", b"G;T", b"[GET]"):
        yield repr(method), head(HOST, start=method + b" / HTTP/1.1"), 400
    for target in (b"t:443", b"t", b"/", b"http://t/", b"*"):
        yield f"CONNECT {target!r}", head(HOST, start=b"CONNECT %s HTTP/1.1" % target), 501
    yield "CONNECT in 1.0", b"CONNECT t:443 HTTP/1.0\r\n\r\n", 501


def _versions() -> Lines:
    for version in (b"0.9", b"1.2", b"1.9", b"2.0", b"2.1", b"3.0", b"0.0", b"9.9", b"0.1"):
        yield version.decode(), head(HOST, start=b"GET / HTTP/" + version), 505
        yield (
            version.decode() + " with body",
            head(HOST, b"Content-Length: 1", start=b"POST / HTTP/" + version) + b"a",
            505,
        )
    yield "HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505
    yield "1.0", b"GET / HTTP/1.0\r\n\r\n", (b"GET /? - 1.0 ",)
    yield "1.0 with Host", b"GET / HTTP/1.0\r\nHost: t\r\n\r\n", (b"GET /? t 1.0 ",)
    yield "1.0 with empty Host", b"GET / HTTP/1.0\r\nHost:\r\n\r\n", (b"GET /?  1.0 ",)
    yield "1.0 with malformed Host", b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n", 400
    yield "1.0 with body", b"POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\na", (b"POST /? - 1.0 a",)
    yield "TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", 400


def _targets() -> Lines:
    for target, path in (
        (b"/a", b"/a?"), (b"/a?b", b"/a?b"), (b"/?", b"/?"), (b"/?a?b", b"/?a?b"), (b"//a", b"//a?"),
        (b"/%2e%2e/a", b"/%2e%2e/a?"),
        (b"/../a", b"/../a?"), (b"/%00", b"/%00?"), (b"/%zz", b"/%zz?"), (b"/a;b=c", b"/a;b=c?"),
        (b"/|{}^`\"<>\\", b"/|{}^`\"<>\\?"),
        (b"/a:b@c", b"/a:b@c?"), (b"/*", b"/*?"), (b"/http://x/", b"/http://x/?"),
    ):  # fmt: skip
        yield target.decode(), head(HOST, start=b"GET %s HTTP/1.1" % target), asked(method=b"GET", path=path)
    for target, path, host in (
        (b"http://u/a?b", b"/a?b", b"u"), (b"http://u", b"/?", b"u"), (b"http://u?b", b"/?b", b"u"),
        (b"HTTP://u:81/", b"/?", b"u:81"),
        (b"https://u/", b"/?", b"u"), (b"http://[::1]:81/a", b"/a?", b"[::1]:81"), (b"http://u//a", b"//a?", b"u"),
    ):  # fmt: skip
        raw = head(HOST, start=b"GET %s HTTP/1.1" % target)
        yield target.decode(), raw, asked(method=b"GET", path=path, host=host)
    for target in (
        b"*", b"a", b"?a", b"t:80", b"t", b"*a", b"/a#b", b"/#", b"/a b", b"/\xc3\xa9", b"/\x7f", b"/\x00", b"/a\x01",
        b"/a\tb", b"/\x80",
        b"http:/a", b"http:a", b"http://", b"http:///a", b"http://u@t/", b"http://u:p@t/", b"http://a b/",
        b"http://t#a", b"http://t/#a",
        b"http://:80/", b"http://t:x/", b"http://[::1/", b"http://a\\b/", b"ftp://t/", b"ws://t/", b"javascript:x",
        b"urn:a", b"://t/",
        b"http//t/", b"hTTp:\\\\t", b"\\a", b"%2fa", b"../a", b".", b"#",
    ):  # fmt: skip
        yield repr(target), head(HOST, start=b"GET %s HTTP/1.1" % target), 400
    yield "OPTIONS *", head(HOST, start=b"OPTIONS * HTTP/1.1"), asked(method=b"OPTIONS", path=b"*?")
    raw = head(HOST, start=b"OPTIONS http://u HTTP/1.1")
    yield "OPTIONS http://u", raw, asked(method=b"OPTIONS", path=b"*?", host=b"u")
    yield "OPTIONS /", head(HOST, start=b"OPTIONS / HTTP/1.1"), asked(method=b"OPTIONS")
    for method in (b"POST", b"HEAD", b"OPTION", b"TRACE"):
        yield f"{method.decode()} *", head(HOST, start=b"%s * HTTP/1.1" % method), 400
    yield "absolute without Host", head(start=b"GET http://u/ HTTP/1.1"), 400
    yield (
        "long",
        head(HOST, start=b"GET /%s HTTP/1.1" % (b"a" * (8190 - 14))),
        asked(method=b"GET", path=b"/%s?" % (b"a" * 8176)),
    )
    yield "too long", head(HOST, start=b"GET /%s HTTP/1.1" % (b"a" * (8190 - 13))), 414
    yield "far too long", head(HOST, start=b"GET /%s HTTP/1.1" % (b"a" * 100000)), 414


def _hosts() -> Lines:
    yield "none", head(), 400
    yield "none, with another", head(b"X: y"), 400
    yield "none, with Connection", head(b"Connection: keep-alive"), 400
    for host in (
        b"t", b"t:80", b"t:", b"a.example", b"a.example.", b"127.0.0.1", b"127.0.0.1:8000", b"[::1]", b"[::1]:80",
        b"xn--a", b"a_b",
        b"A-B.c", b"%41", b"a:65535", b"a!$&'()*+,;=b", b"[2001:db8::1]:443", b"[::ffff:1.2.3.4]",
    ):  # fmt: skip
        yield repr(host), head(b"Host: " + host), asked(method=b"GET", host=host)
    for host in (
        b"", b" ", b"a b", b"a/b", b"a?b", b"a#b", b"u@a", b"u:p@a", b"a:b", b"a:8o", b"a:-1", b"a:80:80", b"::1",
        b"[::1", b"::1]", b"[::1]a",
        b"[x]", b"a\\b", b"a\"b", b"<a>", b"a|b", b"a^b", b"{a}", b"a%4", b"a%zz", b"http://a", b":80", b"a\tb",
        b"\xe9", b"a,b c", b"a:123456",
    ):  # fmt: skip
        yield repr(host), head(b"Host: " + host), 400
    for first, second in ((b"t", b"t"), (b"t", b"u"), (b"", b"t"), (b"t", b"")):
        yield f"{first!r} and {second!r}", head(b"Host: " + first, b"Host: " + second), 400
        yield f"{first!r} and {second!r}, apart", head(b"Host: " + first, b"X: y", b"hOST: " + second), 400


def _fields() -> Lines:
    for line in (
        b"A : b", b"A\t: b", b" A: b", b"\tA: b", b": b", b"A", b"A b: c", b"A\0: b", b"A(: b", b"A\"B: c", b"A/B: c",
        b"A@: b", b"A\x7f: b",
        b"A\xe9: b", b"A\r: b", b"=", b"{A}: b", b"A,B: c", b"A;B: c", b"[A]: b", b"A\x0b: b", b"\x00: b", b"A\\: b",
        b"A=B",
    ):  # fmt: skip
        yield repr(line), head(HOST, line), 400
        yield f"{line!r}, before Host", head(line, HOST), 400
    for lines in ((b"A: b", b" c"), (b"A: b", b"\tc"), (b"A:", b" b"), (b"A: b", b" "), (b"A: b", b" ", b" c")):
        yield f"folded {lines!r}", head(HOST, *lines), 400
    for name in (b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Expect"):
        yield f"folded {name!r}", head(HOST, b"%s: t" % name, b" u"), 400
        yield f"space before the colon of {name!r}", head(HOST, b"%s : 1" % name), 400
    for line in (
        b"A: b",
        b"A:b",
        b"A:\tb",
        b"A: b ",
        b"A: \t b \t ",
        b"A:",
        b"A: ",
        b"!#$%&'*+-.^_`|~: b",
        b"0: 1",
        b"A_B: c",
        b"A:: b",
    ):
        yield f"taken {line!r}", head(HOST, line), GOT
    yield "100 fields", head(HOST, *[b"A: b"] * 99), GOT
    yield "101 fields", head(HOST, *[b"A: b"] * 100), 431
    yield "large field", head(HOST, b"A: " + b"b" * 8187), GOT
    yield "larger field", head(HOST, b"A: " + b"b" * 8188), 431
    yield "large name", head(HOST, b"A" * 8188 + b": "), GOT
    yield "larger name", head(HOST, b"A" * 8189 + b": "), 431
    yield "endless field", b"GET / HTTP/1.1\r\nHost: t\r\nA: " + b"b" * 100000, 431
    yield "endless name", b"GET / HTTP/1.1\r\nHost: t\r\n" + b"b" * 100000, 431
    yield "endless fields", b"GET / HTTP/1.1\r\nHost: t\r\n" + b"A: b\r\n" * 20000, 431


def _values() -> Lines:
    for code in (*range(9), *range(10, 32), 127):
        if code in b"\n":
            continue
        wanted = 400
        yield f"0x{code:02x} within", head(HOST, b"A: b%cc" % code), wanted
        yield f"0x{code:02x} at the end", head(HOST, b"A: b%c" % code), wanted
        yield f"0x{code:02x} in Host", head(b"Host: t%c" % code), wanted
    yield "LF within", head(HOST, b"A: b\nc"), 400
    yield "LF and a field within", head(HOST, b"A: b\nContent-Length: 5"), 400
    yield "CR and a field within", head(HOST, b"A: b\rContent-Length: 5"), 400
    yield "tab within", head(HOST, b"A: b\tc"), GOT
    for code in (0x80, 0xA0, 0xE9, 0xFF):
        yield f"0x{code:02x} within", head(HOST, b"A: b%cc" % code), GOT


def _lengths() -> Lines:
    for value, body in (
        (b"0", b""),
        (b"1", b"a"),
        (b"5", b"abcde"),
        (b"01", b"a"),
        (b"0000000000000005", b"abcde"),
        (b"1 ", b"a"),
        (b"\t1\t", b"a"),
    ):
        yield repr(value), post(b"Content-Length: " + value) + body, asked(body)
    yield "body is no request", post(b"Content-Length: %d" % len(GET)) + GET, asked(GET)
    yield "0 and a request behind", post(b"Content-Length: 0") + GET, (*asked(), *GOT)
    yield "no length, bytes behind", post() + b"abc\r\n", (*asked(), b"400")
    for value in (
        b"", b"+1", b"-1", b"-0", b"0x1", b"1x", b"x", b"1.0", b"1e0", b"1_0", b"1,1", b"1, 1", b"1,2", b",1", b"1,",
        b"1 1", b"1;", b"'1'", b"\"1\"",
        b"\xb2", b"\xd9\xa1", b"1\x0b", b"\x0c1", b"1\0", b"18446744073709551616", b"9" * 100, b"one", b"0b1", b"1\t1",
        b"NaN", b"true", b"(1)",
    ):  # fmt: skip
        yield repr(value), post(b"Content-Length: " + value) + b"a", 400
    yield "20 digits", post(b"Content-Length: " + b"1".zfill(20)) + b"a", asked(b"a")
    for zeros in (20, 4299, 4300, 8000):
        yield f"{zeros} zeros before", post(b"Content-Length: " + b"0" * zeros + b"1") + b"a", 400
        yield f"{zeros} zeros", post(b"Content-Length: 0" + b"0" * zeros) + GET, 400
    yield "a million digits", post(b"Content-Length: " + b"0" * 1_000_000) + b"a", 431
    for first, second in (
        (b"1", b"1"),
        (b"1", b"2"),
        (b"0", b"0"),
        (b"1", b""),
        (b"", b"1"),
        (b"5", b"0"),
        (b"1", b"01"),
    ):
        yield f"{first!r} and {second!r}", post(b"Content-Length: " + first, b"Content-Length: " + second) + b"a", 400
        raw = post(b"Content-Length: " + first, b"X: y", b"CONTENT-LENGTH: " + second) + b"a"
        yield f"{first!r} and {second!r}, apart", raw, 400
    yield "on GET", head(HOST, b"Content-Length: 1") + b"a", asked(b"a", method=b"GET")
    yield "Content_Length is another field", post(b"Content_Length: 5") + GET, (*asked(), *GOT)


def _codings() -> Lines:
    body = b"1\r\na\r\n0\r\n\r\n"
    for coding in (b"chunked", b"Chunked", b"CHUNKED", b"chunked ", b"\tchunked"):
        yield repr(coding), post(b"Transfer-Encoding: " + coding) + body, asked(b"a")
    for coding in (b"gzip, chunked", b"deflate,chunked", b"x, y, chunked", b"gzip;q=1, chunked"):
        yield repr(coding), post(b"Transfer-Encoding: " + coding) + body, 501
    for coding in (
        b"", b"chunked\t", b"identity", b"gzip", b"xchunked", b"chunkedx", b"x-chunked", b"chunked, gzip",
        b"chunked, chunked", b"chunked,", b",chunked", b", chunked",
        b"chunked;a=b", b"\"chunked\"", b"'chunked'", b"chunked\x0b", b"\x0bchunked", b"chunked\0", b"chun ked",
        b"chunked identity", b"identity, chunked, identity",
        b"chunk", b"ch\xfcnked", b"[chunked]", b"gzip chunked", b"cow, chunked;x", b"chunked, identity", b"\xa0chunked",
    ):  # fmt: skip
        yield repr(coding), post(b"Transfer-Encoding: " + coding) + body, 400
    for first, second in (
        (b"chunked", b"chunked"),
        (b"chunked", b"identity"),
        (b"chunked", b"gzip"),
        (b"chunked", b""),
    ):
        raw = post(b"Transfer-Encoding: " + first, b"Transfer-Encoding: " + second) + body
        yield f"{first!r} and {second!r}", raw, 400
    yield "two fields, chunked last", post(b"Transfer-Encoding: gzip", CHUNKED) + body, 501
    yield "two fields, identity and chunked", post(b"Transfer-Encoding: identity", CHUNKED) + body, 501
    for length in (b"0", b"1", b"11", b"999"):
        yield f"before Content-Length {length!r}", post(CHUNKED, b"Content-Length: " + length) + body, 400
        yield f"behind Content-Length {length!r}", post(b"Content-Length: " + length, CHUNKED) + body, 400
    yield "with a foreign coding and a length", post(b"Content-Length: 1", b"Transfer-Encoding: x") + body, 400
    yield "in 1.0", head(HOST, CHUNKED, start=b"POST / HTTP/1.0") + body, 400
    yield "in 1.0, kept alive", head(HOST, CHUNKED, b"Connection: keep-alive", start=b"POST / HTTP/1.0") + body, 400
    yield "in 1.0, identity", head(HOST, b"Transfer-Encoding: identity", start=b"POST / HTTP/1.0") + body, 400
    yield "space before the colon", post(b"Transfer-Encoding : chunked") + body, 400
    yield "Transfer_Encoding is another field", post(b"Transfer_Encoding: chunked") + GET, (*asked(), *GOT)
    yield "on GET", head(HOST, CHUNKED) + body, asked(b"a", method=b"GET")


def _chunks() -> Lines:
    chunked = post(CHUNKED)
    for body, wanted in (
        (b"0\r\n\r\n", b""), (b"1\r\na\r\n0\r\n\r\n", b"a"), (b"00\r\n\r\n", b""), (b"01\r\na\r\n000\r\n\r\n", b"a"),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789"), (b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", b"abc"),
        (b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n"),
        (b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n"), (b"0000000000000001\r\na\r\n0\r\n\r\n", b"a"),
    ):  # fmt: skip
        yield repr(body), chunked + body, asked(wanted)
        yield f"{body!r} and another", chunked + body + GET, (*asked(wanted), *GOT)
    for body in (
        b"\r\na\r\n0\r\n\r\n", b"+1\r\na\r\n0\r\n\r\n", b"-1\r\na\r\n0\r\n\r\n", b"0x1\r\na\r\n0\r\n\r\n",
        b"g\r\na\r\n0\r\n\r\n", b"1 \r\na\r\n0\r\n\r\n", b" 1\r\na\r\n0\r\n\r\n",
        b"1\t\r\na\r\n0\r\n\r\n", b"1\na\r\n0\r\n\r\n", b"1\r\na\n0\r\n\r\n", b"1\r\na\r0\r\n\r\n",
        b"1\ra\r\n0\r\n\r\n", b"1\r\na\r\n0\n\r\n", b"1\r\nab\r\n0\r\n\r\n",
        b"2\r\na\r\n0\r\n\r\n", b"1\r\na0\r\n\r\n", b"1\r\n\r\n0\r\n\r\n", b"1.0\r\na\r\n0\r\n\r\n",
        b"1_0\r\na\r\n0\r\n\r\n", b"1,\r\na\r\n0\r\n\r\n",
        b"10000000000000000\r\na", b"ffffffffffffffffff\r\na", b"00000000000000001\r\na\r\n0\r\n\r\n",
        b"\xb2\r\na\r\n0\r\n\r\n", b"1\0\r\na\r\n0\r\n\r\n", b"1\r\r\na\r\n0\r\n\r\n",
        b"(1)\r\na\r\n0\r\n\r\n", b"1\x0b\r\na\r\n0\r\n\r\n", b"1\r\na\r\n-0\r\n\r\n", b"1\r\na\r\n0 \r\n\r\n",
        b"0\r\n\n", b"0\r\n\r\r\n", b"0\n\n", b"1\r\na\r\n\r\n0\r\n\r\n", b"one\r\na\r\n0\r\n\r\n",
    ):  # fmt: skip
        yield repr(body), chunked + body, 400
    for begun in (b"x", b"\r", b"\n", b"1x", b"1\rx", b"g1", b" 1", b"\0", b"1" * 17, b"1\r\na\r\n-", b"1\r\na\r\n\r"):
        yield f"{begun!r} and no more", chunked + begun, 400


def _extensions() -> Lines:
    chunked = post(CHUNKED)
    for extension in (
        b";a",
        b";a=b",
        b';a="b"',
        b';a="b;c"',
        b';a="\\""',
        b";a;b=c;d",
        b';a="\t !~"',
        b';a=""',
        b";!#$=%&",
    ):
        yield repr(extension), chunked + b"1%b\r\na\r\n0%b\r\n\r\n" % (extension, extension), asked(b"a")
    for extension in (
        b";", b";;", b";=", b";a=", b";=b", b";a=b=c", b';a="b', b';a=b"', b';a="b"c', b";a b", b";a\x00", b";a=\x01",
        b';a="\x01"', b";a\n", b";a\r", b';a="\n"', b';a="\r"',
        b";a=\x7f", b";a=(b)", b",a", b"a b", b";a,b", b';"a"', b";a==b", b";a;", b";\xe9", b";a=b\nX",
    ):  # fmt: skip
        yield repr(extension), chunked + b"1%b\r\na\r\n0\r\n\r\n" % extension, 400
    # RFC 9112 section 7.1.1: "bad whitespace" is to be parsed.
    for extension in (
        b" ;a", b"; a", b";a =b", b";a= b", b" \t;\t a \t=\t b", b';a = "b ; c"', b" ; a ; b = c", b"\t;a" * 100,
        b';a="b" ;c',
    ):  # fmt: skip
        raw = chunked + b"1%b\r\na\r\n2%b\r\nbc\r\n0%b\r\n\r\n" % (extension, extension, extension)
        yield f"whitespace {extension[:20]!r}", raw, asked(b"abc")
        yield f"whitespace {extension[:20]!r} and another", raw + GET, (*asked(b"abc"), *GOT)
    for extension in (
        b" ",
        b"\t",
        b";a ",
        b";a=b ",
        b' ;a="b"\t',
        b" a",
        b" =b",
        b"\x0b;a",
        b";\x0ba",
        b"; ",
        b" ; ;a",
        b";a\n ;b",
    ):
        yield f"whitespace {extension!r}", chunked + b"1%b\r\na\r\n0\r\n\r\n" % extension, 400
    yield "long", chunked + b"1;%b\r\na\r\n0\r\n\r\n" % (b"a" * 1000), asked(b"a")
    yield "too long", chunked + b"1;%b\r\na\r\n0\r\n\r\n" % (b"a" * 1100), 400
    yield "endless", chunked + b"1;" + b"a" * 100000, 400


def _trailers() -> Lines:
    start = post(CHUNKED) + b"1\r\na\r\n0\r\n"
    for trailer in (
        b"A: b",
        b"A: b\r\nC: d",
        b"Host: u",
        b"A:",
        b"Connection: x",
        b"Content-Type: x",
        b"Expect: x",
        b"X: " + b"y" * 8000,
    ):
        yield repr(trailer[:40]), start + trailer + b"\r\n\r\n", asked(b"a")
    yield "and another request", start + b"A: b\r\n\r\n" + GET, (*asked(b"a"), *GOT)
    for trailer in (
        b"A", b"A : b", b" A: b", b"\tA: b", b": b", b"A: b\r\n c", b"A: b\nC: d", b"A: b\rC: d", b"A: \0", b"A: \x01",
        b"A\xe9: b", b"A: b\n", b"A(: b",
        b"Content-Length: 5", b"Transfer-Encoding: chunked", b"A: b\r\n\n", b"GET / HTTP/1.1",
    ):  # fmt: skip
        yield repr(trailer), start + trailer + b"\r\n\r\n", 400
    yield "too many", start + b"A: b\r\n" * 101 + b"\r\n", 431
    yield "too large", start + b"A: " + b"b" * 8200 + b"\r\n\r\n", 431
    yield "endless", start + b"A: b\r\n" * 20000, 431


def _expectations() -> Lines:
    yield "unknown", post(b"Expect: miracles", b"Content-Length: 1") + b"a", 417
    yield "unknown beside 100-continue", post(b"Expect: 100-continue, x", b"Content-Length: 1") + b"a", 417
    yield "empty", post(b"Expect:", b"Content-Length: 1") + b"a", 417
    yield "100-continue without a body", head(HOST, b"Expect: 100-continue"), GOT
    yield "100-continue with the body at once", post(b"Expect: 100-Continue", b"Content-Length: 0"), asked()
    raw = head(b"Expect: 100-continue", b"Content-Length: 1", start=b"POST / HTTP/1.0") + b"a"
    yield "in 1.0", raw, (b"POST /? - 1.0 a",)
    yield "unknown in 1.0", head(b"Expect: x", start=b"GET / HTTP/1.0"), (b"GET /? - 1.0 ",)


def _connections() -> Lines:
    for value in (b"close", b"Close", b"CLOSE", b"close ", b"close, x", b"x, close", b"keep-alive, close"):
        yield repr(value), head(HOST, b"Connection: " + value), GOT
    yield "two fields", head(HOST, b"Connection: keep-alive", b"Connection: close"), GOT
    for value in (b"keep-alive", b"Keep-Alive", b"closed", b"x-close", b"x", b"upgrade"):
        yield f"{value!r} and another", head(HOST, b"Connection: " + value) + GET, GOT * 2
    yield "three", GET * 3, GOT * 3
    yield (
        "three, different",
        GET + post(b"Content-Length: 1") + b"a" + head(HOST, start=b"BREW / HTTP/1.1"),
        (
            *GOT,
            *asked(b"a"),
            *asked(method=b"BREW"),
        ),
    )
    yield "good, bad, good", GET + b"GET  / HTTP/1.1\r\nHost: t\r\n\r\n" + GET, (*GOT, b"400")
    yield "good and a bad version", GET + head(HOST, start=b"GET / HTTP/3.0"), (*GOT, b"505")
    yield "close and garbage", head(HOST, b"Connection: close") + b"\0\0\0", GOT
    yield "a body of another's, close", post(b"Content-Length: 1", b"Connection: close") + b"a" + GET, asked(b"a")
    yield "20", GET * 20, GOT * 20
    for value in (b"close", b"keep-alive", b"upgrade"):
        other = b"Proxy-Connection: " + value
        yield f"Proxy-Connection: {value.decode()}", head(HOST, other) + GET, GOT * 2
        yield f"Proxy-Connection: {value.decode()} beside Connection", head(HOST, other, b"Connection: close"), GOT
        raw = post(other, b"Content-Length: 1") + b"a" + post(other, b"Content-Length: 1") + b"b" + GET
        yield f"Proxy-Connection: {value.decode()} with a body", raw, (*asked(b"a"), *asked(b"b"), *GOT)
        raw = post(other, CHUNKED) + b"1\r\na\r\n0\r\n%b\r\n\r\n" % other + post(b"Content-Length: 1") + b"b"
        yield f"Proxy-Connection: {value.decode()} with chunks", raw, (*asked(b"a"), *asked(b"b"))
        raw = head(HOST, other, start=b"GET / HTTP/1.0") + GET
        yield f"Proxy-Connection: {value.decode()} in 1.0", raw, (b"GET /? t 1.0 ",)
        raw = head(HOST, b"Upgrade: websocket", other, *WEBSOCKET) + GET
        yield f"Proxy-Connection: {value.decode()} for a WebSocket", raw, GOT * 2
        raw = post(b"Upgrade: h2c", other, b"Content-Length: 3") + b"abc" + GET
        yield f"Proxy-Connection: {value.decode()} for h2c", raw, (*asked(b"abc"), *GOT)
        raw = post(CHUNKED) + b"0\r\nConnection: %b\r\n\r\n" % value + post(b"Content-Length: 1") + b"b" + GET
        yield f"Connection: {value.decode()} in the trailers", raw, (*asked(), *asked(b"b"), *GOT)
    raw = head(HOST, b"Connection: keep-alive, close", start=b"GET / HTTP/1.0") + GET
    yield "1.0, both", raw, (b"GET /? t 1.0 ",)
    yield "Upgrade without Connection", head(HOST, b"Upgrade: websocket", *WEBSOCKET) + GET, GOT * 2
    h2c = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: x")
    yield "h2c and another", head(HOST, *h2c) + GET, GOT * 2
    yield "h2c with a body and another", post(*h2c, b"Content-Length: 3") + b"abc" + GET, (*asked(b"abc"), *GOT)
    yield "h2c with chunks and another", post(*h2c, CHUNKED) + b"1\r\na\r\n0\r\n\r\n" + GET, (*asked(b"a"), *GOT)
    yield "h2c with bad chunks", post(*h2c, CHUNKED) + b"x\r\n", 400
    yield "h2c with a bad line behind", head(HOST, *h2c) + b"GET  / HTTP/1.1\r\n\r\n", (*GOT, b"400")


H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PLAIN = head(HOST, b"X: y")

#: Bytes that may follow a request.
BEHIND = (
    H2_PREFACE, H2_PREFACE[:18], H2_PREFACE[:16], H2_PREFACE[:12], b"PRI * HTTP/2.0\r\nHost: t\r\n\r\n",
    b"PRI / HTTP/1.1\r\nHost: t\r\n\r\n", b"PRI * HTTP/1.1\r\n\r\n", b"PRI * HTTP/1.1\r\nHost: t\r\n\r\nSM\r\n\r\n",
    b"PRI\r\n\r\n", b"PRI \r\n\r\n", b"PRI *\r\n\r\n", b"SM\r\n\r\n", GET, PLAIN, post(b"Content-Length: 1") + b"a",
    post(b"Content-Length: 1"), post(CHUNKED), post(CHUNKED) + b"1\r\na\r\n0\r\n\r\n",
    head(HOST, start=b"BREW / HTTP/1.1"), head(HOST, start=b"OPTIONS * HTTP/1.1"),
    head(HOST, start=b"CONNECT t:443 HTTP/1.1"), head(HOST, start=b"GET / HTTP/2.0"), head(start=b"GET / HTTP/1.0"),
    head(HOST, start=b"GET /a b HTTP/1.1"), head(HOST, b"A : b"), head(HOST, start=b"SOURCE / ICE/1.0"),
    head(HOST, start=b"DESCRIBE / RTSP/1.0"), head(HOST, start=b"GET http://u/ HTTP/1.1"),
    head(HOST, b"Proxy-Connection: close") + GET,
    head(HOST, b"Upgrade: websocket", b"Proxy-Connection: Upgrade", *WEBSOCKET) + GET,
    head(HOST, b"Connection: Upgrade", b"Upgrade: h2c") + GET, head(HOST, b"Transfer-Encoding: gzip, chunked"),
    head(HOST, HOST), post(b"Content-Length: " + b"0" * 30 + b"1") + b"a",
    post(CHUNKED) + b"1 ;a\r\na\r\n0\r\n\r\n" + GET, post(CHUNKED) + b"1 \r\na\r\n0\r\n\r\n", b"\r\n", b"\r\n\r\n",
    b"\r\n\r\n\r\n" + GET, b"\n", b"\r", b"\n\n", b"\r\r", b"\r\n\n", b" ", b"\0", b"\0\r\n\r\n", b"\xff\xff\r\n\r\n",
    b":\r\n\r\n", b"GET", b"GET ", b"GET /", b"GET / HTTP/1.1", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: t",
    b"GET / HTTP/1.1\r\nHost: t\r\n", b"GET\r\n\r\n", b"GET /\r\n\r\n", b"G\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\n\r\n", b"0\r\n\r\n",
    b"a\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x0c" + b"\0" * 12, b"\x81\x85\0\0\0\0hello", b"\x88\x80\0\0\0\0",
    b"SSH-2.0-x\r\n\r\n", b"\x05\x01\0", b"G" * 1100 + b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: t\r\n\r\n\r\n\n",
)  # fmt: skip

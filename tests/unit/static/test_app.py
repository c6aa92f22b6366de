"""`static`: what is served, what is not, and how, over a real socket."""

import gzip
import http.client
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import aserver
from aserver.asgi import Receive, Scope, Send
from aserver.static.files import CHUNK
from aserver.testing import LiveUrl, live_server
from tests.harness import PATIENCE

BIG = bytes(range(256)) * (CHUNK // 256 * 2 + 7)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"the app: " + scope["path"].encode()})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with secrets beside it, and ways out of it."""
    top = tmp_path_factory.mktemp("site")
    (top / "secret.txt").write_text("secret")
    root = top / "assets"
    for folder in (root / "sub" / ".git", root / "empty", top / "assets-of-others", root / "k8s" / "..data"):
        folder.mkdir(parents=True)
    (top / "assets-of-others" / "secret.txt").write_text("secret")
    (root / "page.html").write_text("<p>page")
    (root / "sub" / "index.html").write_text("<p>index")
    (root / "sub" / "a b&ü.txt").write_text("name")
    (root / "sub" / ".git" / "config").write_text("secret")
    (root / ".env").write_text("secret")
    (root / "empty.txt").touch()
    (root / "big.bin").write_bytes(BIG)
    (root / "unreadable.txt").write_text("secret")
    (root / "unreadable.txt").chmod(0)
    (root / "app.js").write_text("let plain;")
    (root / "app.js.gz").write_bytes(gzip.compress(b"let packed;"))
    (root / "app.js.br").write_bytes(b"as if by brotli")
    (root / "old.css").write_text("new")
    (root / "old.css.gz").write_bytes(gzip.compress(b"old"))
    os.utime(root / "old.css.gz", (1, 1))
    (root / "inside.html").symlink_to("page.html")
    (root / "out.txt").symlink_to("../secret.txt")
    (root / "out").symlink_to("..")
    (root / "absolute").symlink_to("/")
    (root / "loop").symlink_to("loop")
    (root / "others").symlink_to("../assets-of-others")
    (root / "k8s" / "..data" / "map.json").write_text("{}")
    (root / "k8s" / "map.json").symlink_to("..data/map.json")
    os.mkfifo(root / "fifo")
    return root


@pytest.fixture(scope="module")
def url(root: Path) -> Iterator[LiveUrl]:
    with live_server(app, lifespan="off", static=[f"/static={root}", f"/static/deep={root / 'sub'}"]) as url:
        yield url


def ask(url: str, path: str, method: str = "GET", **fields: str) -> tuple[int, dict[str, str], bytes]:
    """Status, fields and body. The path goes out as it is: no client of ours tidies it up."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=PATIENCE)
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, value in fields.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    response = connection.getresponse()
    found = response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    connection.close()
    return found


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/static/page.html", b"<p>page"),
        ("/static/sub/", b"<p>index"),
        ("/static/sub/index.html", b"<p>index"),
        ("/static/sub/a%20b%26%C3%BC.txt", b"name"),
        ("/static/inside.html", b"<p>page"),
        ("/static/k8s/map.json", b"{}"),
        ("/static/empty.txt", b""),
        ("/static/big.bin", BIG),
        ("/static/deep/index.html", b"<p>index"),
        ("/static/page.html?v=2", b"<p>page"),
        ("/", b"the app: /"),
        ("/staticx/page.html", b"the app: /staticx/page.html"),
        ("/x/static/page.html", b"the app: /x/static/page.html"),
    ],
)
def test_files_are_served_and_the_rest_is_the_apps(url: str, path: str, body: bytes) -> None:
    assert ask(url, path)[::2] == (200, body)


#: Ways out of the directory, and to what is hidden in it.
WAYS_OUT = [
    "/static/../secret.txt",
    "/static/%2e%2e/secret.txt",
    "/static/..%2fsecret.txt",
    "/static/%2e%2e%2fsecret.txt",
    "/static/sub/../../secret.txt",
    "/static/sub/%2e%2e/page.html",
    "/static/..%5csecret.txt",
    "/static/%252e%252e/secret.txt",
    "/static/..%00/secret.txt",
    "/static/page.html%00.txt",
    "/static//etc/passwd",
    "/static/%2fetc%2fpasswd",
    "/static//page.html",
    "/static/./page.html",
    "/static/page.html/",
    "/static/page.html/x",
    "/static/.env",
    "/static/%2eenv",
    "/static/sub/.git/config",
    "/static/k8s/..data/map.json",
    "/static/out.txt",
    "/static/out/secret.txt",
    "/static/absolute/etc/passwd",
    "/static/others/secret.txt",
    "/static/loop",
    "/static/fifo",
    "/static/empty/",
    "/static/",
    "/static/nothing.txt",
    "/static/" + "x" * 300,
    "/static/" + "x/" * 3000,
    "/static/%ff%fe",
    "/static/%ed%a0%80",
    "/static/page.html;x",
    "/static/page.html%0d%0aX:%20y",
]


@pytest.mark.parametrize("path", WAYS_OUT)
def test_nothing_else_is_served(url: str, path: str) -> None:
    """404, and the application is not asked."""
    status, fields, body = ask(url, path)
    assert (status, body) == (404, b"Not Found\n")
    assert "x" not in fields
    assert b"secret" not in body


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_forbidden(url: str) -> None:
    assert ask(url, "/static/unreadable.txt")[0] == 403


@pytest.mark.parametrize("path", ["/static", "/static/sub", "/static/sub?x=1", "/static/empty"])
def test_a_directory_is_redirected_to_itself_with_a_slash(url: str, path: str) -> None:
    """Relative: neither another host's name nor a proxy's prefix can get in. Fails with the path in Location."""
    status, fields, _ = ask(url, path)
    assert (status, fields["location"]) == (301, f"./{path.partition('?')[0].rpartition('/')[2]}/")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_refused(url: str, method: str) -> None:
    status, fields, _ = ask(url, "/static/page.html", method)
    assert (status, fields["allow"]) == (405, "GET, HEAD")


def test_head_is_get_without_the_body(url: str) -> None:
    _, get, body = ask(url, "/static/big.bin")
    status, head, nothing = ask(url, "/static/big.bin", "HEAD", Range="bytes=0-1")
    assert (status, nothing) == (200, b"")
    assert head["content-length"] == get["content-length"] == str(len(body))
    assert {name for name in get if name != "date"} <= head.keys()


def test_conditions_and_ranges(url: str) -> None:
    """The real validators, each by itself; the table of all cases is test_answers.py's."""
    _, fields, _ = ask(url, "/static/big.bin")
    etag, modified = fields["etag"], fields["last-modified"]
    assert ask(url, "/static/big.bin", If_None_Match=etag)[::2] == (304, b"")
    assert ask(url, "/static/big.bin", If_Modified_Since=modified)[::2] == (304, b"")
    assert ask(url, "/static/big.bin", If_Match='"other"')[::2] == (412, b"")
    middle = f"bytes={CHUNK - 5}-{2 * CHUNK + 4}"
    status, fields, body = ask(url, "/static/big.bin", Range=middle, If_Range=etag)
    assert (status, body) == (206, BIG[CHUNK - 5 : 2 * CHUNK + 5])
    assert fields["content-range"] == f"bytes {CHUNK - 5}-{2 * CHUNK + 4}/{len(BIG)}"
    assert ask(url, "/static/big.bin", Range="bytes=-3")[::2] == (206, BIG[-3:])
    status, fields, body = ask(url, "/static/big.bin", Range=f"bytes={len(BIG)}-")
    assert (status, fields["content-range"], body) == (416, f"bytes */{len(BIG)}", b"")


@pytest.mark.parametrize(
    ("path", "accepts", "encoding", "varies"),
    [
        ("app.js", "gzip, br", "br", True),
        ("app.js", "gzip", "gzip", True),
        ("app.js", "br;q=0, *", "gzip", True),
        ("app.js", "identity", None, True),
        ("app.js", "", None, True),
        ("app.js.gz", "gzip", None, False),
        ("old.css", "gzip", None, False),
        ("page.html", "gzip, br", None, False),
    ],
)
def test_a_compressed_file_beside_it_is_taken(
    url: str, path: str, accepts: str, encoding: str | None, varies: bool
) -> None:
    """Unless it is older than the file: then it was forgotten. Each has an ETag of its own."""
    status, fields, body = ask(url, f"/static/{path}", Accept_Encoding=accepts)
    assert (status, fields.get("content-encoding"), fields.get("vary") == "accept-encoding") == (200, encoding, varies)
    assert int(fields["content-length"]) == len(body)
    assert fields["etag"].endswith(f'-{encoding}"') == (encoding is not None)
    if encoding == "gzip":
        assert gzip.decompress(body) == b"let packed;"
        assert fields["content-type"] == "text/javascript; charset=utf-8"


def test_a_mounted_app_and_a_request_for_the_whole_server(root: Path) -> None:
    """The prefix comes behind `root_path`. Fails without the look at it; `OPTIONS *` has no path."""
    with live_server(app, lifespan="off", static={"/static": str(root)}, root_path="/mounted") as url:
        assert ask(url, "/static/page.html")[2] == b"<p>page"
        assert ask(url, "*", "OPTIONS")[2] == b"the app: *"


def test_a_file_that_shrinks_breaks_the_answer_off(root: Path, url: str) -> None:
    """A client must not take half a file for a whole one. Fails with a `read` that ends without an error."""
    shrinking = root / "shrinking.bin"
    shrinking.write_bytes(bytes(64 * CHUNK))
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=PATIENCE) as client:
        client.sendall(b"GET /static/shrinking.bin HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        got = len(client.recv(1000))
        os.truncate(shrinking, 0)
        while piece := client.recv(1 << 20):
            got += len(piece)
    assert 0 < got < 64 * CHUNK


def test_a_directory_that_is_none_is_told_at_the_start(tmp_path: Path) -> None:
    wrong: dict[str, Any] = {"static": f"/static={tmp_path}/nothing"}
    with pytest.raises(aserver.AppLoadError, match=r"static /static=.*is not a directory"), live_server(app, **wrong):
        pass
    for value in ("static", "/=/tmp", "/x=", "x=/tmp"):
        with pytest.raises(aserver.ConfigError, match="static"), live_server(app, static=value):
            pass

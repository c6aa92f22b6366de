"""What a trusted proxy says of the client, and what is not believed."""

from typing import Any

import pytest

from aserver.asgi import Receive, Scope, Send
from aserver.protocol.peer.forwarded import REMEMBERED, Forwarding, Origin, parse_node
from aserver.protocol.peer.trust import Peers
from tests.protocol.serving import answer, serving, status

OURS = ("127.0.0.1", "10.0.0.0/8", "::1", "unix")


def read(*peers: str, **fields: str) -> Origin:
    told = {name.replace("_", "-").encode(): value.encode() for name, value in fields.items()}
    return Forwarding(Peers(peers or OURS)).read(told)


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("1.2.3.4", ("1.2.3.4", 0)),
        ("1.2.3.4:567", ("1.2.3.4", 567)),
        ("2001:db8::1", ("2001:db8::1", 0)),
        ("[2001:DB8::1]", ("2001:db8::1", 0)),
        ("[2001:db8::1]:567", ("2001:db8::1", 567)),
        ("6.6.6.6, 1.2.3.4", ("1.2.3.4", 0)),
        ("6.6.6.6,1.2.3.4, 10.0.0.1 ,10.0.0.2", ("1.2.3.4", 0)),
        ("127.0.0.1, 1.2.3.4", ("1.2.3.4", 0)),
        ("10.0.0.9, 10.0.0.1", ("10.0.0.9", 0)),  # a client in our own network
        ("unknown, 10.0.0.1", ("10.0.0.1", 0)),
        ("6.6.6.6, nonsense, 10.0.0.1", ("10.0.0.1", 0)),
        ("6.6.6.6, , 10.0.0.1", ("10.0.0.1", 0)),
        ("1.2.3.4, unknown", None),
        ("1.2.3.4:99999", None),
        ("1.2.3", None),
        ("1.2.3.4 6.6.6.6", None),
        ("", None),
    ],
)
def test_x_forwarded_for(value: str, client: object) -> None:
    assert read(x_forwarded_for=value).client == client


@pytest.mark.parametrize(
    ("value", "origin"),
    [
        ("for=1.2.3.4", Origin(("1.2.3.4", 0))),
        ("For=1.2.3.4;Proto=HTTPS;By=10.0.0.1;host=a.example", Origin(("1.2.3.4", 0), "https", b"a.example")),
        ('for="[2001:db8::1]:567"', Origin(("2001:db8::1", 567))),
        ("for=6.6.6.6;proto=http, for=1.2.3.4;proto=https, for=10.0.0.1;proto=http", Origin(("1.2.3.4", 0), "https")),
        ('for="6.6.6.6, for=7.7.7.7", for=1.2.3.4', Origin(("1.2.3.4", 0))),
        ('for=1.2.3.4;host="a.example:81"', Origin(("1.2.3.4", 0), None, b"a.example:81")),
        ('for=1.2.3.4;host="a/b"', Origin(("1.2.3.4", 0))),
        ("for=unknown;proto=https", Origin(None, "https")),
        ("for=_hidden, for=10.0.0.1;proto=https", Origin(("10.0.0.1", 0), "https")),
        ("for=1.2.3.4;for=6.6.6.6", Origin()),
        ("for=1.2.3.4;;proto", Origin()),
        ('for="1.2.3.4', Origin()),
        ("proto=gopher;for=1.2.3.4", Origin(("1.2.3.4", 0))),
        ("for=1.2.3.4,", Origin(("1.2.3.4", 0))),
        ("for=1.2.3.4 , , for=10.0.0.1 ,, ", Origin(("1.2.3.4", 0))),
        ("for=1.2.3.4 ; proto=https", Origin(("1.2.3.4", 0), "https")),
        ('for="1.2.3\\.4"', Origin(("1.2.3.4", 0))),
        ('for=1.2.3.4;by="a\\"b";proto=https', Origin(("1.2.3.4", 0), "https")),
        ('for=1.2.3.4;by="a\\\\";proto=https', Origin(("1.2.3.4", 0), "https")),
        ('for=1.2.3.4;by="a\\"', Origin()),
        ("", Origin()),
        (",,,", Origin()),
    ],
)
def test_forwarded(value: str, origin: Origin) -> None:
    assert read(forwarded=value) == origin


@pytest.mark.parametrize(
    "mine", ['"', 'for="', 'for="\\', 'for="a', "for=", ";", '""', 'for="6.6.6.6", "', '\\"' * 12000]
)
@pytest.mark.parametrize("theirs", ["for=1.2.3.4", 'for="1.2.3.4:5"', 'for="[2001:db8::1]";proto=https'])
def test_what_a_client_writes_changes_nothing_in_what_a_proxy_adds(mine: str, theirs: str) -> None:
    """Fails where the list is read from the left: the client's quotation mark pairs with the proxy's, and hides it."""
    assert read(forwarded=f"{mine}, {theirs}") == read(forwarded=theirs)
    assert read(forwarded=f"{mine},{theirs}, for=10.0.0.1") == read(forwarded=theirs)


def test_the_others_are_taken_from_the_same_hop_as_the_client() -> None:
    chain = "6.6.6.6, 1.2.3.4, 10.0.0.1"
    origin = read(x_forwarded_for=chain, x_forwarded_proto="gopher, https, http", x_forwarded_host="evil, a.example, b")
    assert origin == Origin(("1.2.3.4", 0), "https", b"a.example")
    # A proxy that passes on what it got, or sets it anew, has one value for all.
    assert read(x_forwarded_for=chain, x_forwarded_proto="https").scheme == "https"
    # A client's own value in front of the first proxy's is not read.
    assert read(x_forwarded_for="1.2.3.4", x_forwarded_proto="http, https").scheme == "https"


def test_x_forwarded_for_wins_over_forwarded() -> None:
    """A proxy that knows only one of them lets the other through as the client wrote it."""
    assert read(forwarded="for=6.6.6.6", x_forwarded_for="1.2.3.4").client == ("1.2.3.4", 0)


def test_everybody_is_trusted() -> None:
    assert read("*", x_forwarded_for="1.2.3.4, 5.6.7.8").client == ("1.2.3.4", 0)


@pytest.mark.parametrize(
    ("prefix", "wanted"),
    [
        ("/app", "/app"),
        ("/app/", "/app"),
        ("/a/b%20c", "/a/b%20c"),
        ("/", None),
        ("app", None),
        ("//evil.example", None),
        ("/a//b", None),
        ("/a?b", None),
        ("/a b", None),
        ("/<script>", None),
    ],
)
def test_prefix(prefix: str, wanted: str | None) -> None:
    assert read(x_forwarded_prefix=prefix).prefix == wanted


@pytest.mark.parametrize(
    ("port", "wanted"), [("8443", 8443), ("0", None), ("65536", None), ("-1", None), ("+80", None), ("x", None)]
)
def test_port(port: str, wanted: int | None) -> None:
    assert read(x_forwarded_port=port).port == wanted


@pytest.mark.parametrize(
    ("proto", "wanted"),
    [
        ("https", "https"), ("HTTPS", "https"), ("wss", "https"), ("ws", "http"), ("http", "http"),
        ("javascript", None), ("ftp", None), ("", None), ("https:", None),
    ],
)  # fmt: skip
def test_scheme(proto: str, wanted: str | None) -> None:
    told = {b"x-forwarded-proto": proto.encode()}
    assert Forwarding(Peers(["127.0.0.1"])).read(told).scheme == wanted
    told = {b"forwarded": b'for=1.1.1.1;proto="%b"' % proto.encode()}
    assert Forwarding(Peers(["127.0.0.1"])).read(told).scheme == wanted


def test_what_is_remembered_of_peers_and_of_long_fields_is_bounded() -> None:
    forwarding = Forwarding(Peers(["127.0.0.1"]))
    for number in range(3 * REMEMBERED):
        assert not forwarding.trusts((f"10.0.{number >> 8}.{number & 255}", 1))
    forwarding.read({b"x-forwarded-for": b"1.1.1.1, " * 1000 + b"2.2.2.2"})
    peers, _, fields = forwarding.remembered
    assert 0 < peers <= REMEMBERED
    assert fields == 0


def test_memory_is_bounded() -> None:
    forwarding = Forwarding(Peers(OURS))
    for number in range(5000):
        address = f"1.2.{number >> 8}.{number & 255}".encode()
        assert forwarding.read({b"x-forwarded-for": address}).client == (address.decode(), 0)
    forwarding.read({b"x-forwarded-for": b"1.2.3.4, " * 1000})
    _, entries, fields = forwarding.remembered
    assert 0 < entries <= REMEMBERED
    assert 0 < fields <= REMEMBERED


@pytest.mark.parametrize("node", [b"", b"[1.2.3.4", b"1.2.3.4]", b"[::1", b"1.2.3.4:", b"::1:", b"[::g]", b"1.2.3.4:x"])
def test_what_is_no_node(node: bytes) -> None:
    assert parse_node(node) is None


# ── on a connection ──────────────────────────────────────────────────────────────────────────


async def scope_of(*fields: bytes, target: bytes = b"/x%20y", **settings: Any) -> Scope:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        scopes.append(scope)
        await answer(send)

    async with serving(app, **settings) as server:
        lines = b"".join(b"%s\r\n" % field for field in fields)
        response = await server.ask(b"GET %s HTTP/1.1\r\nHost: t\r\nConnection: close\r\n%s\r\n" % (target, lines))
    assert status(response) == 200
    return scopes[0]


async def test_scope_behind_a_trusted_proxy() -> None:
    scope = await scope_of(
        b"X-Forwarded-For: 6.6.6.6",
        b"x-forwarded-for: 1.2.3.4",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: a.example",
        b"X-Forwarded-Port: 8443",
        b"X-Forwarded-Prefix: /pre%66ix",
        root_path="/root",
    )
    assert scope["client"] == ("1.2.3.4", 0)
    assert scope["scheme"] == "https"
    assert [value for name, value in scope["headers"] if name == b"host"] == [b"a.example:8443"]
    assert scope["root_path"] == "/prefix/root"
    assert scope["path"] == "/prefix/root/x y"
    assert scope["raw_path"] == b"/pre%66ix/root/x%20y"


@pytest.mark.parametrize(
    ("port", "scheme", "host"),
    [(b"443", b"https", b"t"), (b"80", b"http", b"t"), (b"443", b"http", b"t:443"), (b"8443", b"https", b"t:8443")],
)
async def test_a_port_completes_host(port: bytes, scheme: bytes, host: bytes) -> None:
    scope = await scope_of(b"X-Forwarded-Proto: " + scheme, b"X-Forwarded-Port: " + port)
    assert [value for name, value in scope["headers"] if name == b"host"] == [host]


@pytest.mark.parametrize("settings", [{"proxy_headers": False}, {"forwarded_allow_ips": ["10.0.0.1"]}])
async def test_nothing_is_believed(settings: Any) -> None:
    fields = b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-Proto: https", b"X-Forwarded-Host: a", b"Forwarded: for=1.2.3.4"
    scope = await scope_of(*fields, **settings)
    assert scope["client"][0] == "127.0.0.1"
    assert scope["scheme"] == "http"
    assert (b"host", b"t") in scope["headers"]
    assert (b"x-forwarded-for", b"1.2.3.4") in scope["headers"], "the application may look for itself"


@pytest.mark.parametrize("name", [b"X-Forwarded-For", b"Forwarded", b"Connection", b"Upgrade", b"TE"])
async def test_a_list_in_several_lines_is_held_to_the_limit_of_one_field(name: bytes) -> None:
    """Fails without it: 100 lines of 8 KB were joined to one of 800 KB, and looked through in one turn of the loop."""
    line = b"%s: %s\r\n" % (name, b"a" * 4080)

    async def statuses(count: int) -> int:
        async with serving(lambda scope, receive, send: answer(send)) as server:
            return status(await server.ask(b"GET / HTTP/1.0\r\n" + line * count + b"\r\n"))

    assert await statuses(2) == 200
    assert await statuses(3) == 431


async def test_what_was_told_of_one_request_is_forgotten_at_the_next() -> None:
    clients: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        clients.append(scope["client"][0])
        await answer(send)

    async with serving(app) as server:
        told = b"GET / HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n"
        plain = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
        last = plain.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        await server.ask(told + plain + told[:-2] + b"\r\n" + last)
    assert clients == ["1.2.3.4", "127.0.0.1", "1.2.3.4", "127.0.0.1"]

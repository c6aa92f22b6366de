"""The choice between HTTP/1 and HTTP/2 by the first bytes."""

import asyncio

from tests.protocol.http2.strict import connect
from tests.protocol.serving import echo, field, serving, status


async def test_the_preface_is_looked_for_only_where_it_may_come() -> None:
    """On an `h2c://` address both versions are served, cut at any byte; elsewhere the preface is what it was before."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    async with serving(echo, h2c=True, http2=True) as server:
        old = await server.connect()
        for byte in b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab":
            await old.send(bytes((byte,)))
            await asyncio.sleep(0)
        assert (await old.rest()).endswith(b"POST / ab")
        assert (await (await connect(server)).get()).status == 200
        slow = await server.connect()
        for byte in preface + b"\0\0\0\4\0\0\0\0\0":
            await slow.send(bytes((byte,)))
            await asyncio.sleep(0)
        assert (await slow.exactly(9))[3] == 4, "SETTINGS"
    for options in ({"http2": True}, {"http2": False, "h2c": True}):
        async with serving(echo, **options) as server:
            got = await server.ask(preface)
            assert status(got) == 505
            assert field(got, b"connection") == b"close"

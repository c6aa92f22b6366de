"""Clients of real applications: each errand is a whole visit, by the client library that users of it have."""

import asyncio
import contextlib
import json
import re
import threading
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Self
from urllib.parse import urlencode

import httpx

from tests.harness.waiting import PATIENCE, wait_for

Errand = Callable[[str], Awaitable[None]]

#: A browser that met the old worker and then the new one loads the page again; a second reload may be under way.
PAGE_LOADS = 5
FILE = b"a line of a file\n" * 20_000


class Errands:
    """A context manager: in a thread of its own, each errand is run again and again until the block ends."""

    def __init__(self, url: str, errands: tuple[Errand, ...]) -> None:
        self.done: Counter[str] = Counter()
        self.lost: list[str] = []
        self._url, self._errands = url, errands
        self._stopping = self._leaving = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="errands")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join(3 * PATIENCE)
        assert not self._thread.is_alive(), "the errands did not end"

    def wait_for_more(self, count: int) -> None:
        """Wait until each errand was run so many more times, or one was lost."""
        goals = {each.__name__: self.done[each.__name__] + count for each in self._errands}
        wait_for(
            lambda: self.lost or all(self.done[name] >= goal for name, goal in goals.items()),
            timeout=2 * PATIENCE,
            what=f"{count} more of each errand",
            explain=lambda: f"done: {self.done}",
        )

    def expect_the_end(self) -> None:
        """From now on the server may refuse connections, which ends an errand and loses nothing."""
        self._leaving = True

    async def _run(self) -> None:
        await asyncio.gather(*map(self._repeat, self._errands))

    async def _repeat(self, errand: Errand) -> None:
        while not self._stopping and not self.lost:
            try:
                async with asyncio.timeout(PATIENCE):
                    await errand(self._url)
                self.done[errand.__name__] += 1
            except Exception as error:
                if self._leaving and _turned_away(error):
                    return
                self.lost.append(f"{errand.__name__}: {error!r} {error.__cause__ or ''}")
            await asyncio.sleep(0.01)


def _turned_away(error: BaseException | None) -> bool:
    """Whether no connection was made: the listener was closed, and nothing was accepted."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_turned_away, error.exceptions))
    return error is not None and (
        isinstance(error, ConnectionRefusedError) or _turned_away(error.__cause__ or error.__context__)
    )


async def _get(url: str, path: str, expected: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=url) as client:
        answer = await client.get(path)
    assert (answer.status_code, expected in answer.text) == (200, True), (path, answer, answer.text[:500])
    return answer


# ── datasette ────────────────────────────────────────────────────────────────────────────────


async def browse_datasette(url: str) -> None:
    await _get(url, "/notes/notes?id=7", "note 6")
    await _get(url, "/notes/notes.json?_shape=array&_size=3", "note 2")


async def stream_datasette(url: str) -> None:
    answer = await _get(url, "/notes/notes.csv?_stream=on&_size=max", "note 2999")
    assert answer.text.count("\n") == 3001


# ── Django ───────────────────────────────────────────────────────────────────────────────────


async def admin(url: str) -> None:
    """Log in, look at the users, log out."""
    async with httpx.AsyncClient(base_url=url, follow_redirects=True) as client:
        form = await client.get("/admin/login/")
        token = re.findall(r'csrfmiddlewaretoken" value="(\w+)"', form.text)[0]
        fields = {"username": "root", "password": "secret", "csrfmiddlewaretoken": token, "next": "/admin/"}
        inside = await client.post("/admin/login/", data=fields)
        assert "Site administration" in inside.text, inside.text[:500]
        assert "1 user" in (await client.get("/admin/auth/user/")).text


async def upload_django(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        assert (await client.post("/upload/", files={"file": FILE})).text == str(len(FILE))


async def stream_django(url: str) -> None:
    await _get(url, "/stream/", "line 199")


async def channels(url: str) -> None:
    from websockets.asyncio.client import connect

    async with connect(url.replace("http", "ws") + "/ws/") as socket:
        for number in range(5):
            await socket.send(json.dumps(number))
            assert json.loads(await socket.recv()) == {"echo": number}


# ── Flask ────────────────────────────────────────────────────────────────────────────────────


async def browse_flask(url: str) -> None:
    await _get(url, "/", "notes")
    await _get(url, "/stream", "line 199")


async def upload_flask(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        assert (await client.post("/notes", files={"file": FILE})).text == str(len(FILE))


# ── socket.io and NiceGUI ────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def _socketio(url: str, **options: Any) -> Any:
    import aiohttp
    import socketio

    async with aiohttp.ClientSession() as session:  # its own stays open where no connection can be made
        client = socketio.AsyncSimpleClient(reconnection=False, http_session=session)
        await client.connect(url, transports=["websocket"], **options)
        try:
            yield client
        finally:
            await client.disconnect()


async def chat(url: str) -> None:
    async with _socketio(url) as client:
        for text in ("hello", "world!"):
            assert await client.call("say", text) == len(text)
            assert await client.receive(PATIENCE) == ["said", text]


async def click(url: str) -> None:
    """As a browser does with a page of NiceGUI: load it and its script, open its socket, press the button.

    A page whose worker is not the one that the socket meets is loaded again, as NiceGUI's script does.
    """
    from socketio.exceptions import ConnectionError as RefusedError

    for attempt in range(PAGE_LOADS):
        page = await _get(url, "/", "not clicked")
        await _get(url, re.findall(r'src="(/_nicegui/[^"]+nicegui\.js)"', page.text)[0], "socket")
        elements = json.loads(re.findall(r"String\.raw`(\{.*?\})`", page.text, re.DOTALL)[0])
        button = next(name for name, each in elements.items() if each["tag"] == "q-btn")
        client = re.findall(r"'client_id': '([^']+)'", page.text)[0]
        names = {"client_id": client, "tab_id": str(uuid.uuid4()), "document_id": str(uuid.uuid4())}
        query = urlencode({**names, "next_message_id": 0, "implicit_handshake": "true"})
        try:
            async with _socketio(f"{url}?{query}", socketio_path="/_nicegui_ws/socket.io") as socket:
                listener = elements[button]["events"][0]["listener_id"]
                event = {"id": int(button), "client_id": client, "listener_id": listener, "args": []}
                await socket.emit("event", event)
                while "'text': 'clicked'" not in str(await socket.receive(PATIENCE)):
                    pass
            return
        except RefusedError:
            if attempt == PAGE_LOADS - 1:
                raise


# ── MCP ──────────────────────────────────────────────────────────────────────────────────────


async def call_tool(url: str) -> None:
    from mcp import Client

    async with Client(f"{url}/mcp") as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["add"]
        result = await client.call_tool("add", {"first": 2, "second": 3})
        assert "5" in str(result.content)


# ── GraphQL ──────────────────────────────────────────────────────────────────────────────────


async def query(url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        answer = await client.post("/", json={"query": "{ hello }"})
        assert answer.json()["data"] == {"hello": "world"}
        operation = {"query": "mutation($file: Upload!) { size(file: $file) }", "variables": {"file": None}}
        fields = {"operations": json.dumps(operation), "map": json.dumps({"0": ["variables.file"]})}
        answer = await client.post("/", data=fields, files={"0": FILE})
        assert answer.json()["data"] == {"size": len(FILE)}


async def subscribe(url: str) -> None:
    from websockets.asyncio.client import connect
    from websockets.typing import Subprotocol

    async with connect(url.replace("http", "ws") + "/", subprotocols=[Subprotocol("graphql-transport-ws")]) as socket:
        await socket.send('{"type": "connection_init"}')
        assert json.loads(await socket.recv())["type"] == "connection_ack"
        payload = {"query": "subscription { count(to: 5) }"}
        await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
        for number in range(5):
            assert json.loads(await socket.recv())["payload"]["data"] == {"count": number}
        assert json.loads(await socket.recv())["type"] == "complete"

"""The admin endpoint's answers, by the app itself and a master's end of a line that the test holds."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from aserver.admin import line
from aserver.admin.app import MOST_VIEWERS, AdminApp
from aserver.admin.line import MasterLine
from tests.harness import eventually
from tests.unit.metrics.looks import metrics, status

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


class Stage:
    """The app, and the master's end of its line."""

    def __init__(self) -> None:
        theirs, ours = socket.socketpair()
        theirs.setblocking(False)
        self.master, self.line = ours, MasterLine(theirs)
        self.app = AdminApp(self.line)
        self.listening = asyncio.create_task(self.line.listen())
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://admin")

    def tell(self, **told: object) -> None:
        self.master.sendall(json.dumps(told).encode() + b"\n")

    async def tell_status(self, at: float = 1.0, **more: object) -> None:
        before = self.line.heard
        self.tell(**metrics(at, ok=[0]))
        self.tell(status={**status(at, (1, 0)), "ready": True, "reason": "the worker serves", **more})
        await eventually(lambda: self.line.heard > before)

    async def get(self, path: str) -> tuple[int, str]:
        answer = await self.client.get(path)
        return answer.status_code, answer.text


@pytest.fixture
async def stage(anyio_backend: str) -> AsyncIterator[Stage]:
    stage = Stage()
    yield stage
    stage.master.close()
    await stage.listening
    await stage.client.aclose()


async def test_health_is_the_masters_word(stage: Stage) -> None:
    """Fails with 200 for whatever answers."""
    assert (await stage.get("/readyz"))[0] == 503, "it has not been heard yet"
    assert (await stage.get("/status"))[0] == 503
    await stage.tell_status()
    assert await stage.get("/livez") == (200, "ok: the master answers\n")
    assert await stage.get("/readyz") == (200, "ok: the worker serves\n")
    assert json.loads((await stage.get("/status"))[1])["reason"] == "the worker serves"
    await stage.tell_status(ready=False, reason="no worker serves")
    assert await stage.get("/readyz") == (503, "unavailable: no worker serves\n")
    assert (await stage.get("/livez"))[0] == 200


async def test_not_ready_is_asked_again_before_it_is_said(stage: Stage) -> None:
    """Fails with the last answer, and with the next one while a question is under way, which was made before."""
    asking = asyncio.create_task(stage.get("/readyz"))  # the first question is under way
    await stage.tell_status(ready=False, reason="the server boots")
    await stage.tell_status()
    assert await asking == (200, "ok: the worker serves\n")
    await stage.tell_status(ready=False, reason="no worker serves")
    asking = asyncio.create_task(stage.get("/readyz"))
    await asyncio.sleep(0)
    await stage.tell_status()
    assert await asking == (200, "ok: the worker serves\n")


async def test_a_master_that_does_not_answer_is_neither_alive_nor_ready(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails with the last answer taken for the present."""
    await stage.tell_status()
    monkeypatch.setattr(line, "STALE", 0.0)
    for path in ("/livez", "/readyz"):
        code, text = await stage.get(path)
        assert code == 503
        assert "has not answered for" in text


async def test_it_shows_and_changes_nothing(stage: Stage) -> None:
    """Fails with POST taken for GET; and every answer has the policy that keeps other pages out."""
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = await stage.client.request(method, "/status")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    answer = await stage.client.get("/nothing")
    assert answer.status_code == 404
    assert "/readyz" in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "unsafe" not in policy


async def test_the_events_are_the_past_and_then_the_news(stage: Stage) -> None:
    """Fails with records told twice or left out, and with a stream that outlives the line."""
    await stage.tell_status(at=1.0)
    await stage.tell_status(at=2.0)
    stage.tell(record={"number": 1, "event": "worker.ready"})
    await eventually(lambda: stage.line.records)
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/events"}
    viewing = asyncio.create_task(stage.app(scope, receive, send))
    await eventually(lambda: len(sent) >= 3)
    stage.tell(record={"number": 2, "event": "worker.died"})
    await stage.tell_status(at=3.0)
    stage.master.close()
    await asyncio.wait_for(viewing, 10)
    text = b"".join(each.get("body", b"") for each in sent).decode()
    told = [part.splitlines() for part in text.split("\n\n") if part.startswith("event: ")]
    events = [(lines[0].removeprefix("event: "), json.loads(lines[1].removeprefix("data: "))) for lines in told]
    begin = events[0][1]
    assert [record["number"] for record in begin["records"]] == [1]
    assert len(begin["samples"]) == 1
    assert [data["number"] for name, data in events if name == "record"] == [2]
    assert [data["status"]["uptime"] for name, data in events if name == "tick"] == [3.0]


async def test_a_websocket_is_refused(stage: Stage) -> None:
    """Fails with an app that returns without a word, which is an error in the log for each attempt."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await stage.app({"type": "websocket", "path": "/events"}, None, send)  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close"}]


async def test_viewers_are_bounded(stage: Stage) -> None:
    """Fails without MOST_VIEWERS, or with places that are not given back."""

    async def send(message: Any) -> None:
        pass

    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/events"}
    viewing = [asyncio.create_task(stage.app(scope, None, send)) for _ in range(MOST_VIEWERS)]  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert (await stage.get("/events"))[0] == 503
    for each in viewing:
        each.cancel()
    await asyncio.wait(viewing)
    stage.master.close()
    assert (await stage.get("/events"))[0] == 200

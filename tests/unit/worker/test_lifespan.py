"""One worker's lifespan: every way in which an app may begin, refuse, hang, break and end."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio
import pytest

from aserver.asgi import ASGIApp, Receive, Scope, Send
from aserver.errors import BootError
from aserver.worker.lifespan import Lifespan
from tests.harness import PATIENCE

Mode = Literal["auto", "on", "off"]
Steps = Callable[[Receive, Send], Awaitable[None]]


def app_of(steps: Steps) -> ASGIApp:
    """An app that does this in its lifespan."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan"
        scope["state"]["from"] = "the app"
        await steps(receive, send)

    return app


async def _good(receive: Receive, send: Send) -> None:
    assert await receive() == {"type": "lifespan.startup"}
    await send({"type": "lifespan.startup.complete"})
    assert await receive() == {"type": "lifespan.shutdown"}
    await send({"type": "lifespan.shutdown.complete"})


async def _raises(receive: Receive, send: Send) -> None:
    raise ValueError("no lifespan here")


async def _returns(receive: Receive, send: Send) -> None:
    await receive()


async def _leaves(receive: Receive, send: Send) -> None:
    raise SystemExit(3)


async def _fails(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the database is away"})


async def _fails_and_raises(receive: Receive, send: Send) -> None:
    await _fails(receive, send)
    raise RuntimeError("as Starlette does")


def _left() -> list[str]:
    """The lifespan tasks that still run."""
    return [task.get_name() for task in asyncio.all_tasks() if "lifespan" in task.get_name()]


@pytest.fixture
def anyio_backend() -> str:
    """The worker's loop speaks asyncio."""
    return "asyncio"


@pytest.mark.parametrize("mode", ["auto", "on"])
async def test_up_and_down_with_state(mode: Mode) -> None:
    lifespan = Lifespan(app_of(_good), mode)
    await lifespan.startup()
    assert lifespan.supported
    assert lifespan.state == {"from": "the app"}
    await lifespan.shutdown(5)
    assert not _left()


async def test_off_never_calls_the_app() -> None:
    lifespan = Lifespan(app_of(_raises), "off")
    await lifespan.startup()
    await lifespan.shutdown(5)
    assert (lifespan.supported, lifespan.state) == (False, {})


@pytest.mark.parametrize("steps", [_raises, _returns, _leaves])
async def test_auto_serves_an_app_that_does_not_speak_lifespan(steps: Steps) -> None:
    """ASGI specification, lifespan: an exception at startup means "unsupported"."""
    lifespan = Lifespan(app_of(steps), "auto")
    await lifespan.startup()
    assert not lifespan.supported
    await lifespan.shutdown(5)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (_raises, "lifespan startup failed: ValueError: no lifespan here"),
        (_leaves, "lifespan startup failed: SystemExit: 3"),
        (_returns, "the app returned before startup was complete"),
    ],
)
async def test_on_refuses_what_does_not_complete_startup(steps: Steps, said: str) -> None:
    with pytest.raises(BootError, match=said) as caught:
        await Lifespan(app_of(steps), "on").startup()
    frames = [line for line in "".join(getattr(caught.value, "__notes__", [])).splitlines() if "File " in line]
    assert all("test_lifespan.py" in frame for frame in frames), "the user's own frames only"


@pytest.mark.parametrize("mode", ["auto", "on"])
@pytest.mark.parametrize("steps", [_fails, _fails_and_raises])
async def test_startup_failed_is_an_error_in_every_mode(mode: Mode, steps: Steps) -> None:
    """uvicorn and hypercorn exit 0 here."""
    with pytest.raises(BootError, match=r"^lifespan startup failed: the database is away$"):
        await Lifespan(app_of(steps), mode).startup()
    assert not _left()


async def test_a_traceback_as_message_becomes_a_note() -> None:
    async def steps(receive: Receive, send: Send) -> None:
        await receive()
        message = 'Traceback (most recent call last):\n  File "app.py", line 1\nValueError: no\n'
        await send({"type": "lifespan.startup.failed", "message": message})

    with pytest.raises(BootError) as caught:
        await Lifespan(app_of(steps), "auto").startup()
    assert str(caught.value) == "lifespan startup failed: ValueError: no"
    assert "app.py" in caught.value.__notes__[0]


async def test_startup_failed_without_a_message() -> None:
    async def steps(receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.failed"})

    with pytest.raises(BootError, match=r"^lifespan startup failed$"):
        await Lifespan(app_of(steps), "auto").startup()


async def test_cancelled_startup_waits_for_the_app_to_unwind() -> None:
    """Under a scope that goes on cancelling. Fails without the shield in startup."""
    events: list[str] = []

    async def steps(receive: Receive, send: Send) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.05)
            events.append("unwound")

    with anyio.CancelScope() as scope:
        asyncio.get_running_loop().call_later(0.01, scope.cancel)
        await Lifespan(app_of(steps), "auto").startup()
    assert events == ["unwound"]


async def test_auto_warns_of_a_startup_that_broke(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An app that has asked for the event does speak lifespan; one that has not is not worth a warning."""
    monkeypatch.setattr(logging.getLogger("aserver"), "propagate", True)

    async def breaks(receive: Receive, send: Send) -> None:
        await receive()
        raise ValueError("no database")

    for steps in (breaks, _raises):
        await Lifespan(app_of(steps), "auto").startup()
    (warning,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert "the app raised in lifespan startup" in warning.getMessage()
    assert warning.exc_info


async def test_startup_that_hangs_says_where(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through Starlette's way of doing it: a context manager made of a generator. Fails with task.get_stack()."""
    monkeypatch.setattr(logging.getLogger("aserver"), "propagate", True)

    async def connect() -> None:
        await asyncio.sleep(PATIENCE)

    @asynccontextmanager
    async def database() -> AsyncIterator[None]:
        await connect()
        yield

    async def opens(receive: Receive, send: Send) -> None:
        async with database():
            raise AssertionError

    lifespan = Lifespan(app_of(opens), "auto")
    with anyio.move_on_after(PATIENCE) as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(lifespan.startup, 0.1)
            while not caplog.messages:
                await asyncio.sleep(0.01)
            group.cancel_scope.cancel()
    assert not scope.cancelled_caught
    (said,) = caplog.messages
    assert said.startswith("lifespan startup has not ended after 0.05 s (boot_timeout is 0.1 s); it waits here:\n")
    functions = [line.rpartition(" in ")[2] for line in said.splitlines() if line.startswith("  File ")]
    assert [name for name in functions if name in ("opens", "database", "connect")] == ["opens", "database", "connect"]
    assert "lifespan.py" not in said.replace("test_lifespan.py", "")


async def test_startup_that_has_ended_is_not_late(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails with the timer left running."""
    monkeypatch.setattr(logging.getLogger("aserver"), "propagate", True)
    lifespan = Lifespan(app_of(_good), "auto")
    await lifespan.startup(0.4)
    await asyncio.sleep(0.3)
    await lifespan.shutdown(5)
    assert caplog.messages == []


async def test_shutdown_has_a_limit(caplog: pytest.LogCaptureFixture) -> None:
    """Fails without the wait_for."""

    async def steps(receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.sleep(3600)

    lifespan = Lifespan(app_of(steps), "auto")
    await lifespan.startup()
    await lifespan.shutdown(0.01)
    assert "did not end within 0.01 s (lifespan_shutdown_timeout)" in caplog.text
    assert not _left()


async def test_shutdown_that_fails_or_raises_is_said_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "could not flush"})

    async def raises(receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise RuntimeError("in shutdown")

    for steps in (fails, raises):
        lifespan = Lifespan(app_of(steps), "auto")
        await lifespan.startup()
        await lifespan.shutdown(5)
    assert "lifespan shutdown failed: could not flush" in caplog.text
    assert "the app raised in lifespan shutdown" in caplog.text
    assert "RuntimeError: in shutdown" in caplog.text


async def test_a_lifespan_that_ends_while_serving_is_said(caplog: pytest.LogCaptureFixture) -> None:
    async def steps(receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})

    lifespan = Lifespan(app_of(steps), "auto")
    with caplog.at_level(logging.ERROR):
        await lifespan.startup()
        while lifespan.supported:
            await asyncio.sleep(0)
    assert "lifespan ended while the worker serves" in caplog.text
    await lifespan.shutdown(5)


@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "lifespan.shutdown.complete"}],
        [{"type": "lifespan.startup.complete"}, {"type": "lifespan.startup.complete"}],
        [{"type": "http.response.start"}],
    ],
)
async def test_messages_out_of_order_are_the_apps_error(messages: list[dict[str, Any]]) -> None:
    errors: list[RuntimeError] = []

    async def steps(receive: Receive, send: Send) -> None:
        await receive()
        try:
            for message in messages:
                await send(message)
        except RuntimeError as error:
            errors.append(error)

    lifespan = Lifespan(app_of(steps), "auto")
    await lifespan.startup()
    await asyncio.sleep(0)
    assert "is out of order" in str(errors[0])
    await lifespan.shutdown(5)


async def test_an_app_that_swallows_cancellation_does_not_keep_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left behind after a moment. Fails with `await self._task` in _end."""
    release = asyncio.Event()

    async def steps(receive: Receive, send: Send) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    lifespan = Lifespan(app_of(steps), "auto")
    with anyio.move_on_after(0.01):
        await lifespan.startup()
    release.set()
    await asyncio.sleep(0)

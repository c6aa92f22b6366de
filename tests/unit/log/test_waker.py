"""When a blocked sink is tried again, by a loop that only notes. Each docstring says how it was seen to fail."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from aserver.log.waker import LOOK_PAUSE, RETRY_PAUSE, Wait, Waker


class Loop:
    """The part of a loop that a waker uses; a test calls what is scheduled."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.writers: dict[int, Callable[[], None]] = {}
        self.closed = False

    def call_soon_threadsafe(self, call: Callable[[], None]) -> None:
        if self.closed:
            raise RuntimeError("the loop is closed")
        self.soon.append(call)

    def turn(self) -> None:
        calls, self.soon = self.soon, []
        for call in calls:
            call()

    def call_later(self, seconds: float, call: Callable[[], None]) -> Any:
        timer = seconds, call
        self.timers.append(timer)
        return SimpleNamespace(cancel=lambda: self.timers.remove(timer) if timer in self.timers else None)

    def fire(self) -> float:
        seconds, call = self.timers.pop()
        call()
        return seconds

    def add_writer(self, fd: int, call: Callable[[], None]) -> None:
        self.writers[fd] = call

    def remove_writer(self, fd: int) -> None:
        del self.writers[fd]

    def is_closed(self) -> bool:
        return self.closed


class Stage:
    def __init__(self, *, watchable: bool = True) -> None:
        self.loop = Loop()
        self.wait = Wait.READER
        self.resumed = 0
        descriptor: Any = SimpleNamespace(fd=9, watchable=watchable)
        self.waker = Waker(descriptor, lambda: self.wait, self.resume)
        self.waker.attach(self.loop)  # type: ignore[arg-type]

    def resume(self) -> None:
        self.resumed += 1


def test_a_reader_is_waited_for_until_all_is_written() -> None:
    """Fails with a second call for a second `ask`, or a watch that stays: a pipe with room is ready for ever."""
    stage = Stage()
    stage.waker.ask()
    stage.waker.ask()
    assert len(stage.loop.soon) == 1
    stage.loop.turn()
    stage.loop.writers[9]()
    assert (stage.resumed, list(stage.loop.writers)) == (1, [9])
    stage.wait = Wait.NOTHING
    stage.loop.writers[9]()
    assert (stage.resumed, stage.loop.writers, stage.loop.timers) == (2, {}, [])


@pytest.mark.parametrize(
    ("wait", "watchable", "pause"), [(Wait.READER, False, LOOK_PAUSE), (Wait.ROOM, True, RETRY_PAUSE)]
)
def test_what_a_loop_cannot_watch_is_looked_at_again(wait: Wait, watchable: bool, pause: float) -> None:
    """Fails where a full disk is watched, of which no readiness is reported, or tried a hundred times a second."""
    stage = Stage(watchable=watchable)
    stage.wait = wait
    stage.waker.ask()
    stage.loop.turn()
    assert not stage.loop.writers
    assert stage.loop.fire() == pause
    assert stage.loop.fire() == pause
    stage.wait = Wait.NOTHING
    stage.loop.fire()
    assert (stage.resumed, stage.loop.timers) == (3, [])


def test_a_reader_that_is_gone_becomes_a_pause() -> None:
    """Fails without `stop` in `_woken`: a broken pipe reports readiness for ever."""
    stage = Stage()
    stage.waker.ask()
    stage.loop.turn()
    stage.wait = Wait.ROOM
    stage.loop.writers[9]()
    assert (stage.loop.writers, [seconds for seconds, _ in stage.loop.timers]) == ({}, [RETRY_PAUSE])


def test_without_a_loop_the_next_record_tries_again() -> None:
    """Fails with the loop's error in the application's call of a logger, or a loop that is asked again and again."""
    stage = Stage()
    stage.loop.closed = True
    stage.waker.ask()
    stage.loop.closed = False
    stage.waker.ask()
    assert not stage.loop.soon


@pytest.mark.parametrize("leave", ["stop", "attach"])
def test_nothing_is_watched_before_the_descriptor_changes(leave: str) -> None:
    """Fails with a watch on a number that is another file's by then."""
    for stage in (Stage(), Stage(watchable=False)):
        stage.waker.ask()
        stage.loop.turn()
        if leave == "stop":
            stage.waker.stop()
        else:
            stage.waker.attach(None)
        assert (stage.loop.writers, stage.loop.timers) == ({}, [])


def test_a_forked_child_leaves_its_parents_loop_alone() -> None:
    """Fails with `stop` in its place: the epoll descriptor is the parent's."""
    stage = Stage()
    stage.waker.ask()
    stage.loop.turn()
    stage.waker.forget()
    stage.waker.stop()
    assert list(stage.loop.writers) == [9]
    stage.waker.ask()
    assert not stage.loop.soon

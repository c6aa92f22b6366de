"""What a reload keeps, opens and lets go of: addresses and logs that do not change stay the same objects."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from aserver.config import Layer, Resolved, build
from aserver.errors import BindError, ConfigError
from aserver.master.resources import AllResources, Resources, close_unused, provide, provide_next


def _resolved(tmp_path: Path, **settings: object) -> Resolved:
    values = {"target": "a:b", "errorlog": str(tmp_path / "error.log"), "accesslog": str(tmp_path / "access.log")}
    return build([Layer("test", values | settings)])


@pytest.fixture
def first(tmp_path: Path) -> Iterator[Resources]:
    resources = provide(_resolved(tmp_path, bind=["127.0.0.1:0", f"unix:{tmp_path}/a.sock"], workers=2), {})
    yield resources
    close_unused(resources, ())


def _open_files() -> set[str]:
    return {
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    }


def test_what_does_not_change_is_the_same_object(first: Resources, tmp_path: Path) -> None:
    """Fails with listeners bound anew for each generation: the address would be let go of in between."""
    specs = list(first.bound)
    second, remarks = provide_next(first, _resolved(tmp_path, bind=specs, workers=3))
    assert remarks == []
    assert second.workers == 3
    assert all(old is new for old, new in zip(first.listeners, second.listeners, strict=True))
    assert [id(log) for log in second.logs] == [id(log) for log in first.logs]
    assert close_unused(first, (second,)) == []
    assert all(listener.socket.fileno() >= 0 for listener in second.listeners)


def test_what_is_new_is_opened_and_what_only_the_old_one_used_is_closed(first: Resources, tmp_path: Path) -> None:
    """Fails with close_unused that closes by generation instead of by use."""
    tcp, unix = first.bound
    changed = _resolved(tmp_path, bind=[unix, f"unix:{tmp_path}/b.sock"], errorlog=str(tmp_path / "new.log"))
    second, _ = provide_next(first, changed)
    try:
        assert second.bound[unix] == first.bound[unix]
        assert list(second.bound) == [unix, f"unix:{tmp_path}/b.sock"]
        (gone,) = close_unused(first, (second,))
        assert gone is first.bound[tcp][0]
        assert gone.socket.fileno() == -1
        assert str(tmp_path / "error.log") not in _open_files()
        assert {str(tmp_path / "new.log"), str(tmp_path / "access.log")} <= _open_files()
    finally:
        close_unused(second, ())
        first.bound.clear()
        first.logs.clear()


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"bind": ["127.0.0.1:0", "unix:/there/is/none/a.sock"]}, BindError, "/there/is/none"),
        ({"bind": ["127.0.0.1:0"], "errorlog": "/there/is/none/log"}, ConfigError, "/there/is/none/log"),
    ],
)
def test_a_reload_that_is_refused_leaves_nothing_open(
    first: Resources, settings: dict[str, object], error: type[Exception], said: str, tmp_path: Path
) -> None:
    """Fails without the ExitStack: the address bound before the mistake stays taken."""
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(error, match=said):
        provide_next(first, _resolved(tmp_path, **settings))
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_what_only_a_restart_changes_is_kept_and_said(first: Resources, tmp_path: Path) -> None:
    """Fails without msgspec.structs.replace: the zygote would be told another name than the master has."""
    changed = _resolved(tmp_path, bind=list(first.bound), proc_name="other", pidfile="/run/other.pid")
    second, remarks = provide_next(first, changed)
    assert second.config.proc_name == first.config.proc_name
    assert second.config.pidfile is None
    assert sorted(each.split()[0] for each in remarks) == ["pidfile", "proc_name"]
    assert all("until a restart" in each for each in remarks)


def test_a_reload_may_go_on_from_one_that_never_served(first: Resources, tmp_path: Path) -> None:
    """What a waiting reload has bound is taken over, not bound again. Fails if it goes on from the serving one."""
    specs = [*first.bound, f"unix:{tmp_path}/b.sock"]
    waiting, _ = provide_next(first, _resolved(tmp_path, bind=specs))
    latest, _ = provide_next(waiting, _resolved(tmp_path, bind=specs))
    assert latest.listeners == waiting.listeners
    assert close_unused(waiting, (first, latest)) == []
    with pytest.raises(BindError):
        provide_next(first, _resolved(tmp_path, bind=specs))
    assert [each.name for each in close_unused(latest, (first,))] == [f"unix:{tmp_path}/b.sock"]


def test_what_only_a_failed_generation_used_is_closed(tmp_path: Path) -> None:
    """Its address can be bound by the next attempt. Fails without the step back of `next` in `AllResources.forget`."""
    old, new = f"unix:{tmp_path}/a.sock", f"unix:{tmp_path}/b.sock"
    every = AllResources(provide(_resolved(tmp_path, bind=[old]), {}))
    first = every.give(1)
    fresh, _ = provide_next(every.next, _resolved(tmp_path, bind=[old, new]))
    every.replace_next(fresh)
    assert every.give(2) is fresh
    assert every.give(1) is first
    shared, added = every.listeners
    assert [shared.name, added.name] == [old, new]
    assert len(every.logs) == 2
    every.forget(2)
    assert every.next is first
    assert shared.socket.fileno() >= 0
    assert added.socket.fileno() == -1
    every.close()
    assert shared.socket.fileno() == -1


def test_a_listener_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A reload listens again on what is bound already, for the backlog. Fails without `accepting`."""
    caplog.set_level(logging.INFO, "aserver.master")
    every = AllResources(provide(_resolved(tmp_path, bind=[f"unix:{tmp_path}/a.sock"]), {}))
    every.give(1)
    assert every.listen(1) == []
    every.give(2)
    assert every.listen(2) == []
    assert every.serving == 2
    assert caplog.messages == [f"listening on unix:{tmp_path}/a.sock"]
    every.close()


def test_a_log_that_cannot_be_opened_again_is_written_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Fails without the except in `AllResources.reopen_logs`: the other log would not be rotated."""
    every = AllResources(provide(_resolved(tmp_path), {}))
    error, access = every.give(1).logs
    before = error.fd, os.fstat(access.fd).st_ino
    (tmp_path / "error.log").unlink()
    (tmp_path / "error.log").mkdir()
    (tmp_path / "access.log").rename(tmp_path / "access.log.1")
    every.reopen_logs()
    assert error.fd == before[0]
    assert os.fstat(access.fd).st_ino != before[1]
    (message,) = caplog.messages
    assert message.endswith("; the old file is written on")
    every.close()

"""Requests of `preload_warmup` run in the zygote, and the workers have what they have left."""

from collections.abc import Callable

import pytest

from tests.harness import ServerProcess

pytestmark = pytest.mark.process


def test_workers_begin_where_the_warm_up_ended(server: Callable[..., ServerProcess]) -> None:
    """Fails without `warm_up` in preload: the worker's own request is the first."""
    running = server(
        "tests.apps.warmed:app", "--workers", "1", "--preload-warmup", "GET /", "--preload-warmup", "GET /"
    )
    (zygote,) = running.zygotes()
    (worker,) = running.workers()
    assert running.ask() == [zygote.pid, zygote.pid, worker.pid]


def test_a_warm_up_that_a_fork_would_break_is_told(server: Callable[..., ServerProcess]) -> None:
    """And each worker loads the application itself, as after any hazard. Fails where requests run after the census."""
    running = server("tests.apps.warmed:app", "--workers", "1", "--preload-warmup", "GET /thread")
    assert len(running.ask()) == 1
    running.wait_log(r"thread 'left' started at .*warmed\.py:\d+ in app: .*each worker loads the app itself")

"""What each signal asks of the master."""

import asyncio
import signal
from typing import Any
from unittest.mock import Mock, call

import pytest

from aserver import terminal
from aserver.master import signals
from aserver.master.core.events import StopMode
from aserver.master.signals import handled
from tests.harness.waiting import turns_of_the_loop

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]  # the master's loop


async def _calls(*numbers: signal.Signals, at_prompt: bool = False) -> list[Any]:
    """What a runner is called for, when these signals have come in one turn of the loop."""
    runner = Mock(noted=[], at_prompt=at_prompt)
    with handled(asyncio.get_running_loop(), runner):
        for signum in numbers:
            signal.raise_signal(signum)
        await turns_of_the_loop(10)
    assert runner.noted == []
    return list(runner.method_calls)


@pytest.mark.parametrize(
    ("signum", "called"),
    [
        (signal.SIGTERM, call.stop(StopMode.GRACEFUL, "SIGTERM")),
        (signal.SIGINT, call.stop(StopMode.QUICK, "SIGINT")),
        (signal.SIGQUIT, call.stop(StopMode.QUICK, "SIGQUIT")),
        (signal.SIGHUP, call.reload("SIGHUP")),
        (signal.SIGUSR1, call.reopen_logs()),
        (signal.SIGUSR2, call.upgrade("SIGUSR2")),
        (signal.SIGTTIN, call.scale(delta=1)),
        (signal.SIGTTOU, call.scale(delta=-1)),
        (signal.SIGWINCH, call.scale(to=0)),
    ],
)
async def test_every_signal_of_the_page(signum: signal.Signals, called: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/signals.md. Fails with a signal left out of the table, and with a handler that stays behind."""
    monkeypatch.setattr(terminal, "controls_us", lambda: False)
    before = signal.getsignal(signum)
    assert await _calls(signum) == [called]
    assert signal.getsignal(signum) in (before, signal.SIG_DFL)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
async def test_a_stop_that_echoes_counts_once_and_another_one_hurries(
    signum: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails without ECHO: `timeout -s INT` would kill what still runs."""
    other = signal.SIGINT if signum is signal.SIGTERM else signal.SIGTERM
    assert [each.args[1] for each in await _calls(signum, other, signum)] == [signum.name, other.name]
    monkeypatch.setattr(signals, "ECHO", 0.0)
    assert len(await _calls(signum, other, signum)) == 3, "a second later"


async def test_ctrl_c_is_a_debuggers_at_its_prompt() -> None:
    """Fails without `at_prompt`: pdb's prompt would be the end of the server."""
    assert await _calls(signal.SIGINT, at_prompt=True) == []
    assert await _calls(signal.SIGQUIT, at_prompt=True) == [call.stop(StopMode.QUICK, "SIGQUIT")]


async def test_a_terminals_winch_is_left_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """It means that the window has another size. Fails without `controls_us`: all workers would leave."""
    monkeypatch.setattr(terminal, "controls_us", lambda: True)
    assert await _calls(signal.SIGWINCH) == []


async def test_an_action_that_fails_keeps_no_other_from_its_turn() -> None:
    """Fails with one turn for all that is noted."""
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context["exception"]))
    runner = Mock(noted=[], at_prompt=False)
    runner.reload.side_effect = ValueError("a mistake")
    with handled(asyncio.get_running_loop(), runner):
        for signum in (signal.SIGHUP, signal.SIGUSR1):
            signal.raise_signal(signum)
        await turns_of_the_loop(10)
    assert runner.method_calls == [call.reload("SIGHUP"), call.reopen_logs()]
    assert len(errors) == 1

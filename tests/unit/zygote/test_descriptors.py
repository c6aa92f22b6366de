"""Loops that an import leaves behind, and what a forked child makes of them."""

import asyncio
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from aserver.zygote.descriptors import make_private
from tests.unit.zygote.loads import load

# The workers of a parallel run (-n) have threads of their own, which the census of this very process finds.
pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif("PYTEST_XDIST_WORKER" in os.environ, reason="needs a process without xdist's threads: no -n"),
]


def test_a_loop_that_is_open_is_found_and_a_closed_one_is_not(tmp_path: Path) -> None:
    code = (
        "import asyncio\nloop = asyncio.new_event_loop()\nother = asyncio.new_event_loop()\n"
        "for each in (loop, other):\n    each.run_until_complete(asyncio.sleep(0))\nother.close()"
    )
    loaded = load(tmp_path, "census_loop", code)
    (found,) = loaded.hazards
    assert "an event loop that was not closed" in found
    assert loaded.unused_loops == ()
    sys.modules["census_loop"].loop.close()


def test_a_loop_that_never_ran_is_no_hazard(tmp_path: Path) -> None:
    """As gradio makes one for a Lock. Fails without LoopWatch.unused, and with a patch of `run_forever` that stays."""
    original = asyncio.BaseEventLoop.run_forever
    code = "import asyncio\nloop = asyncio.new_event_loop()"
    loaded = load(tmp_path, "census_unused_loop", code)
    loop = sys.modules["census_unused_loop"].loop
    assert loaded.hazards == ()
    assert loaded.unused_loops == (loop,)
    assert asyncio.BaseEventLoop.run_forever is original
    loop.close()


@pytest.mark.parametrize(
    "made",
    ["loop.add_reader(pair[0], print)", "loop = __import__('uvloop').new_event_loop()"],
    ids=["watches", "uvloop"],
)
def test_a_loop_that_cannot_be_made_private_is_a_hazard(tmp_path: Path, made: str) -> None:
    """Fails without the look at what the selector watches, and with uvloop's loops left out of the hazards."""
    name = f"census_loop_{len(made)}"
    code = f"import asyncio, socket\npair = socket.socketpair()\nloop = asyncio.new_event_loop()\nfirst = loop\n{made}"
    loaded = load(tmp_path, name, code)
    module = sys.modules[name]
    assert any("an event loop that was not closed" in hazard for hazard in loaded.hazards)
    assert module.loop not in loaded.unused_loops
    for each in (module.loop, module.first, *module.pair):
        each.close()


def test_a_loop_made_private_shares_nothing_with_its_copy() -> None:
    """The child's loop runs and wakes itself, and the parent's sees nothing of it.

    Fails without either dup2 in make_private: the parent's poll descriptor reports what the child's loop watches, or
    the child's waking.
    """
    loop: Any = asyncio.new_event_loop()
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(10)  # SIGALRM ends it
            make_private(loop)
            loop.run_until_complete(asyncio.sleep(0))
            theirs.send(b"something to read")
            loop.add_reader(ours, int)
            threading.Thread(target=loop.call_soon_threadsafe, args=(loop.stop,)).start()
            loop.run_forever()  # ends only if it is woken
            loop.call_soon_threadsafe(int)
            theirs.send(b" and done")
            theirs.recv(1)  # until the parent has looked
        finally:
            os._exit(0)
    with ours, theirs:
        theirs.close()  # the end of a child that failed ends the wait
        while (said := ours.recv(100, socket.MSG_PEEK)) and not said.endswith(b"done"):
            pass
        assert loop._selector.select(0) == []
        assert loop._selector._selector.poll(0) == []
        ours.send(b"!")
        assert os.waitpid(pid, 0)[1] == 0
        loop.close()

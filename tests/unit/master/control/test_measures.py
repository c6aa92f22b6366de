"""CPU time and memory of a process, and the days that a certificate has left."""

import os
import time
from pathlib import Path

import pytest

from aserver import tls
from aserver.master.control.measures import Measures, days_left


def test_a_process_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """This one, whose clock the test moves. Fails with the share since the process began, at the second look."""
    measures, pid = Measures(), os.getpid()
    seconds, share = measures.cpu(pid)
    assert seconds > 0
    assert share >= 0
    assert measures.memory(pid) > 1 << 20
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1000.0)
    later, share = measures.cpu(pid)
    assert share == pytest.approx((later - seconds) / 1000.0, abs=0.002)


def test_memory_is_not_read_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the kernel milliseconds. Fails without `memory_due`."""
    read: list[int] = []

    def sums(pid: int) -> dict[str, int]:
        read.append(pid)
        return {"Private_Dirty": 5}

    monkeypatch.setattr("aserver.unix.smaps_rollup", sums)
    measures = Measures()
    assert [measures.memory(7), measures.memory(7)] == [5, 5]
    assert read == [7]
    measures.keep({8})
    measures.memory(7)
    assert read == [7, 7]


def test_a_process_that_is_gone_counts_nothing() -> None:
    """Fails without the suppress: the whole status would fail."""
    assert Measures().cpu(2**22 + 1) == (0.0, 0.0)
    assert Measures().memory(2**22 + 1) == 0


def test_the_days_that_a_certificate_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails with the seconds as they are, and with an exception for a file that cannot be read."""
    ends = {Path("a.pem"): time.time() + 89.6 * 86400, Path("b.pem"): None}
    monkeypatch.setattr(tls, "expiry", ends.get)
    assert (days_left("a.pem"), days_left("b.pem")) == (89.6, None)

"""glibc's thresholds, set on a library that notes the calls. Each docstring says how it was seen to fail."""

import ctypes
from types import SimpleNamespace

import pytest

from aserver.zygote import allocator

Calls = list[tuple[int, int]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls: Calls = []
    library = SimpleNamespace(mallopt=lambda option, value: calls.append((option, value)))
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: library)
    return calls


def test_both_thresholds_are_set(calls: Calls) -> None:
    """Setting either alone turns off the other's own growth. Fails without one of them."""
    allocator.keep_freed_memory({"HOME": "/root"})
    assert sorted(calls) == [(-3, allocator.MMAP_THRESHOLD), (-1, allocator.TRIM_THRESHOLD)]


@pytest.mark.parametrize("name", ["GLIBC_TUNABLES", "MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_"])
def test_settings_of_the_operator_stay(calls: Calls, name: str) -> None:
    """Fails without the look at the environment."""
    allocator.keep_freed_memory({name: "1"})
    assert calls == []


def test_a_library_without_the_call_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """musl, macOS. Fails with AttributeError at the start."""
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: SimpleNamespace())
    allocator.keep_freed_memory({})

"""Each protocol test runs on uvloop and, with the same code, on asyncio's own loop."""

import importlib
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


@pytest.fixture
def stays_native(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and from then on no request may be given to the ordinary exchange by `http1/plain.pyx`."""

    def refuse(*_: Any) -> None:
        raise AssertionError("given to the ordinary exchange")

    return lambda: monkeypatch.setattr(importlib.import_module("aserver.protocol.http1.plain"), "Exchange", refuse)

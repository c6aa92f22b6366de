"""Fixtures of tests that bind."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest

from aserver.sockets import Listener, bind_all
from tests.unit.sockets.stage import Bind


@pytest.fixture
def bind() -> Iterator[Bind]:
    """bind_all with quiet defaults; closes what it made at the end of the test."""
    with ExitStack() as undo:

        def call(*specs: str, environ: Mapping[str, str] | None = None, **changes: Any) -> list[Listener]:
            settings: dict[str, Any] = {"uds_mode": None, "uds_owner": None, "uds_group": None, "reuse_port": False}
            listeners = bind_all(specs, environ=environ or {}, pid=os.getpid(), **settings | changes)
            for listener in listeners:
                undo.callback(listener.close)
            return listeners

        yield call

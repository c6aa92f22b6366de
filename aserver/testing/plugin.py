"""The pytest fixture `aserver_live`, which every test of an environment with aserver and pytest has (pytest11).

pytest imports this module at each start, so it imports nothing of the server.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, Unpack

import pytest

from aserver.testing import LiveUrl, live_server

if TYPE_CHECKING:
    from aserver.config.keywords import Settings


class StartLive(Protocol):
    """The type of the fixture, for annotations of tests."""

    def __call__(self, app: Callable[..., Any], **settings: "Unpack[Settings]") -> LiveUrl:
        """Serve `app`, ASGI or WSGI, until the end of the test."""


@pytest.fixture
def aserver_live() -> Iterator[StartLive]:
    """Start real servers: `url = aserver_live(app)` serves `app` on a free port until the end of the test."""
    with contextlib.ExitStack() as stack:
        yield lambda app, **settings: stack.enter_context(live_server(app, **settings))

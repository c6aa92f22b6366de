"""Fixtures of tests with a channel."""

from collections.abc import Iterator

import pytest

from aserver import unix
from aserver.ipc.channel import Channel
from aserver.ipc.messages import (
    ToZygote,
)
from tests.unit.ipc.frames import Pair, ToMaster


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The master's end and the zygote's; whatever is left open in them is closed."""
    ours, theirs = unix.stream_pair()
    # Named by what arrives there: the first reads what is meant for a zygote.
    ends: Pair = Channel(ours, ToZygote), Channel(theirs, ToMaster)
    yield ends
    for end in ends:
        end.close()

"""The bounds of messages: their direction, the length of their texts, the number of their descriptors."""

import pytest

from aserver import unix
from aserver.errors import ChannelError
from aserver.ipc.channel import Channel
from aserver.ipc.messages import (
    FILES_AT_ONCE,
    Adopt,
    BootFailed,
    Drain,
    Exited,
    Forked,
    FromWorker,
    Kill,
    Loaded,
    LoadFailed,
    Message,
    RecycleAsked,
    in_pieces,
)
from tests.unit.ipc.frames import Pair, frame


@pytest.mark.parametrize("count", [0, 1, FILES_AT_ONCE - 1, FILES_AT_ONCE, FILES_AT_ONCE * 2 + 1])
def test_a_fingerprint_in_pieces_is_whole(count: int) -> None:
    files = {f"/{number}.py": (number, number) for number in range(count)}
    pieces = list(in_pieces(files))
    assert all(len(piece) <= FILES_AT_ONCE for piece in pieces)
    assert {name: each for piece in pieces for name, each in piece.items()} == files
    assert pieces, "the last one goes with Loaded or Ready"


def test_a_text_of_any_length_is_cut_before_it_is_sent(pair: Pair) -> None:
    """Fails without BootFailed.__post_init__: a traceback may quote a value of any size."""
    zygote, master = pair
    zygote.send(BootFailed(1, 3, "reason: " + "r" * 5_000_000 + " end", "detail: " + "d" * 5_000_000 + " end"))
    ((message, _),) = master.receive()
    assert isinstance(message, BootFailed)
    for text, begins in ((message.reason, "reason: r"), (message.detail, "detail: d")):
        assert text.startswith(begins)
        assert text.endswith(" end")
        assert "characters are left out" in text
        assert len(text) < 70_000


def test_messages_of_the_other_direction_are_not_understood(pair: Pair) -> None:
    """Each end decodes only what may come. Fails with one union for all."""
    _, master = pair
    master.send(RecycleAsked(1, "due"))  # to the zygote, who expects orders
    with pytest.raises(ChannelError, match="does not know"):
        pair[0].receive()


@pytest.mark.parametrize(
    "message", [Exited(1, 2, 3), Forked(1, 2), LoadFailed(1, 3, "", ""), Loaded(1, False, "", (), 0.0, {})]
)
def test_a_worker_cannot_say_what_is_a_zygotes_to_say(message: Message) -> None:
    """An `Exited` from a worker was a traceback. Fails with one union for both."""
    ours, theirs = unix.stream_pair()
    reader: Channel[FromWorker] = Channel(theirs, FromWorker)
    ours.send(frame(message))
    with pytest.raises(ChannelError, match=f"does not know.*{type(message).__name__}"):
        reader.receive()
    ours.close()
    reader.close()


@pytest.mark.parametrize("message", [Adopt(1, 2), Forked(1, 2)])
def test_a_message_does_not_travel_without_its_descriptors(pair: Pair, message: Adopt | Forked) -> None:
    with pytest.raises(ChannelError, match="descriptors, not 0"):
        pair[0].send(message)


@pytest.mark.parametrize("message", [Drain(1, final=True, graceful=1.0), Kill(1, 9)])
def test_a_message_takes_no_descriptors_that_nobody_would_close(pair: Pair, message: Drain | Kill) -> None:
    with pytest.raises(ChannelError, match="0 to 0 descriptors"):
        pair[1].send(message, [0])

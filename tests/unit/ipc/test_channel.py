"""The channel between aserver's processes: framing, descriptors, and what a broken peer may do."""

import array
import asyncio
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aserver import unix
from aserver.errors import ChannelError
from aserver.ipc.channel import TURN_BYTES, TURN_MESSAGES, Channel
from aserver.ipc.messages import (
    Boot,
    BootFailed,
    Exited,
    Forked,
    FromWorker,
    FromZygote,
    LoadFailed,
    Ready,
    RecycleAsked,
    ToZygote,
)
from tests.unit.ipc.frames import Pair, ToMaster, body, frame

#: The master's loop, and the worker's.
BACKENDS = ["asyncio", pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop")]
#: More than a socket takes at once.
LONG = Ready(4, {"x" * 500_000: (1, 2)})


def test_messages_arrive_whole_and_in_order(pair: Pair) -> None:
    zygote, master = pair
    sent = [RecycleAsked(1, "due"), Exited(2, 3, 256), LONG]
    for message in sent:
        zygote.send(message)
    received: list[ToMaster] = []
    while len(received) < len(sent):
        received += [message for message, fds in master.receive() if not fds]
        zygote.flush()
    assert received == sent
    assert not zygote.pending


def test_descriptors_arrive_with_their_message_and_are_close_on_exec(pair: Pair) -> None:
    """socket.recv_fds would make them inheritable. Fails with `_CLOEXEC = 0`."""
    zygote, master = pair
    files = [os.memfd_create(f"file {number}") for number in range(3)]
    zygote.send(RecycleAsked(7, "due"))
    zygote.send(Forked(1, 2), files)
    (asked, none), (forked, fds) = master.receive()
    assert (asked, none) == (RecycleAsked(7, "due"), [])
    assert forked == Forked(1, 2)
    for mine, got in zip(files, fds, strict=True):
        assert os.fstat(got).st_ino == os.fstat(mine).st_ino
        assert not os.get_inheritable(got)
        os.close(mine)
        os.close(got)


def test_the_sender_keeps_its_descriptors_and_what_waits_has_its_own(pair: Pair) -> None:
    """The caller may close at once, also when the socket was full. Fails without os.dup in send."""
    zygote, master = pair
    zygote.send(LONG)
    assert zygote.pending, "the premise: the socket is full"
    file = os.memfd_create("file")
    inode = os.fstat(file).st_ino
    zygote.send(Forked(1, 2), [file, file])
    os.close(file)
    received: list[tuple[ToMaster, list[int]]] = []
    while len(received) < 2:
        received += master.receive()
        zygote.flush()
    assert [os.fstat(fd).st_ino for fd in received[1][1]] == [inode, inode]
    for fd in received[1][1]:
        os.close(fd)


def test_the_rest_of_a_message_does_not_send_its_descriptors_again(pair: Pair) -> None:
    """They go with the first bytes. Fails with `fds` kept for the rest in flush."""
    zygote, master = pair
    file = os.memfd_create("file")
    boot = Boot(1, {"app": "x" * 500_000}, False, (), 1, (), False)
    master.send(boot, [file, file, file])
    assert master.pending, "the premise: the socket took a part of it"
    os.close(file)
    received: list[tuple[ToZygote, list[int]]] = []
    while not received:
        received += zygote.receive()
        master.flush()
    ((message, fds),) = received
    assert message == boot
    assert len(fds) == 3
    assert zygote.quiet
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("anyio_backend", BACKENDS)
async def test_a_loop_writes_what_the_socket_did_not_take(pair: Pair) -> None:
    """And lets go of the socket then, for it is always writable. Fails without `_await_room` in flush."""
    zygote, master = pair
    loop = asyncio.get_running_loop()
    zygote.flush_by(loop)
    zygote.send(LONG)
    zygote.send(RecycleAsked(1, "due"))
    assert zygote.pending, "the premise: the socket is full"
    received: list[ToMaster] = []
    while len(received) < 2:
        received += [message for message, _ in master.receive()]
        await asyncio.sleep(0)
    assert received == [LONG, RecycleAsked(1, "due")]
    assert not zygote.pending
    assert not loop.remove_writer(zygote.fileno())


@pytest.mark.parametrize("anyio_backend", BACKENDS)
@pytest.mark.parametrize("end", ["flush_by", "close", "peer"])
async def test_a_loop_lets_go_of_a_channel_that_ends(pair: Pair, end: str) -> None:
    """With half a message out. Fails without `flush_by` in close, and without `_await_room` after what drops it."""
    zygote, master = pair
    loop = asyncio.get_running_loop()
    zygote.flush_by(loop)
    zygote.send(LONG)
    number = zygote.fileno()
    if end == "peer":
        master.close()
        zygote.flush()
    elif end == "close":
        zygote.close()
    else:
        zygote.flush_by(None)
    assert not loop.remove_writer(number)


def test_what_the_peer_would_refuse_is_not_sent(pair: Pair) -> None:
    """The sender knows what it was. Fails without the check in send."""
    with pytest.raises(ChannelError, match=r"Ready has 50000.* bytes, and a message at most 4194304"):
        pair[0].send(Ready(1, {"x" * 5_000_000: (1, 2)}))


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_any_cut_of_the_stream_is_put_together(cuts: list[int]) -> None:
    ours, theirs = unix.stream_pair()
    raw, raw_reader = unix.stream_pair()
    sender: Channel[ToZygote] = Channel(raw, ToZygote)
    reader: Channel[ToMaster] = Channel(theirs, ToMaster)
    sent = [RecycleAsked(1, "due"), BootFailed(2, 4, "no such module", "line\n" * 30), Exited(1, 2, 3)]
    for message in sent:
        sender.send(message)
    stream = raw_reader.recv(1 << 20)
    received: list[ToMaster] = []
    for cut in [*cuts, len(stream)]:
        ours.send(stream[:cut])
        stream = stream[cut:]
        received += [message for message, _ in reader.receive()]
        if not stream:
            break
    assert received == sent
    for end in (ours, raw_reader, sender, reader):
        end.close()


def test_eof_is_said_after_what_came_before_it(pair: Pair) -> None:
    zygote, master = pair
    zygote.send(RecycleAsked(1, "due"))
    zygote.close()
    assert [message for message, _ in master.receive()] == [RecycleAsked(1, "due")]
    assert master.eof
    assert master.receive() == []


def test_a_peer_that_is_gone_is_no_error_for_the_sender(pair: Pair) -> None:
    """Its death is learnt elsewhere. Fails without the OSError branch in flush."""
    zygote, master = pair
    master.close()
    zygote.send(RecycleAsked(1, "due"))
    assert not zygote.pending
    zygote.flush_blocking(0.1)


def send_raw(sock: socket.socket, data: bytes, *fds: int) -> None:
    """As only a broken peer would."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([data], rights)


@pytest.fixture
def file() -> Iterator[int]:
    """A descriptor of a file that `still_open` knows."""
    made = os.memfd_create("passed on")
    yield made
    os.close(made)


def still_open() -> int:
    """How many descriptors of that file this process has beside the one that it sends."""
    return sum("passed on" in what for what in unix.open_fds().values()) - 1


def test_lost_descriptors_are_an_error(file: int) -> None:
    """Where there is no room the kernel drops descriptors and says so once. Fails without the check."""
    ours, theirs = unix.stream_pair()
    reader: Channel[FromZygote] = Channel(theirs, FromZygote)
    send_raw(ours, frame(Forked(1, 2), 4), file, file, file, file)
    with pytest.raises(ChannelError, match="more descriptors came than belong to any message"):
        reader.receive()
    assert still_open() == 0
    ours.close()
    reader.close()


def test_a_worker_cannot_bring_a_descriptor_into_the_master(file: int) -> None:
    """No message of its has any, so there is no room for them. Fails with room: 5,000 stayed open after 20 messages."""
    ours, theirs = unix.stream_pair()
    reader: Channel[FromWorker] = Channel(theirs, FromWorker)
    send_raw(ours, frame(RecycleAsked(1, "due"), 1), *[file] * 250)
    with pytest.raises(ChannelError, match="descriptors"):
        reader.receive()
    assert still_open() == 0
    ours.close()
    reader.close()


def test_descriptors_that_no_message_claims_are_closed_and_end_the_conversation(file: int) -> None:
    """With a kind that takes none, in the middle of a message, more than its header says, and behind a good one, whose
    own are closed too. Fails without each of the checks in `receive`.
    """
    for sent in (
        [(frame(Exited(1, 2, 3), 2), (file, file))],
        [(frame(Exited(1, 2, 3))[:9], ()), (frame(Exited(1, 2, 3))[9:], (file,))],
        [(frame(Forked(1, 2), 2), (file, file, file))],
        [(frame(Forked(1, 2), 3), (file, file))],
        [(frame(Forked(1, 2), 2), (file, file)), (frame(Exited(1, 2, 3), 1), (file,))],
    ):
        ours, theirs = unix.stream_pair()
        reader: Channel[FromZygote] = Channel(theirs, FromZygote)
        for data, fds in sent:
            send_raw(ours, data, *fds)
        with pytest.raises(ChannelError, match="descriptors"):
            reader.receive()
        assert still_open() == 0, sent
        assert reader.eof
        assert reader.quiet, "half a message of a peer that is cut off must not hold an upgrade"
        with pytest.raises(BrokenPipeError):
            ours.send(b"more")
        assert reader.receive() == []
        reader.close()
        ours.close()


def test_a_flood_is_taken_in_by_the_turn_and_stays_in_the_socket(pair: Pair) -> None:
    """In messages, and in bytes of one message. Fails with a loop that reads until the socket is empty: while the peer
    writes as fast as we read, the master does nothing else.
    """
    zygote, master = pair
    for number in range(1, 3 * TURN_MESSAGES):
        zygote.send(Exited(number, 2, 3))
    zygote.flush()
    assert len(master.receive()) == TURN_MESSAGES
    assert master.quiet, "nothing of the next message was read"
    assert len(master.receive()) == TURN_MESSAGES
    assert len(master.receive()) == TURN_MESSAGES - 1

    read = 0
    while master.receive() == []:
        zygote.send(LONG)
        before, read = read, master.half_read
        assert read - before <= TURN_BYTES
    assert read > TURN_BYTES, "the premise: it took several turns"


def test_a_channel_whose_description_is_made_blocking_does_not_block_us(pair: Pair) -> None:
    """A zygote keeps a duplicate of a worker's channel, and O_NONBLOCK is the description's. Fails without
    MSG_DONTWAIT, in `receive` and in `flush`: the test, like the master, waits for ever.
    """
    zygote, master = pair
    for end in pair:
        os.set_blocking(end.fileno(), True)
    assert master.receive() == []
    master.send(Boot(1, {"app": "x" * 500_000}, False, (), 1, (), False), [0, 0, 0])
    assert master.pending
    assert zygote.receive() == []


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (struct.pack("!IH", 5 << 20, 0), "5242880 bytes"),
        (struct.pack("!IH", 3, 0) + b"\xc1\xc1\xc1", "does not know"),
        (struct.pack("!IH", 1, 0) + b"\x01", "does not know"),
        (struct.pack("!IH", 0, 2), "0 of its 2 descriptors"),
        (struct.pack("!IH", 0, 0), "does not know"),
        (frame(Exited(1, 2, 3))[:-1] + b"\xc0", "does not know"),
        (frame(Exited(0, 2, 3)), "does not know.*serial"),
        (frame(Exited(1, -2, 3)), "does not know.*pid"),
        (frame(Exited(1, 2, 1 << 40)), "does not know.*status"),
        (frame(LoadFailed(1, 0, "", "")), "does not know.*exit_code"),
        (frame(LoadFailed(1, 1 << 40, "", "")), "does not know.*exit_code"),
        (frame(Forked(1, 1 << 62)), "does not know.*pid"),
        (frame(Ready(1, {})), "does not know"),
        (body(b"\x82\xa4type\xaaUnforkable\xa7hazards\x91\xa1\xf0"), "does not know.*(?i:utf-8)"),
        (body(b"\x82\xa4type\xaaUnforkable\xa4more" + b"\x91" * 100_000), "does not know.*(recursion|truncated)"),
        (body(b"\x82\xa4type\xaaUnforkable\xa7hazards\xdd\xff\xff\xff\xff"), "does not know.*truncated"),
    ],
)
def test_what_a_broken_peer_sends_is_an_error(raw: bytes, said: str) -> None:
    ours, theirs = unix.stream_pair()
    reader: Channel[FromZygote] = Channel(theirs, FromZygote)
    ours.send(raw)
    with pytest.raises(ChannelError, match=said):
        reader.receive()
    ours.close()
    reader.close()


def test_close_lets_go_of_descriptors_that_nobody_took(pair: Pair) -> None:
    """Half a message with its descriptors: they must not stay open for ever. Fails without it in close."""
    ours, theirs = unix.stream_pair()
    reader: Channel[ToMaster] = Channel(theirs, ToMaster)
    file = os.memfd_create("only here")
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))]
    ours.sendmsg([struct.pack("!IH", 100, 1)], rights)
    os.close(file)
    assert reader.receive() == []
    reader.close()
    assert not any("only here" in what for what in unix.open_fds().values())
    ours.close()

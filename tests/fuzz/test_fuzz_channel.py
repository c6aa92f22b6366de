"""The fuzz target of the channel and the master's intake with inputs of Hypothesis."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aserver import unix
from aserver.ipc import messages as msg
from tests.fuzz.fuzz_channel import Sending, Target, check_channel, encode, frame

pytestmark = pytest.mark.skipif(not unix.LINUX, reason="makes memfds and pidfds")

KINDS = ["socket", "memory", "pidfd", "pipe", "inet", "file"]
numbers = st.one_of(st.integers(0, 4), st.integers(-(2**63), 2**64 - 1))
texts = st.one_of(
    st.text(max_size=20), st.sampled_from(["\x1b[2J", "\r\n", "\0", "x" * 70_000, "\x1b" * 5000, "\u202e"])
)
paths = st.one_of(texts, texts.map(lambda text: "/" + text))
files = st.dictionaries(paths, st.tuples(numbers, numbers), max_size=4)
NAMES = [kind.__name__ for kind in msg.Message.__subclasses__()] + ["", "Message", "x" * 100_000, "\x1b[2J"]
#: As msgpack has a message: its fields, rightly or wrongly typed, present or not.
maps = st.fixed_dictionaries(
    {"type": st.sampled_from(NAMES)},
    optional={
        "serial": numbers,
        "generation": numbers,
        "pid": numbers,
        "status": numbers,
        "exit_code": numbers,
        "reason": st.one_of(texts, numbers),
        "detail": texts,
        "lazy": st.booleans(),
        "interface": texts,
        "hazards": st.lists(texts, max_size=2),
        "seconds": st.one_of(st.floats(), numbers),
        "fingerprint": files,
        "files": files,
    },
)
serials, pids = st.integers(1, 4), st.integers(999, 1004)
generations = st.integers(1, 2)
messages = st.one_of(
    st.builds(msg.MoreFiles, files),
    st.builds(msg.Loaded, generations, st.booleans(), texts, st.just(()), st.floats(0, 1e9), files),
    st.builds(msg.Unforkable, generations, st.just(())),
    st.builds(msg.LoadFailed, generations, st.integers(1, 255), texts, texts),
    st.builds(msg.Forked, serials, pids),
    st.builds(msg.ForkFailed, serials, texts),
    st.builds(msg.Exited, serials, pids, st.integers(0, 0xFFFF)),
    st.builds(msg.Ready, serials, files),
    st.builds(msg.BootFailed, serials, st.integers(1, 255), texts, texts),
    st.builds(msg.RecycleAsked, serials, texts),
)
#: A message with some of its bytes changed: text that is no UTF-8, lengths that lie.
broken = st.tuples(messages.map(encode), st.integers(0, 60), st.binary(min_size=1, max_size=3)).map(
    lambda each: each[0][: each[1]] + each[2] + each[0][each[1] + len(each[2]) :]
)
few = st.lists(st.sampled_from(KINDS), max_size=4)


def _wire(body: bytes, kinds: Sequence[str], count: int | None) -> Sending:
    return frame(body, len(kinds) if count is None else count), kinds


forked = st.builds(_wire, st.builds(msg.Forked, serials, pids).map(encode), st.just(["socket", "memory"]), st.none())
framed = st.builds(
    _wire,
    st.one_of(messages.map(encode), maps.map(encode), broken, st.binary(max_size=40)),
    st.one_of(st.just([]), few),
    st.one_of(st.none(), st.none(), st.integers(0, 65535)),
)
cut = st.tuples(framed, st.integers(0, 60)).map(lambda each: (each[0][0][: each[1]], each[0][1]))
raw = st.tuples(st.binary(max_size=64), few)
sendings = st.one_of(framed, framed, forked, cut, raw)


@given(
    expects=st.sampled_from([msg.FromZygote, msg.FromWorker, msg.ToZygote, msg.ToWorker]),
    sent=st.lists(sendings, max_size=6),
    hang_up=st.booleans(),
)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_and_descriptors_at_a_channel(expects: Any, sent: list[Sending], hang_up: bool) -> None:
    check_channel(expects, sent, hang_up=hang_up)


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.close()


@given(sent=st.lists(st.tuples(st.sampled_from(["zygote", "worker"]), sendings), max_size=8))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_news_at_the_master(target: Target, sent: list[tuple[str, Sending]]) -> None:
    target.check_master(sent)

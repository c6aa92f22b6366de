"""Both ends of a channel, and the bytes of a message."""

import struct

import msgspec

from aserver.ipc.channel import Channel
from aserver.ipc.messages import (
    FromWorker,
    FromZygote,
    Message,
    ToZygote,
)

#: Of either kind of peer.
ToMaster = FromZygote | FromWorker
Pair = tuple[Channel[ToZygote], Channel[ToMaster]]


def body(data: bytes, count: int = 0) -> bytes:
    """With its header."""
    return struct.pack("!IH", len(data), count) + data


def frame(message: Message, count: int = 0) -> bytes:
    """As on the wire."""
    return body(msgspec.msgpack.encode(message), count)

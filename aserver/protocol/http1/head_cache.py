"""The plain request heads that were served before, so that most heads need not be parsed again.

Pure. A client says the same fields again and again; only the target differs. Every connection remembers its last plain
head, and `HeadCache` has the worker's last, with which a new connection begins. It must never grow with the requests.
"""

from typing import Final

#: Bytes of a head above which it is not remembered: it is kept as long as the connection, idle or not.
REMEMBERED_SIZE: Final = 2048

#: A plain GET that was parsed and passed the rules: its bytes behind the target, from ` HTTP/1.1` to the empty line;
#: its fields; those of `FORWARDING_NAMES` among them; whether the connection stays open. A bare tuple, because to make
#: a NamedTuple costs 0.3 us.
KnownHead = tuple[bytes, list[tuple[bytes, bytes]], dict[bytes, bytes], bool]


class HeadCache:
    """The last plain head and the last good Host of a worker: its connections learn them from each other."""

    __slots__ = ("good_host", "known")

    def __init__(self) -> None:
        self.known: KnownHead | None = None
        self.good_host: bytes | None = None

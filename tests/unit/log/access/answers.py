"""An answer, and its access line."""

from dataclasses import dataclass, field
from typing import Any

from aserver.log.access.format import compile_format
from aserver.log.access.timestamp import When

WHEN: When = (2026, 11, 21, 12, 1, 7, 3600)


@dataclass
class Answer:
    """A finished request, in the shape of `protocol`'s."""

    client: tuple[str, int] | None = ("192.0.2.7", 50412)
    method: str = "GET"
    target: bytes = b"/a/b?c=d"
    version: str = "1.1"
    status: int = 200
    sent: int = 5321
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    response_headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    started: float = 0.0
    duration: float = 1.234567
    request_id: str | None = None
    scope: Any = None
    connection: Any = None


def line(text: str, answer: Answer, **options: Any) -> bytes:
    formatter = compile_format(text, **options)
    return formatter.lines([answer], formatter.stamp(WHEN))[0].encode("ascii")

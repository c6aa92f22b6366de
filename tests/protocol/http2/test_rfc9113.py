"""The rows of RFC 9113, whole and cut at every byte."""

import pytest

from tests.protocol.http2.rfc9113_rows import ROWS, Row
from tests.protocol.http2.server import PlainServer
from tests.protocol.http2.wire import CODES, told


def outcome(pieces: list[bytes]) -> str:
    server = PlainServer(most_streams=2)
    for piece in pieces:
        server.feed(piece)
    # Acknowledgement of the opening, and windows, belong to every connection.
    seen = [each for each in told(server.sent) if not each.startswith("window")]
    if seen[:1] == ["settings ack"]:
        del seen[0]
    if server.fault is not None:
        seen.append(f"goaway {CODES[server.fault.code]}")
    return ", ".join(seen)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.section} {row.name}")
def test_row(row: Row) -> None:
    raw = row.opening + row.raw
    assert outcome([raw]) == row.due
    for cut in range(max(len(row.opening) - 10, 1), len(raw)):
        assert outcome([raw[:cut], raw[cut:]]) == row.due
    assert outcome([raw[at : at + 1] for at in range(len(raw))]) == row.due

"""The conversation of the admin endpoint with the master, whose end a test holds. What is made of it: test_app.py."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator

import pytest

from aserver.admin import line
from aserver.admin.line import MOST_RECORDS, MasterLine
from tests.harness import PATIENCE, eventually

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

EVENTS = {"command": "events", "follow": True}
LOOK = [{"command": "metrics"}, {"command": "status"}]


class Master:
    """The master's end."""

    def __init__(self) -> None:
        theirs, ours = socket.socketpair()
        theirs.setblocking(False)
        ours.setblocking(False)
        self.sock, self.line = ours, MasterLine(theirs)
        self.listening = asyncio.create_task(self.line.listen())
        self._rest = b""

    async def asked(self, count: int) -> list[object]:
        """The next questions."""
        async with asyncio.timeout(PATIENCE):
            while self._rest.count(b"\n") < count:
                self._rest += await asyncio.get_running_loop().sock_recv(self.sock, 4096)
        *lines, self._rest = self._rest.split(b"\n", count)
        return [json.loads(each) for each in lines]

    def tell(self, **told: object) -> None:
        self.sock.sendall(json.dumps(told).encode() + b"\n")


@pytest.fixture
async def master(anyio_backend: str) -> AsyncIterator[Master]:
    master = Master()
    yield master
    master.sock.close()
    await master.listening


async def test_it_asks_again_after_an_answer_and_never_twice_at_once(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record asks at once. Fails without `_asked`: a burst of records would be a burst of questions."""
    assert await master.asked(3) == [EVENTS, *LOOK]
    monkeypatch.setattr(line, "PERIOD", 3600.0)
    for number in range(3):
        master.tell(record={"number": number})
    await eventually(lambda: len(master.line.records) == 3)
    master.tell(status={"ready": True, "reason": "r"})
    await eventually(lambda: master.line.status)
    master.tell(record={"number": 3})
    assert await master.asked(2) == LOOK, "no more were asked before"
    monkeypatch.setattr(line, "PERIOD", 0.0)
    master.tell(status={"ready": True, "reason": "s"})
    assert await master.asked(2) == LOOK, "after a period it asks by itself"
    assert await master.line.readiness() == (True, "s")


async def test_records_are_bounded_and_news_wakes_all_who_wait(master: Master) -> None:
    """Fails with a list that grows for as long as the server runs, or an event that stays set."""
    waiting = [asyncio.create_task(master.line.changed.wait()) for _ in range(2)]
    for number in range(MOST_RECORDS + 5):
        master.tell(record={"number": number})
    await eventually(lambda: master.line.records and master.line.records[-1]["number"] == MOST_RECORDS + 4)
    await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE)
    assert len(master.line.records) == MOST_RECORDS
    assert not master.line.changed.is_set()


async def test_the_end_of_the_line_is_the_end_of_the_master(master: Master) -> None:
    """Fails with a reset taken for an error: the master was killed with questions unread."""
    await master.asked(3)
    ended = asyncio.create_task(master.line.changed.wait())
    master.sock.close()
    await asyncio.wait_for(master.listening, PATIENCE)
    assert master.line.ended
    await asyncio.wait_for(ended, PATIENCE)

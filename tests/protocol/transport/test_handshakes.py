"""The deadlines of clients that are not connections yet. Each docstring says how it was seen to fail."""

from types import SimpleNamespace
from typing import Any

from aserver.metrics.page import Awaited
from aserver.protocol.context import SWEEP_PERIOD
from aserver.protocol.transport.handshakes import Handshakes


class Client:
    owes = Awaited.TLS_HANDSHAKE

    def __init__(self) -> None:
        self.given_up = 0

    def give_up(self) -> None:
        self.given_up += 1


def handshakes(clock: list[float]) -> Handshakes:
    loop: Any = SimpleNamespace(time=lambda: clock[0])
    return Handshakes(loop, 5.0)


def test_a_client_is_given_up_at_its_deadline_and_never_before() -> None:
    """A sweep's clock may be a period old. Fails without SWEEP_PERIOD in the deadline."""
    clock = [100.0]
    all_of_them = handshakes(clock)
    slow, quick = Client(), Client()
    all_of_them.begin(slow)
    all_of_them.begin(quick)
    assert (len(all_of_them), all_of_them.owed) == (2, [Awaited.TLS_HANDSHAKE] * 2)
    all_of_them.end(quick)
    all_of_them.end(quick)
    all_of_them.sweep(105.0 + SWEEP_PERIOD / 2)
    assert slow.given_up == 0
    all_of_them.sweep(105.0 + 2 * SWEEP_PERIOD)
    assert (slow.given_up, quick.given_up) == (1, 0)


def test_the_time_that_the_loop_stood_still_is_no_clients_fault() -> None:
    """Fails without `postpone`; and a header that is read begins the time for the handshake behind it."""
    clock = [100.0]
    all_of_them = handshakes(clock)
    client, begun_again = Client(), Client()
    all_of_them.begin(client)
    all_of_them.begin(begun_again)
    all_of_them.postpone(50.0)
    clock[0] = 160.0
    all_of_them.begin(begun_again)
    all_of_them.sweep(154.0)
    assert client.given_up == 0
    all_of_them.sweep(156.0)
    assert (client.given_up, begun_again.given_up) == (1, 0)

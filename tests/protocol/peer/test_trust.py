"""The peers that are believed, where the other end has no address."""

import pytest

from aserver.protocol.peer.forwarded import Forwarding
from aserver.protocol.peer.trust import Peers


@pytest.mark.parametrize(("allowed", "trusted"), [(["127.0.0.1"], False), (["unix"], True), (["*"], True), ([], False)])
def test_who_comes_over_a_unix_socket(allowed: list[str], trusted: bool) -> None:
    assert Forwarding(Peers(allowed)).trusts(None) == trusted

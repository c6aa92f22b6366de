"""The peers that are believed when they name the client behind them.

Pure. It must never resolve a name: peers are addresses and networks, `unix`, or all.
"""

import ipaddress
from collections.abc import Sequence


class Peers:
    """The peers in `forwarded_allow_ips`: addresses, networks, `unix`, `*`."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._all = "*" in allowed
        self._unix = "unix" in allowed
        self._networks = [ipaddress.ip_network(each) for each in allowed if each not in ("*", "unix")]

    def __contains__(self, peername: object) -> bool:
        """Whether the other end is trusted; `peername` as the transport has it, which for unix sockets is a string."""
        if self._all:
            return True
        if not isinstance(peername, tuple):
            return self._unix
        address = ipaddress.ip_address(str(peername[0]).partition("%")[0])
        if address.version == 6 and address.ipv4_mapped is not None:  # of a dual-stack listener that was passed to us
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)

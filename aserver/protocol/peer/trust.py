"""The trusted peers: proxies that are believed when they name the client behind them.

Pure. It must never resolve a host name: `forwarded_allow_ips` has addresses, networks, `unix` and `*` only.
"""

import ipaddress
from collections.abc import Sequence


class Peers:
    """The peers in `forwarded_allow_ips`; `peername in peers` tells whether a peer is trusted."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._all = "*" in allowed
        self._unix = "unix" in allowed
        self._networks = [ipaddress.ip_network(each) for each in allowed if each not in ("*", "unix")]

    def __contains__(self, peername: object) -> bool:
        """Tell whether a peer is trusted. `peername` is the transport's: a tuple, or for a unix socket a string."""
        if self._all:
            return True
        if not isinstance(peername, tuple):
            return self._unix
        address = ipaddress.ip_address(str(peername[0]).partition("%")[0])
        if address.version == 6 and address.ipv4_mapped is not None:  # from a dual-stack listener
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)

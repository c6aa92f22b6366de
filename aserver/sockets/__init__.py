"""The server's listening sockets: bind them, adopt them, own their unix paths, give them back.

Runs in the master and in the embedding program; workers only have inherited descriptors. It must never import asyncio
(a listener outlives every loop) and never touch a socket path that it did not make.

`bind_for` makes the listeners (all or none). `Listener.listen` opens each for clients, when a worker can serve them.
`Listener.tend` keeps a unix path alive, and `Listener.close` gives everything back.
"""

from aserver.sockets.bind import bind_all, bind_for
from aserver.sockets.handover import Handover, hand_over, take_over
from aserver.sockets.listener import Address, Listener
from aserver.sockets.passed import Kept, by_manager

__all__ = ["Address", "Handover", "Kept", "Listener", "bind_all", "bind_for", "by_manager", "hand_over", "take_over"]

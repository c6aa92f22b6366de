"""How aserver's processes talk: typed messages, the channel that carries them, the shared board."""

"""The talk between aserver's processes: typed messages, the channel that carries them, the shared board."""

"""The control socket: by it an operator asks the master, and gives it orders (docs/operate.md).

Runs in the master, except `place`, by which the commands find it. It decides nothing, and waits for no client.
"""

"""The admin endpoint: a process beside the workers that answers while all of them are blocked (docs/operate.md).

Runs in a process of its own, which the master keeps (`master/control/companion`). It shows, and changes nothing: the
master takes no orders from it. It must never load the application.
"""

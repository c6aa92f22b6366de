"""The worker process: a uvloop event loop that serves the app until it is told to drain."""

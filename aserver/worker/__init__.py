"""The worker process: one uvloop event loop that serves the app until it is told to drain."""

"""A client's transport: writing, reading, deadlines, and how a connection ends. Runs in the worker."""

"""The application's half of a request: scope, `receive()`, `send()`, its task and its failures. Runs in the worker."""

"""A request as its application sees it: scope, `receive()`, `send()`, its task. Runs in the worker."""

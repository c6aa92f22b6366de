"""HTTP as bytes on one side, ASGI on the other. Runs in the worker's loop."""

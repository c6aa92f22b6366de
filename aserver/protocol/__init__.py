"""The wire: HTTP as bytes on one side and ASGI on the other; runs in the worker's loop."""

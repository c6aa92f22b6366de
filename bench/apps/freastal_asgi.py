"""Serves an ASGI application by freastal, which has no command: `freastal_asgi.py MODULE:APP HOST PORT`."""

import importlib
import sys

module, _, name = sys.argv[1].partition(":")
app = getattr(importlib.import_module(module), name)
importlib.import_module("freastal").serve_asgi(app, host=sys.argv[2], port=int(sys.argv[3]), reuse_port=False)

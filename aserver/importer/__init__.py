"""From `module:attribute` to an ASGI app that can be served, or a sentence about the part that is missing.

Runs in processes that may import user code: the zygote (preload), lazy workers, `aserver check`; never the master. It
starts no thread and no event loop, because the zygote forks after it.
"""

from aserver.importer.fingerprint import fingerprint
from aserver.importer.interface import Interface
from aserver.importer.remarks import remarks
from aserver.importer.target import LoadedApp, adapt, load, load_object
from aserver.importer.tracebacks import is_installed, places, user_place, user_traceback, users_part, waiting

__all__ = [
    "Interface",
    "LoadedApp",
    "adapt",
    "fingerprint",
    "is_installed",
    "load",
    "load_object",
    "places",
    "remarks",
    "user_place",
    "user_traceback",
    "users_part",
    "waiting",
]

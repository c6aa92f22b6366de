"""The fingerprint of loaded code: path, modification time and size of every imported module's file.

Runs where the app was loaded. Python's own library and aserver are left out: a deploy of the app does not change them.
"""

import os
import sys
import sysconfig
from pathlib import Path

_LIBRARY = tuple(str(Path(sysconfig.get_path(name))) + os.sep for name in ("stdlib", "platstdlib"))
_OURS = str(Path(__file__).resolve().parent.parent) + os.sep


def fingerprint() -> dict[str, tuple[int, int]]:
    """{path: (mtime in ns, size in bytes)}."""
    found: dict[str, tuple[int, int]] = {}
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if not isinstance(path, str) or path.startswith(_OURS):
            continue
        if path.startswith(_LIBRARY) and "site-packages" not in path and "dist-packages" not in path:
            continue
        try:
            status = os.stat(path)
        except OSError:  # a zip, a frozen module, or gone already
            continue
        found[path] = (status.st_mtime_ns, status.st_size)
    return found

"""Settings: one table, from which the command line, the environment's names, files and documentation are made.

Pure, and imported by every process. `table` is the table, `values` how values are written, `schema` one row as
data, `rules` what must not be said together, `build` from layers to a `Config`, `page` the documentation.
It must never touch the system: reading is `aserver.config.layers`.
"""

from aserver.config.build import UNCALLED_HOOKS, Config, Layer, Resolved, build, unknown
from aserver.config.rules import warnings
from aserver.config.schema import SettingInfo, convert, settings

__all__ = [
    "UNCALLED_HOOKS",
    "Config",
    "Layer",
    "Resolved",
    "SettingInfo",
    "build",
    "convert",
    "settings",
    "unknown",
    "warnings",
]

"""Settings: one table, from which the command line, the environment's names, files and documentation are made.

Imported by every process; all but `layers` is pure. `table` is the table, `values` how values are written, `schema` one
row as data, `rules` what must not be said together, `build` from layers to a `Config`, `page` the documentation.
No other module here may touch the system: reading is `layers`'.
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

"""Settings: a table, from which the command line, the environment's names, files and documentation are made.

Imported by every process. `table` is the table, `values` the spelling of values, `schema` a row as data, `rules` the
settings that contradict each other, and `build` makes a `Config` from layers; these touch no system. `layers` reads the
layers of a start. Each kind of layer has a module of its own: `environment`, `files`, `python_file`, `env_file`, and
`foreign_environment` for the variables of other servers, whose settings `foreign` knows.
"""

from aserver.config.build import Config, Layer, Resolved, build
from aserver.config.rules import warnings
from aserver.config.schema import SettingInfo, convert, settings

__all__ = [
    "Config",
    "Layer",
    "Resolved",
    "SettingInfo",
    "build",
    "convert",
    "settings",
    "warnings",
]

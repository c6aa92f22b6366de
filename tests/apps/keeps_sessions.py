"""Counts as an app of NiceGUI, which would be a heavy dependency for one test."""

import sys
from types import ModuleType

from tests.apps.raw import app

__all__ = ["app"]

sys.modules["nicegui"] = ModuleType("nicegui")

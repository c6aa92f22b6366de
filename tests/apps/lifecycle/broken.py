"""Raises at import, two frames deep in the user's own code."""

import os

from tests.apps import content

content.note(f"import {os.getpid()}")


def connect() -> None:
    raise RuntimeError("no such database: orders")


connect()

"""Other servers' settings: a verdict for each, in a table of each server.

Pure. `verdict` defines a verdict; `gunicorn`, `uvicorn`, `granian`, `hypercorn` and `uwsgi` are the tables;
`translate` reads values and command lines by them; `page` is docs/migrate.md's tables.
"""

from aserver.config.foreign.gunicorn import hooks, uncalled_hooks
from aserver.config.foreign.translate import (
    SERVERS,
    ForeignServer,
    Translated,
    answer,
    flags,
    read_command_line,
    translate,
)
from aserver.config.foreign.verdict import Answer, Meaning, Verdict

__all__ = [
    "SERVERS",
    "Answer",
    "ForeignServer",
    "Meaning",
    "Translated",
    "Verdict",
    "answer",
    "flags",
    "hooks",
    "read_command_line",
    "translate",
    "uncalled_hooks",
]

"""Other servers' settings: a verdict for each, in a table of each server.

Pure. `verdict` defines a verdict. The tables are `gunicorn`, `uvicorn`, `granian`, `hypercorn` and `uwsgi`, with
`uwsgi_families` for uWSGI's subsystems. `translate` reads values and command lines by the tables. `lines` finds a
server's command line in a Procfile, a unit or a uwsgi.ini, and `relatives` rewrites the commands that start uvicorn.
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

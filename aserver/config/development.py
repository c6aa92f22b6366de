"""The other settings under `reload`: a single worker, which loads the application itself and is replaced at once.

Pure. The zygote loads the installed modules ahead instead of the application (`zygote/warm.py`), so a new worker costs
no more than the user's own modules.
"""

from dataclasses import replace

import msgspec

from aserver.config.build import Resolved

#: These win over all other values. A worker that leaves is not counted as serving: it gives way before its successor is
#: ready, so that clients wait for the new code. The surge is for saves that follow one another faster than that.
FIXED = {"workers": 1, "preload": False, "max_surge": 8, "max_unavailable": 1, "canary_time": 0.0}
#: Unless they are set.
PREFERRED = {"graceful_timeout": 5.0, "stream_grace": 0.0, "access_log_format": "short"}


def develop(resolved: Resolved) -> Resolved:
    """The settings as `reload` wants them; without it, as they are."""
    config, origins = resolved.config, resolved.origins
    if not config.reload:
        return resolved
    changes = FIXED | {name: value for name, value in PREFERRED.items() if origins[name] == "default"}
    notes = resolved.notes
    if origins["workers"] != "default" and config.workers != 1:
        notes = (*notes, f"reload serves with one worker, not with {config.workers}")
    config = msgspec.structs.replace(config, **changes)
    return replace(resolved, config=config, origins={**origins, **dict.fromkeys(changes, "reload")}, notes=notes)

"""The check that the application's user cannot change files that root obeys: settings, which run Python and name files.

Runs in the command, the master and the embedding program. With `user`, the application runs as a user other than root.
If that user could change the settings, an intruder in the application would be root at the next reload or start.
Nothing is refused if the server is not started as root, or has no `user`: an intruder has nothing to gain then.
"""

import os
from pathlib import Path

from aserver import privileges, rights
from aserver.errors import ConfigError


def refuse_changeable(setting: str, path: str | Path | None, user: object, group: object) -> None:
    """Raise ConfigError if `user`, with the groups that come with `group`, may change the file `path`.

    Also if that user may replace the file, or a folder or link on the way to it. None as `path` is no file: no error.
    """
    if path is None or user is None or os.geteuid() != 0:
        return
    uid, _, gids = privileges.identity(str(user), None if group is None else str(group))
    if uid == 0:
        return
    place = rights.place_to_change(os.path.abspath(path), rights.Account(uid, tuple(gids)))
    if place is not None:
        raise ConfigError(
            f"{setting} {path}: user {user} (uid {uid}), as whom the application runs, may change {place}; root does "
            "not obey settings that the application could write: give that to root (chown root, chmod go-w), or put "
            "the file elsewhere"
        )

"""Files whose content root obeys: settings, which may name files to write, and run Python. Whose they may not be.

Runs in the command, the master and the embedding program. Where `user` is somebody else than root, the application
runs as that user; if it could change the settings, a hole in it would be one in the whole machine, at the next
reload or start. Not started as root, or without `user`, nothing is refused: then there is nothing to gain.
"""

import os
from pathlib import Path

from aserver import privileges, rights
from aserver.errors import ConfigError


def refuse_changeable(setting: str, path: str | Path | None, user: object, group: object) -> None:
    """Raise ConfigError if `user`, with the groups that come with `group`, may change the file `path`, if any.

    Also if that user may put another file in its place, or a folder or link on the way to it.
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

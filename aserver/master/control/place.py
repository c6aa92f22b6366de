"""Where the control socket is: the master's own place for it, and the sockets that a command finds.

Used by the master and by the commands. The socket stands in a directory that only its user may enter, and is for that
user and root alone; a master that runs as root refuses a place that the application's user could change.
"""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from aserver.config import Config
from aserver.errors import BindError, ConfigError
from aserver.obeyed import refuse_changeable
from aserver.sockets.listener import Listener
from aserver.sockets.path import PathListener, PathUse, hidden_name, probe

AUTO = "auto"
#: Clients in the kernel's queue.
BACKLOG = 16
_PATTERN = "aserver-*.sock"


def bind(config: Config) -> tuple[Listener | None, str]:
    """The listener, unless `control` is off or its own place cannot be used: then a sentence says why.

    Raises BindError or ConfigError if a place that was asked for cannot be used.
    """
    if config.control is None:
        return None, ""
    try:
        path = _own_place() if config.control == AUTO else _asked_place(config)
        listener = PathListener(path, mode=0o600, owner=None, group=None)
        listener.listen(BACKLOG)
    except (BindError, ConfigError, OSError) as error:
        if config.control == AUTO:
            return None, f"there is no control socket, so that aserver status cannot ask this server: {error}"
        raise
    return listener, ""


def _asked_place(config: Config) -> str:
    path = os.path.abspath(str(config.control))
    directory = os.path.dirname(path)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        status = os.stat(directory)
    except OSError as error:
        raise ConfigError(f"control {path}: {error.strerror}: {error.filename}") from None
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        mode = stat.S_IMODE(status.st_mode)
        raise ConfigError(f"control {path}: others may write in its directory (mode {mode:o}): chmod go-w {directory}")
    refuse_changeable("control", path, config.user, config.group)
    return path


def _own_place() -> str:
    directory = _directories()[0]
    if not _is_private(directory):
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o700)
        if not _is_private(directory):
            raise ConfigError(f"{directory} is not a directory of this user's alone (mode 700)")
    for stale in _sockets(directory):
        if probe(stale)[0] is PathUse.STALE:
            for name in (stale, hidden_name(stale)):  # left over by a server that was killed
                with contextlib.suppress(OSError):
                    os.unlink(name)
    return os.path.join(directory, f"aserver-{os.getpid()}.sock")


def _directories() -> list[str]:
    """The directories of this user, the best first."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    import tempfile  # noqa: PLC0415 - rarely needed, and a start waits for each import

    own = os.path.join(tempfile.gettempdir(), f"aserver-{os.geteuid()}")
    return [runtime, own] if runtime and _is_private(runtime) else [own]


def _is_private(directory: str) -> bool:
    try:
        status = os.lstat(directory)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _sockets(directory: str) -> Iterator[str]:
    with contextlib.suppress(OSError):
        yield from map(str, sorted(Path(directory).glob(_PATTERN)))


def running() -> list[str]:
    """The control sockets of this user in their usual places on which a server answers."""
    return _alive(path for directory in _directories() for path in _sockets(directory))


def of_others() -> list[str]:
    """The sockets of other users, for root, which does not choose among them unasked."""
    if os.geteuid() != 0:
        return []
    patterns = ("run/user/*/", "tmp/aserver-*/")
    return _alive(str(path) for pattern in patterns for path in sorted(Path("/").glob(pattern + _PATTERN)))


def _alive(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if probe(path)[0] is PathUse.LIVE]

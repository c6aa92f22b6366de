"""Settings and hooks from a Python file, run by a short-lived child process that answers in JSON.

`run_file` runs in the command, the embedding program, and the master for a reload, which must never run user code.
`tell` runs in the child. The child ends with the process that waits for it (on Linux), however long its file takes.
"""

import contextlib
import difflib
import json
import os
import signal
import subprocess
import sys
import traceback
import types
from collections.abc import Mapping
from pathlib import Path, PurePath

from aserver import loading, terminal, unix
from aserver.config.build import UNCALLED_HOOKS, Layer
from aserver.config.schema import NAMES
from aserver.errors import ConfigError

#: Functions of these names are hooks, as in gunicorn.
HOOKS = frozenset({
    "on_starting", "on_reload", "when_ready", "pre_fork", "post_fork", "post_worker_init",
    "worker_abort", "pre_exec", "child_exit", "worker_exit", "nworkers_changed", "on_exit", *UNCALLED_HOOKS,
})  # fmt: skip
#: Seconds. A settings file that takes longer hangs; a start under a process manager must not hang with it.
FILE_TIMEOUT = 30.0

#: The child's program. The package's directory goes to the end of sys.path, so that it can shadow nothing (aserver may
#: not be installed).
_CHILD = """
import sys
sys.path.append(sys.argv[1])
from aserver.config.python_file import tell
sys.exit(tell(sys.argv[2], int(sys.argv[3])))
"""
_MODULE = "__aserver_settings__"


def run_file(path: Path, environ: dict[str, str]) -> tuple[Layer, tuple[str, ...]]:
    """The settings that `path` makes in a child process with the environment `environ`, and the names of its hooks.

    Raises ConfigError, with the file's own traceback, if any, as its note.
    """
    package_parent = str(Path(__file__).parents[2])
    try:
        with terminal.held(terminal.PASSING):  # the child inherits that they are blocked, and has handlers later
            child = subprocess.run(  # noqa: S603 - our own interpreter; the file is the operator's
                [sys.executable, "-P", "-c", _CHILD, package_parent, str(path), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                env=environ,
                cwd=path.parent,
                timeout=FILE_TIMEOUT,
                check=False,
            )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{path} did not finish within {FILE_TIMEOUT:g} s, so its settings are unknown") from None
    if not child.stdout:
        status = child.returncode
        how = f"with status {status}" if status >= 0 else f"by {signal.Signals(-status).name}"
        raise ConfigError(f"{path}: the process that ran it ended {how} and told no settings")
    told = json.loads(child.stdout)
    if "failure" in told:
        failure = ConfigError(f"{path}: {told['failure']}")
        if told["detail"]:
            failure.add_note(told["detail"])
        raise failure
    return Layer(path.name, told["settings"], advice="; begin a name of your own with _"), tuple(told["hooks"])


# ── in the child ─────────────────────────────────────────────────────────────────────────────


def tell(path: str, parent: int) -> int:
    """Run the settings file `path`, write its settings to stdout as JSON, and return the exit code of this process.

    The file's own prints go to stderr. Call it only in the child: it runs user code, and has this process end with the
    process `parent`, which waits for the answer.
    """
    unix.end_with_parent(parent)  # a master that is stopped or killed meanwhile cannot end its child
    terminal.leave_to_master(terminal.PASSING)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, terminal.PASSING)
    answer = os.dup(1)
    os.dup2(2, 1)
    sys.path.append(str(Path(path).parent))
    module = types.ModuleType(_MODULE)
    module.__file__ = path
    sys.modules[_MODULE] = module  # dataclasses and pickle look their module up there
    told: dict[str, object]
    try:
        with loading.application_code():
            exec(compile(Path(path).read_bytes(), path, "exec"), module.__dict__)  # noqa: S102 - a file of settings
        told = _sort_out(vars(module))
    except KeyboardInterrupt:  # Ctrl-C reaches the parent, too, which reports it
        return 130
    except (Exception, SystemExit) as error:  # noqa: BLE001 - user code
        told = {"failure": _sentence(error, path), "detail": _user_traceback(error, path)}
    # A parent that is just ending reads no more: its descriptors are closed before the kernel ends this process.
    with contextlib.suppress(BrokenPipeError), open(answer, "w", encoding="utf-8") as stream:
        json.dump(told, stream, default=str)
    return 0


def _sort_out(namespace: Mapping[str, object]) -> dict[str, object]:
    """The answer for a file that has run: the hooks and settings among its names, or a failure."""
    values: dict[str, object] = {}
    hooks: list[str] = []
    for name, value in namespace.items():
        if name.startswith("_") or value is None or isinstance(value, types.ModuleType | type):
            continue
        if callable(value):
            own = getattr(value, "__module__", None) == _MODULE
            if name in HOOKS:
                hooks.append(name)
            elif own and (near := difflib.get_close_matches(name, HOOKS, n=1, cutoff=0.8)):
                return {"failure": f"there is no hook {name}; did you mean {near[0]}?", "detail": ""}
        elif isinstance(value, bool | int | float | str | list | tuple | dict | PurePath):
            values[name] = value
        elif name in NAMES:
            return {"failure": f"{name} is of type {type(value).__name__}, no plain value", "detail": ""}
    return {"settings": values, "hooks": hooks}


def _sentence(error: BaseException, path: str) -> str:
    if isinstance(error, SystemExit):
        return f"it called exit({error.code!r}) instead of setting something"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    return f"line {line}: " * (line is not None) + traceback.format_exception_only(error)[-1].strip()


def _user_traceback(error: BaseException, path: str) -> str:
    """The traceback from the user's first frame on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != path:
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames)).rstrip()

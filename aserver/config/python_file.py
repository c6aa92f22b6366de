"""Settings and hooks from a Python file, run by a short-lived child process that answers in JSON.

`run_file` runs in the command, the embedding program, and the master for a reload, which must never run user code.
`tell` runs in the child. The child ends with the process that waits for it (on Linux), however long its file takes.
"""

import contextlib
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
from aserver.config import foreign
from aserver.config.build import Layer
from aserver.config.gunicorn_file import Namespace, adopt
from aserver.config.names_in_file import names_in
from aserver.config.schema import NAMES
from aserver.errors import ConfigError

#: Functions of these names are hooks, as in gunicorn.
HOOKS = foreign.hooks()
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
        with terminal.blocked(terminal.PASSING):  # the child inherits that they are blocked, and has handlers later
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
    return adopt(path.name, Namespace(**told)), tuple(told["hooks"])


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
            text = Path(path).read_bytes()
            exec(compile(text, path, "exec"), module.__dict__)  # noqa: S102 - a file of settings
        told = _sort_out(vars(module)) | names_in(text)
    except KeyboardInterrupt:  # Ctrl-C reaches the parent, too, which reports it
        return 130
    except (Exception, SystemExit) as error:  # noqa: BLE001 - user code
        told = {"failure": _sentence(error, path), "detail": _user_traceback(error, path)}
    # A parent that is just ending reads no more: its descriptors are closed before the kernel ends this process.
    with contextlib.suppress(BrokenPipeError), open(answer, "w", encoding="utf-8") as stream:
        json.dump(told, stream, default=_text_of)
    return 0


def _sort_out(namespace: Mapping[str, object]) -> dict[str, object]:
    """The answer for a file that has run: its plain values, its hooks, its other functions, and odd values by type."""
    values: dict[str, object] = {}
    hooks: list[str] = []
    functions: list[str] = []
    odd: dict[str, str] = {}
    for name, value in namespace.items():
        if name.startswith("_") or isinstance(value, types.ModuleType):
            continue
        if name in HOOKS and callable(value):
            hooks.append(name)
        elif value is None or isinstance(value, bool | int | float | str | list | tuple | dict | PurePath):
            values[name] = value
        elif callable(value):
            if getattr(value, "__module__", None) == _MODULE and not isinstance(value, type):
                functions.append(name)
            elif isinstance(value, type) and foreign.SERVERS["gunicorn"].verdict(name):
                values[name] = _text_of(value)  # worker_class and logger_class may be classes
        elif name in NAMES or foreign.SERVERS["gunicorn"].verdict(name):
            odd[name] = type(value).__name__
    return {"settings": values, "hooks": hooks, "functions": functions, "odd": odd}


def _text_of(value: object) -> str:
    """A value that JSON has not, as text: a class or function by its dotted name, as logging.config finds it."""
    if value is sys.stdout or value is sys.stderr:
        return "ext://sys.stdout" if value is sys.stdout else "ext://sys.stderr"
    name = getattr(value, "__qualname__", None)
    return f"{getattr(value, '__module__', '')}.{name}" if name else str(value)


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

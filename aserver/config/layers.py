"""Where settings come from: the command line or arguments, the environment, a file, in this order.

Runs in the command or the embedding program, before there is a master. It must never run user code in its own
process: a `.py` settings file is executed by a short-lived child, which runs `tell` and hands its settings back as
JSON. That child ends with whoever waits for it (on Linux), however long its file takes.
"""

import contextlib
import difflib
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
import traceback
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import msgspec

from aserver import loading, rights, terminal, unix
from aserver.config import UNCALLED_HOOKS, Layer, Resolved, build
from aserver.config.schema import NAMES
from aserver.errors import ConfigError
from aserver.obeyed import refuse_changeable

PREFIX = "ASERVER_"
#: Functions of these names in a `.py` settings file are hooks, as in gunicorn.
HOOKS = frozenset({
    "on_starting", "on_reload", "when_ready", "pre_fork", "post_fork", "post_worker_init",
    "worker_abort", "pre_exec", "child_exit", "worker_exit", "nworkers_changed", "on_exit", *UNCALLED_HOOKS,
})  # fmt: skip
#: A settings file that takes longer hangs; a start under a process manager must not hang with it.
FILE_TIMEOUT = 30.0

# Kubernetes gives every container variables for each service of its namespace; of a service named `aserver` or
# `aserver-x` they begin like ours ("Environment variables" under Service in its documentation).
_KUBERNETES_NAME = re.compile(
    r"ASERVER_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)"
)
_KUBERNETES_PORT = re.compile(r"(?:tcp|udp|sctp)://")


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    layer: Layer
    hooks: tuple[str, ...] = ()


def load(
    *,
    command_line: Mapping[str, object] | None = None,
    keywords: Mapping[str, object] | None = None,
    environ: Mapping[str, str],
    cwd: Path,
    config_file: str | None = None,
) -> Resolved:
    """All settings of this start. `config_file` is what `-c` said, relative to `cwd`. Raises ConfigError.

    The traceback of a `.py` settings file that fails is a note of the error (PEP 678).
    """
    if config_file is not None:
        command_line = {"config": config_file, **(command_line or {})}
    _refuse_missing(cwd)
    upper = [
        Layer("command line", command_line or {}, lambda key: "--" + key.replace("_", "-")),
        Layer("argument", keywords or {}),
        _environment(environ),
    ]
    named = next((str(layer.values["config"]) for layer in upper if layer.values.get("config") is not None), None)
    if named is not None:  # now, as far as the user is known: a `.py` file runs when it is read
        refuse_changeable("config", cwd / named, *(_first(upper, name) for name in ("user", "group")))
    file = _find(cwd) if named is None else _read(cwd / named, dict(environ))
    layers = [*upper, *([file.layer] if file else [])]
    if environ.get("WEB_CONCURRENCY"):
        layers.append(Layer("$WEB_CONCURRENCY", {"workers": environ["WEB_CONCURRENCY"]}))
    # Where its own path may not be walked, the directory can only be inherited.
    directory = str(cwd) if os.access(cwd, os.X_OK) else None
    resolved = replace(build(layers), directory=directory, file=str(file.path) if file else None)
    config = resolved.config
    refuse_changeable("config", resolved.file, config.user, config.group)
    if config.log_config is not None:
        refuse_changeable("log_config", cwd / config.log_config, config.user, config.group)
    if resolved.config.env_file is not None:
        lines = read_env_file(cwd / resolved.config.env_file)
        # `env` wins: it is set last.
        env = (*(f"{name}={value}" for name, value in lines.items()), *resolved.config.env)
        resolved = replace(resolved, config=msgspec.structs.replace(resolved.config, env=env))
    if file is None or named is None:
        return resolved
    path = str(cwd / named)
    config = msgspec.structs.replace(resolved.config, config=path)  # absolute: `chdir` must not change what it means
    return replace(resolved, config=config, hooks=file.hooks, hooks_file=path if file.hooks else None)


def working_directory(environ: Mapping[str, str], *, handed_on: bool = False) -> Path:
    """Where this process was started, by the name that its user knows: a symlink of $PWD is kept, as gunicorn does.

    A deploy that switches the symlink is found by that name at the next reload; the directory itself would stay the old
    release. `handed_on`: an earlier image of this process has made sure of $PWD. Raises ConfigError.
    """
    named = environ.get("PWD", "")
    if handed_on and named:
        return Path(named)  # if it is not there any more, `load` says so; the old release would be the wrong one
    try:
        here = os.getcwd()
    except FileNotFoundError:
        was = f" (PWD is {named})" if named else ""
        raise ConfigError(f"the working directory has been removed{was}; start the server in one that exists") from None
    with contextlib.suppress(OSError):  # not there, or not to be looked at
        if os.path.isabs(named) and os.path.samefile(named, here):
            return Path(named)
    return Path(here)


def _first(layers: Iterable[Layer], name: str) -> object:
    return next((layer.values[name] for layer in layers if layer.values.get(name) is not None), None)


def _refuse_missing(cwd: Path) -> None:
    """A release that has gone has neither settings nor code; without this a reload would go on with the defaults."""
    try:
        os.stat(cwd)
    except FileNotFoundError:
        raise ConfigError(f"the working directory {cwd} does not exist any more") from None
    except OSError:
        pass  # what is looked for in it will say


def _environment(environ: Mapping[str, str]) -> Layer:
    values = {
        variable.removeprefix(PREFIX).lower(): text
        for variable, text in environ.items()
        if variable.startswith(PREFIX) and text and not _is_kubernetes(variable, text)
    }
    return Layer("environment", values, lambda key: PREFIX + key.upper())


def _is_kubernetes(variable: str, text: str) -> bool:
    if variable.endswith("_PORT") and _KUBERNETES_PORT.match(text):
        return True
    return _KUBERNETES_NAME.fullmatch(variable) is not None


# ── files ────────────────────────────────────────────────────────────────────────────────────


def _find(cwd: Path) -> _File | None:
    """The settings that lie in `cwd`; only data is found unasked, a `.py` file has to be named."""
    try:
        if (path := cwd / "aserver.toml").is_file():
            return _read(path, {})
        if (path := cwd / "pyproject.toml").is_file() and (file := _read(path, {})).layer.values:
            return file
    except PermissionError:
        raise ConfigError(
            f"uid {os.geteuid()} may not look for settings in the working directory {cwd}; start the server in "
            "another, or name a settings file (--config)"
        ) from None
    return None


def _read(path: Path, environ: dict[str, str]) -> _File:
    if path.suffix not in {".toml", ".py"}:
        raise ConfigError(f"config = {str(path)!r}: a settings file is .toml or .py")
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"config: {path} cannot be read: {error.strerror}") from None
    file = _execute(path, environ) if path.suffix == ".py" else _File(path, _parse_toml(path, text))
    if "config" in file.layer.values:
        raise ConfigError(f"config ({file.layer.origin}): a settings file cannot name another")
    return file


def _parse_toml(path: Path, text: bytes) -> Layer:
    try:
        values = tomllib.loads(text.decode())
    except ValueError as error:  # TOMLDecodeError says line and column; UnicodeDecodeError the byte
        end = f"at the end, line {len(text.splitlines())}"
        raise ConfigError(f"{path}: {str(error).replace('at end of document', end)}") from None
    if path.name != "pyproject.toml":
        for name, value in values.items():
            if isinstance(value, dict) and name not in NAMES:
                raise ConfigError(f"there is no setting [{name}] ({path.name}); settings stand there in no table")
        return Layer(path.name, values)
    table = values.get("tool", {}).get("aserver", {})
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: tool.aserver is no table")
    return Layer("pyproject.toml [tool.aserver]", table)


def _execute(path: Path, environ: dict[str, str]) -> _File:
    """Let a child run `path` and tell its settings. ConfigError carries the traceback, if any, as its note."""
    package_parent = str(Path(__file__).parents[2])
    try:
        with terminal.held(terminal.PASSING):  # inherited by the child, until it has handlers
            child = subprocess.run(  # noqa: S603 - our own interpreter; the file is what the operator asked to run
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
    return _File(
        path, Layer(path.name, told["settings"], advice="; begin a name of your own with _"), tuple(told["hooks"])
    )


# ── the child that runs a `.py` file ─────────────────────────────────────────────────────────

# The package's directory goes to the end of sys.path, so that it can shadow nothing (aserver may not be installed).
_CHILD = """
import sys
sys.path.append(sys.argv[1])
from aserver.config.layers import tell
tell(sys.argv[2], int(sys.argv[3]))
"""
_MODULE = "__aserver_settings__"


def tell(path: str, parent: int) -> None:
    """Run the settings file `path` and write what it sets to stdout as JSON; the file's own prints go to stderr.

    Only in the child: it runs user code in this process, and ends with the process `parent`, which waits for it.
    """
    unix.end_with_parent(parent)  # the master may be stopped or killed meanwhile, and nobody else knows of us
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
            exec(compile(Path(path).read_bytes(), path, "exec"), module.__dict__)  # noqa: S102 - that is the point
        told = _sort_out(vars(module))
    except KeyboardInterrupt:  # Ctrl-C goes to the master, too, which says what is to be said
        sys.exit(130)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - user code
        told = {"failure": _sentence(error, path), "detail": _user_traceback(error, path)}
    # Nobody listens any more if the parent is just ending: its descriptors are closed before the kernel tells us.
    with contextlib.suppress(BrokenPipeError), open(answer, "w", encoding="utf-8") as stream:
        json.dump(told, stream, default=str)


def _sort_out(namespace: Mapping[str, object]) -> dict[str, object]:
    """Hooks and settings among the names of an executed file. Raises ConfigError."""
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


# ── env_file ─────────────────────────────────────────────────────────────────────────────────

_ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
_QUOTED = re.compile(r"""(?:'([^']*)'|"((?:[^"\\]|\\.)*)")\s*(?:#.*)?""")
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def read_env_file(path: Path) -> dict[str, str]:
    """Variables from lines `NAME=VALUE`, with or without `export` before them. Raises ConfigError with file and line.

    Blank lines and `# comments` are skipped. In double quotes a backslash escapes (n, t, r as in C), in single quotes
    nothing does; without quotes the value ends at ` #`. Nothing is expanded: `$` is a character.
    """
    try:
        # It may be the application's, in a folder of its own, and must not lead root to what that may not read.
        with open(rights.open_file(str(path), os.O_RDONLY), encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"env_file: {path} cannot be read: {why}") from None
    variables: dict[str, str] = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        if (match := _ASSIGNMENT.fullmatch(line)) is None:
            raise ConfigError(f"env_file: {path} line {number}: expected NAME=VALUE, found {line.split('=')[0]!r}")
        name, text = match.groups()
        if not text.startswith(("'", '"')):
            variables[name] = "" if text.startswith("#") else re.split(r"\s#", text, maxsplit=1)[0].rstrip()
        elif (quoted := _QUOTED.fullmatch(text)) is None:
            raise ConfigError(f"env_file: {path} line {number}: the quotes around {name}'s value do not match")
        elif quoted[1] is not None:
            variables[name] = quoted[1]
        else:
            variables[name] = _ESCAPE.sub(lambda escape: _ESCAPES.get(escape[1], escape[1]), quoted[2])
    return variables

"""The layers of settings, from the highest: command line, arguments of `run()`, environment, settings file, default.

Runs in the command or the embedding program, before there is a master, and in the master for a reload. Each kind of
layer is read by a module of its own (`environment`, `files`, `python_file`, `env_file`); this module puts them in
order.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from aserver.config.build import Layer, Resolved, build
from aserver.config.development import develop
from aserver.config.env_file import read_env_file
from aserver.config.environment import environment_layer
from aserver.config.files import SettingsFile, find_file, read_file
from aserver.config.foreign_environment import gunicorn_arguments, lowest_layers, unread
from aserver.errors import ConfigError
from aserver.obeyed import refuse_changeable

#: The settings file that gunicorn reads unasked.
GUNICORN_FILE = "gunicorn.conf.py"


def load(
    *,
    command_line: Mapping[str, object] | None = None,
    keywords: Mapping[str, object] | None = None,
    environ: Mapping[str, str],
    cwd: Path,
    config_file: str | None = None,
    other_flags: Layer | None = None,
) -> Resolved:
    """All settings of this start. `config_file` is the argument of `-c`, relative to `cwd`. Raises ConfigError.

    With a command line the variables and the `gunicorn.conf.py` of a gunicorn server are read, too; `other_flags` is
    the layer of other servers' flags on it.

    The traceback of a `.py` settings file that fails is a note of the error (PEP 678).
    """
    if config_file is not None:
        command_line = {"config": config_file, **(command_line or {})}
    _refuse_missing(cwd)
    upper = [
        Layer("command line", command_line or {}, lambda key: "--" + key.replace("_", "-")),
        Layer("argument", keywords or {}),
        environment_layer(environ),
    ]
    command = command_line is not None
    if other_flags is not None:
        upper.insert(1, other_flags)
    if command:
        upper.append(gunicorn_arguments(environ))
    named, file, notes = _choose_file(upper, environ, cwd, command=command)
    layers = [*upper, *([file.layer] if file else []), *lowest_layers(environ, command=command)]
    # A directory that this process may not enter by its path can only be inherited by the zygote.
    directory = str(cwd) if os.access(cwd, os.X_OK) else None
    resolved = replace(build(layers), directory=directory, file=str(file.path) if file else None)
    changes = tuple(unread(environ)) if command else ()
    resolved = develop(replace(resolved, notes=(*notes, *resolved.notes), changes=(*resolved.changes, *changes)))
    config = resolved.config
    refuse_changeable("config", resolved.file, config.user, config.group)
    if config.log_config is not None and not config.log_config.startswith("{"):
        refuse_changeable("log_config", cwd / config.log_config, config.user, config.group)
    if config.env_file is not None:
        lines = read_env_file(cwd / config.env_file)
        # The variables of `env` win, because the last assignment of a name does.
        env = (*(f"{name}={value}" for name, value in lines.items()), *config.env)
        resolved = replace(resolved, config=msgspec.structs.replace(config, env=env))
    if file is None or named is None:
        return resolved
    path = str(cwd / named)
    config = msgspec.structs.replace(resolved.config, config=path)  # absolute: `chdir` does not change its meaning
    return replace(resolved, config=config, hooks=file.hooks, hooks_file=path if file.hooks else None)


def _choose_file(
    upper: Sequence[Layer], environ: Mapping[str, str], cwd: Path, *, command: bool
) -> tuple[str | None, SettingsFile | None, tuple[str, ...]]:
    """Choose and read the settings file. Returns its name, the file itself, and notes on the choice.

    The name is None where no file is named: then a TOML file was found, or there is none.
    """
    owner = tuple(_first(upper, name) for name in ("user", "group"))
    named = next((str(layer.values["config"]) for layer in upper if layer.values.get("config") is not None), None)
    named = named.removeprefix("file:") if named else named  # as gunicorn's and Hypercorn's may begin
    notes: tuple[str, ...] = ()
    file = find_file(cwd) if named is None else None
    if command and named is None and (cwd / GUNICORN_FILE).is_file():
        if file is None:
            named = GUNICORN_FILE
            notes = (f"{GUNICORN_FILE} was found in {cwd} and is read, as gunicorn does",)
        else:
            notes = (f"{GUNICORN_FILE} is not read: the settings are from {file.path.name}",)
    if named is not None:
        # Before the file is read, because a `.py` file runs then; `load` looks again, as the file may name the user.
        refuse_changeable("config", cwd / named, *owner)
        file = read_file(cwd / named, dict(environ))
    return named, file, notes


def _first(layers: Iterable[Layer], name: str) -> object:
    return next((layer.values[name] for layer in layers if layer.values.get(name) is not None), None)


def _refuse_missing(cwd: Path) -> None:
    """Raise ConfigError if `cwd` is gone: without its settings file a reload would go on with the defaults."""
    try:
        os.stat(cwd)
    except FileNotFoundError:
        raise ConfigError(f"the working directory {cwd} does not exist any more") from None
    except OSError:
        pass  # the look for a settings file there meets the same error, and reports it

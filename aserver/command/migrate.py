"""`aserver migrate`: an aserver.toml from another server's file or command line, and what changes by the move.

Runs in the operator's command. It writes nothing but its output: the file on standard output, all else on standard
error. A Python file is run in a child process, as `aserver run` runs it.
"""

import contextlib
import json
import os
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click

from aserver.config import Layer, Resolved, build, foreign, settings
from aserver.config.build import suggestion
from aserver.config.files import SettingsFile, read_file
from aserver.config.foreign import lines
from aserver.config.foreign_environment import foreign_layer
from aserver.config.gunicorn_file import IMPLIED
from aserver.config.schema import NAMES, SettingInfo
from aserver.config.values import NUMBER, OCTAL, SWITCH, WORKERS
from aserver.errors import ConfigError, ExitCode

_KINDS = (
    "gunicorn's Python file, a uwsgi.ini, Hypercorn's TOML, a Procfile, a systemd unit, a Dockerfile, or a command line"
)


def migrate(words: Sequence[str], *, load: bool) -> ExitCode:
    """Print the file and the remarks. OK if it can be used as it is; CONFIG if something was not understood.

    `load`: check the settings and load the application with them. Raises ConfigError, and all that `check` raises.
    """
    resolved, server, strange = _read(words)
    click.echo(_as_toml(resolved, server), nl=False)
    for text in strange:
        click.echo(f"unknown   {text}", err=True)
    for text in resolved.warnings:
        click.echo(f"changes   {text}", err=True)
    for text in resolved.notes:
        click.echo(f"note      {text}", err=True)
    if load and resolved.config.target is None:
        raise ConfigError(
            "there is no target to load: neither the file nor the line names an application; name it behind the file"
        )
    if load:
        from aserver.command.check import check  # noqa: PLC0415 - it loads the importer, and that uvloop

        with contextlib.redirect_stdout(sys.stderr):
            check(replace(resolved, changes=(), notes=(), hooks=()))
    return ExitCode.CONFIG if strange else ExitCode.OK


def _read(words: Sequence[str]) -> tuple[Resolved, str, list[str]]:
    """The settings, the server whose they were, and what was not understood. Raises ConfigError."""
    target: list[Layer] = []
    file: SettingsFile | None = None
    if len(words) in {1, 2} and (path := Path(words[0])).is_file():
        target = [Layer("command line", {"target": words[1]})] if len(words) == 2 else []
        if path.suffix == ".py":
            file = read_file(path.absolute(), dict(os.environ))
            return _resolve([*target, file.layer], foreign.SERVERS["gunicorn"], [], file)
        found = _in_file(path)
    else:
        found = lines.in_words(words) or lines.in_command(" ".join(words))
    if found is None:
        raise ConfigError(f"{' '.join(words)} is nothing that can be read: give {_KINDS}")
    _read_uwsgi_ini(found)
    before = set(found.values)
    said = lines.without_variables(found)
    variable = {NAMES.get((found.server.table[name].to or name), "") for name in before - set(found.values)}
    origin = found.origin or found.server.name
    layer = foreign_layer(origin, found.server, found.values, notes=tuple(found.notes), lines=found.lines)
    layers = [*target, replace(layer, changes=(*said, *layer.changes))]
    config = found.values.get("config")
    if found.server.name == "gunicorn":
        settings_file = Path(str(config or "gunicorn.conf.py").removeprefix("file:"))
        if config or settings_file.is_file():
            file = read_file(settings_file.absolute(), dict(os.environ))
            kept = {name: value for name, value in file.layer.values.items() if NAMES.get(name) not in variable}
            notes = (f"{settings_file} is read, too", *file.layer.notes)
            layers.append(replace(file.layer, values=kept, notes=notes))
    elif config and not str(config).endswith(".toml"):
        found.strange.append(f"--config {config} that is TOML")
    elif config:
        layers.append(_of(_hypercorn_toml(Path(str(config)))))
    for each in layers:
        if "config" in each.values:
            layers[layers.index(each)] = replace(each, values=_without(each.values, "config"))
    return _resolve(layers, found.server, found.strange, file)


def _read_uwsgi_ini(found: lines.Found) -> None:
    """Put the file of `uwsgi --ini FILE` or `uwsgi FILE` below the words of its command line."""
    values = found.values
    name = values.pop("ini", None)
    if name is None and str(values.get("module")).endswith(".ini"):
        name = values.pop("module")
    if found.server.name != "uwsgi" or name is None:
        return
    if (file := _in_file(Path(str(name)))) is not None:
        found.values = {**file.values, **values}
        found.strange += file.strange
        found.origin, found.lines = ("", {}) if values else (file.origin, file.lines)
        found.notes.append(f"{name} is read, too")


def _without(values: object, name: str) -> dict[str, object]:
    assert isinstance(values, dict)
    return {key: value for key, value in values.items() if key != name}


def _resolve(
    layers: Sequence[Layer], server: foreign.ForeignServer, strange: list[str], file: SettingsFile | None = None
) -> tuple[Resolved, str, list[str]]:
    resolved = build(layers)
    known = {name: origin for name, origin in resolved.origins.items() if origin != "default"}
    notes = [each for each in resolved.notes if IMPLIED not in each]  # the defaults say it for file and line
    notes += lines.missing_defaults(server, known)
    options = [*server.names, *(flag.spelling for _, _, flag in foreign.flags(server))]
    words = [
        f"{word} is a variable of the shell, whose options are not seen here"
        if word.startswith("$")
        else f"{server.name} has no option {word}{suggestion(word.partition(' ')[0], options)}"
        for word in strange
    ]
    hooks = file.hooks if file is not None else ()
    said = resolved.changes
    if file is not None and (called := [each for each in hooks if each not in foreign.uncalled_hooks()]):
        path = os.path.relpath(file.path)
        said = (
            *said,
            f"{', '.join(called)}: an aserver.toml has no hooks; with them, {path} stays the file (aserver -c {path})",
        )
    return replace(resolved, notes=tuple(notes), changes=said, hooks=hooks), server.name, words


def _of(found: lines.Found) -> Layer:
    return foreign_layer(found.server.name, found.server, found.values)


def _in_file(path: Path) -> lines.Found | None:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if path.name in {"aserver.toml", "pyproject.toml"}:
        raise ConfigError(f"{path} is read by aserver as it is")
    if path.suffix == ".toml":
        return _hypercorn_toml(path)
    if path.suffix in {".ini", ".cfg", ".conf"}:
        return lines.in_uwsgi_ini(text, str(path.absolute()))
    return lines.in_unit(text) or lines.in_dockerfile(text) or lines.in_procfile(text)


def _hypercorn_toml(path: Path) -> lines.Found:
    server = foreign.SERVERS["hypercorn"]
    try:
        values: dict[str, object] = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    known = {name: value for name, value in values.items() if server.verdict(name) is not None}
    return lines.Found(server, known, [name for name in values if name not in known])


# ── aserver.toml ─────────────────────────────────────────────────────────────────────────────


def _as_toml(resolved: Resolved, server: str) -> str:
    rows = [f"# Made by `aserver migrate` from settings of {server}.", *_rows(resolved)]
    return "\n".join(rows) + "\n"


def _rows(resolved: Resolved) -> Iterator[str]:
    for info in settings():
        if resolved.origins[info.name] != "default":
            yield f"{info.name} = {literal(info, getattr(resolved.config, info.name))}"


def literal(info: SettingInfo, value: object) -> str:
    """A value in TOML that `build` reads as the same. JSON's strings are TOML's."""
    if isinstance(value, tuple):
        return "[" + ", ".join(json.dumps(str(item), ensure_ascii=False) for item in value) + "]"
    if info.kind is SWITCH:
        return "true" if value else "false"
    if info.kind in {NUMBER, WORKERS} and isinstance(value, int):
        return str(value)
    if value is None:
        return '"off"'
    text = str(value) if info.secret or (info.kind is not OCTAL and isinstance(value, str)) else info.kind.show(value)
    return json.dumps(text, ensure_ascii=False)

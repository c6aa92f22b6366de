"""Other servers' flags on aserver's command line: `-k`, `-t`, `--threads`, `--access-log`, `--loop`, `--ssl-version`...

Runs in the command. The flags come from the tables of verdicts (`config.foreign`), and are not shown in `--help`. A
spelling that is our own stays ours; a spelling that two servers have is gunicorn's before uvicorn's.
"""

import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from aserver.config import Layer, foreign
from aserver.config.build import nearest
from aserver.config.schema import NAMES, convert
from aserver.errors import ConfigError

#: In this order: a spelling that several servers share is the first server's. uWSGI is left out, because its flags are
#: of another make: `-p 4`, `-M`, `-b 32768`.
_SERVERS = ("gunicorn", "uvicorn", "hypercorn", "granian")
#: Flags that have a meaning of their own here, whichever server has them too.
_NOT_HERE = frozenset({"--version", "--help", "--config"})
#: Values that count as given. Without a worker class `-t` and `--threads` would be read as of gunicorn's sync worker,
#: its default, which a command line of aserver does not mean.
_ASSUMED = {"worker_class": "asgi"}
#: A switch's values, as uvicorn's `--ws-per-message-deflate` takes them.
_ON, _OFF = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off"})


#: uvicorn's values of `--ws`. With any other word behind it, it is granian's, which takes no value.
_WS = frozenset({"auto", "none", "websockets", "websockets-sansio", "wsproto"})


class ForeignOption(click.Option):
    """An option of another server: `row` is the setting there, `means` the value of a flag without a value."""

    def __init__(self, server: str, row: str, spelling: str, means: str | None, *, multiple: bool) -> None:
        name = f"{server}_{row}_{means or 'text'}_{spelling.strip('-')}".replace("-", "_")
        kind: dict[str, Any] = {"is_flag": True} if means is not None else {"type": str, "multiple": multiple}
        super().__init__([name, spelling], hidden=True, default=None, **kind)
        self.server, self.row, self.spelling, self.means = server, row, spelling, means


class MigrateCommand(click.Command):
    """A command whose words from the first that is no file's name on are another server's, also without `--`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        start = next((index for index, word in enumerate(args) if not word.startswith("-")), None)
        if start is not None and "--" not in args[:start] and not Path(args[start]).is_file():
            args = [*args[:start], "--", *(word for word in args[start:] if word != "--")]
        return super().parse_args(ctx, args)


def foreign_options(taken: Iterable[str]) -> list[click.Parameter]:
    """An option for each flag of another server that is not among those `taken`."""
    seen = {*taken, *_NOT_HERE}
    found: list[click.Parameter] = []
    for name in _SERVERS:
        server = foreign.SERVERS[name]
        for row, _, flag in foreign.flags(server):
            if flag.spelling not in seen:
                seen.add(flag.spelling)
                found.append(ForeignOption(name, row, flag.spelling, flag.value, multiple=row in server.repeated))
    return found


def without_switch_values(words: Sequence[str], switches: Collection[str]) -> list[str]:
    """The words with `--no-x` for `--x false` and `--x=false`, where `--x` is one of our `switches`."""
    found: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*found, word, *rest]
        name, equals, value = word.partition("=")
        text = (value if equals else rest[0] if rest else "").lower()
        if name in switches and text in _ON | _OFF:
            del rest[: not equals]
            word = name if text in _ON else f"--no-{name[2:]}"
        found.append(word)
    return found


def with_plain_ws(words: Sequence[str]) -> list[str]:
    """The words with granian's `--ws`, which takes no value, as `--ws=auto` of uvicorn's."""
    end = words.index("--") if "--" in words else len(words)
    pairs = zip(words[:end], [*words[1:], ""], strict=False)
    return ["--ws=auto" if word == "--ws" and value not in _WS else word for word, value in pairs] + [*words[end:]]


def with_log_file(words: Sequence[str], surplus: Sequence[str]) -> list[str]:
    """The words with Hypercorn's `--access-log FILE` as `--access-logfile FILE`; uvicorn's takes no value.

    It is Hypercorn's if `-` stands behind it, or if there are `surplus` words: more than one that could be the target.
    """
    found = list(words)
    for index, (word, value) in enumerate(itertools.pairwise(words)):
        if word == "--":
            break
        if word == "--access-log" and (value == "-" or (surplus and not value.startswith("-"))):
            found[index] = "--access-logfile"
    return found


def strange_options(words: Sequence[str], known: Sequence[str]) -> list[str]:
    """A sentence for each option among `words` that is not `known`, with those whose names are really close."""
    long = [name for name in known if name.startswith("--")]
    found = []
    for word in words:
        if word == "--":
            break
        name = word.partition("=")[0]
        if name.startswith("--") and name not in known:
            near = nearest(name.removeprefix("--"), [each.removeprefix("--") for each in long])
            hint = f"; did you mean {' or '.join('--' + each for each in near)}?" if near else ""
            found.append(f"there is no option {name}{hint}")
        elif re.fullmatch(r"-[^\W\d].*", name) and name[:2] not in known:
            found.append(f"there is no option {name[:2]}")
    return found


def foreign_flags(given: Mapping[ForeignOption, object]) -> Layer:
    """The layer that the given flags make, with the remarks on them."""
    settings: dict[str, object] = {}
    spelled: dict[str, str] = {}
    changes: list[str] = []
    notes: list[str] = []
    for name in _SERVERS:
        mine = {option: value for option, value in given.items() if option.server == name}
        if not mine:
            continue
        flags = {option.row: option.spelling for option in mine}
        values = {option.row: _given(option, value) for option, value in mine.items()}
        assumed = {key: value for key, value in _ASSUMED.items() if key not in values}
        result = foreign.translate(foreign.SERVERS[name], {**assumed, **values})
        settings |= result.settings
        spelled |= {setting: flags.get(row, row) for setting, row in result.spelled.items()}
        changes += [f"{flags[row]}: {text}" for row, text in result.changes if row in flags]
        notes += [f"{flags[row]}: {text}" for row, text in result.notes if row in flags]
    return Layer(
        "command line",
        settings,
        lambda key: spelled.get(NAMES.get(key, key), key),
        changes=tuple(changes),
        notes=tuple(notes),
    )


def _given(option: ForeignOption, value: object) -> object:
    """The value as the tables have it: those of an option that may be repeated are a list, and click's are a tuple."""
    if option.means is not None:
        return option.means == "on"
    return list(value) if isinstance(value, tuple) else value


def understood(given: Mapping[str, object]) -> dict[str, object]:
    """The values of our own options. A value that only another server has for the same flag (`asgi3`) is translated."""
    return {name: _understood(name, value) for name, value in given.items()}


def _understood(name: str, value: object) -> object:
    if (setting := NAMES.get(name)) != name or _fits(name, value):  # a flag that stands for a value is a switch
        return value
    for server in map(foreign.SERVERS.__getitem__, _SERVERS):
        for row, verdict in server.table.items():
            if verdict.convert is not None and (verdict.to or row) == setting:
                meant = verdict.convert(value, {}).settings.get(setting)
                if meant is not None and _fits(setting, meant):
                    return meant
    return value


def _fits(name: str, value: object) -> bool:
    try:
        convert(NAMES[name], value, "")
    except ConfigError:
        return False
    return True

"""The rows of the table as data, a `SettingInfo` for each, and the check of a single value.

Pure, and imported by every process. It must never know a setting's meaning beyond its row, except that `cert_reqs` may
also be a number of the ssl module.
"""

import dataclasses
import math
import shlex
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from aserver.config.examples import EXAMPLES
from aserver.config.table import Group, Setting, Table
from aserver.config.values import ASSIGNMENT, CHOICE, HEADER, NUMBER, OCTAL, STATIC, SWITCH, TEXT, Kind
from aserver.errors import ConfigError

#: The messages between our processes carry no greater number.
LARGEST = 2**63 - 1
#: Kinds of values that may be given as a mapping.
PAIRS = (HEADER, ASSIGNMENT, STATIC)


class _ItemError(ValueError):
    """An error in `item`, a value among several of a setting."""

    def __init__(self, item: object, reason: str) -> None:
        super().__init__(reason)
        self.item = item


@dataclass(frozen=True, slots=True)
class SettingInfo:
    """A row of the table, for the command line, the environment and the page.

    `default` is the default value as `show` writes it; None without a default.
    """

    name: str
    kind: Kind
    default: str | None
    group: Group
    help: str
    aliases: tuple[str, ...]
    short: str
    switches: tuple[tuple[str, object], ...]
    choices: tuple[str, ...]
    bounds: str
    repeatable: bool
    optional: bool
    off: bool
    secret: bool
    commas: bool
    example: str
    hint: Any

    @property
    def option(self) -> str:
        """The name on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The name in the environment."""
        return "ASERVER_" + self.name.upper()

    @property
    def assignment(self) -> str:
        """An example for a shell, by the environment: `ASERVER_WORKERS=4`."""
        return f"{self.variable}={shlex.quote(self.example)}"

    def expects(self) -> str:
        """The values that the setting takes, in words."""
        words = " ".join((self.kind.name, ", ".join(self.choices))) if self.kind is CHOICE else self.kind.name
        return words + (f", {self.bounds}" if self.bounds else "") + (", or off" if self.off else "")

    def show(self, value: object) -> str:
        """A value as text that reads back as the same value; secrets are masked."""
        if value is None:
            return "off" if self.off else "-"
        if isinstance(value, tuple):
            texts = [self._mask(str(item)) if self.secret else self.kind.show(item) for item in value]
            return (", " if self.commas else "; ").join(texts) or "-"
        return self._mask(str(value)) if self.secret else self.kind.show(value)

    def _mask(self, text: str) -> str:
        name, equals, _ = text.partition("=")
        return f"{name}=***" if equals and self.kind is ASSIGNMENT else "***"


def _metadata(hint: Any) -> Iterator[Any]:
    """All metadata in the `Annotated`s of a type, through unions and tuples, outermost last."""
    origin = get_origin(hint)
    if origin is Annotated:
        yield from _metadata(get_args(hint)[0])
        yield from hint.__metadata__
    elif origin in {Union, types.UnionType, tuple}:
        for part in get_args(hint):
            yield from _metadata(part)


def _members(hint: Any) -> tuple[Any, ...]:
    """The bare types of a union; for any other type, the type itself."""
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in {Union, types.UnionType}:
        return tuple(bare for part in get_args(hint) for bare in _members(part))
    return (hint,)


def _bounds(metas: Sequence[Meta]) -> str:
    words = {"ge": "at least", "gt": "above", "le": "at most"}
    shown = [f"{word} {getattr(meta, end)}" for meta in metas for end, word in words.items()]
    return " and ".join(text for text in shown if not text.endswith("None"))


def _describe(name: str, hint: Any, default: object) -> SettingInfo:
    marks = list(_metadata(hint))
    setting = next(mark for mark in marks if isinstance(mark, Setting))
    members = _members(hint)
    choices = next((get_args(member) for member in members if get_origin(member) is Literal), ())
    usual = SWITCH if bool in members else NUMBER if int in members else CHOICE if choices else TEXT
    kind = next((mark for mark in reversed(marks) if isinstance(mark, Kind)), usual)
    metas = [mark for mark in marks if isinstance(mark, Meta)]
    octal = kind is OCTAL
    info = SettingInfo(
        name=name,
        kind=kind,
        default=None,
        group=setting.group,
        help=setting.help,
        aliases=setting.aliases,
        short=setting.short,
        switches=setting.switches,
        choices=choices,
        bounds="0 to 0777" if octal else _bounds(metas),
        repeatable=any(get_origin(member) is tuple for member in members),
        optional=type(None) in members,
        off=setting.off,
        secret=setting.secret,
        commas=setting.commas,
        example=EXAMPLES.get(name, kind.example),
        hint=hint,
    )
    if (default is None and not info.off) or default == ():
        return info
    other = "off" if default is True else "on" if default is False else next((x for x in choices if x != default), "")
    return dataclasses.replace(info, default=info.show(default), example=info.example or other)


def _describe_all() -> Mapping[str, SettingInfo]:
    hints = get_type_hints(Table, include_extras=True)
    pristine = Table()
    return {name: _describe(name, hints[name], getattr(pristine, name)) for name in Table.__struct_fields__}


SETTINGS = _describe_all()
#: Every name that may stand for a setting, and the setting's own name. The parts of `bind` are in BIND_PARTS instead.
NAMES = {name: name for name in SETTINGS} | {
    alias: info.name for info in SETTINGS.values() for alias in (*info.aliases, *(word for word, _ in info.switches))
}
#: uvicorn's spellings of an address; `config.build` makes a `bind` of them.
BIND_PARTS = {
    "host": "host to listen on, with --port",
    "port": "port to listen on, with --host",
    "uds": "path of a unix socket to listen on",
    "fd": "number of a descriptor to listen on",
}


def settings() -> tuple[SettingInfo, ...]:
    """Every setting in the order of the table."""
    return tuple(SETTINGS.values())


def convert(name: str, value: object, origin: str) -> object:
    """The checked value of the setting `name`, from text or from a value of a file.

    Raises ConfigError, which names the setting, the value and its `origin`.
    """
    info = SETTINGS[name]
    try:
        return _convert(info, value)
    except ValueError as error:  # also msgspec.ValidationError
        value = error.item if isinstance(error, _ItemError) else value
        own = "" if isinstance(error, msgspec.ValidationError) else str(error)
        if not own or own.startswith("invalid literal for int"):
            own = f"expected {info.expects()}"
    raise ConfigError(f"{name} = {'***' if info.secret else repr(value)} ({origin}): {own}")


def read_flag(name: str, value: object, origin: str) -> bool:
    """Is a flag that stands for a setting's value, such as `lazy`, on? Raises ConfigError."""
    try:
        return msgspec.convert(SWITCH.parse(value) if isinstance(value, str) else value, bool)
    except ValueError:
        raise ConfigError(f"{name} = {value!r} ({origin}): expected {SWITCH.name}") from None


def _convert(info: SettingInfo, value: object) -> object:
    if info.off and (value is False or (isinstance(value, str) and value.lower() == "off")):
        return None
    if value is None and info.optional:
        return None
    if info.repeatable:
        return msgspec.convert([_read_item(info, item) for item in _split(info, value)], info.hint)
    read = _read(info, value)
    if isinstance(read, float) and not math.isfinite(read):
        raise ValueError
    if isinstance(read, int) and read > LARGEST:
        raise ValueError(f"it is above {LARGEST}, the largest number that fits")
    return msgspec.convert(read, info.hint)


def _read_item(info: SettingInfo, item: object) -> object:
    try:
        return _read(info, item)
    except ValueError as error:
        raise _ItemError(item, str(error)) from None


def _read(info: SettingInfo, value: object) -> object:
    """The value of text by the kind's parser. Anything else is left unchanged, and msgspec checks it."""
    if info.kind is CHOICE and isinstance(value, bool):
        value = "on" if value else "off"
    elif info.kind.numbers and isinstance(value, int | float):
        value = str(value)
    if info.name == "cert_reqs" and isinstance(value, str) and value in {"0", "1", "2"}:
        value = info.choices[int(value)]  # ssl.CERT_NONE, CERT_OPTIONAL, CERT_REQUIRED, as gunicorn has it
    return info.kind.parse(value) if isinstance(value, str) else value


def _split(info: SettingInfo, value: object) -> Iterator[object]:
    """The single values in text, a list, or (of PAIRS) a mapping. Items of a list keep their newlines."""
    if isinstance(value, Mapping) and info.kind in PAIRS:
        joint = ": " if info.kind is HEADER else "="
        value = [f"{key}{joint}{text}" for key, text in value.items()]
    for item in value.splitlines() if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]:
        if isinstance(item, str) and info.commas:
            yield from filter(None, map(str.strip, item.split(",")))
        elif item != "":
            yield item

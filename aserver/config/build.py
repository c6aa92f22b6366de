"""From layers of settings to a checked `Config`, with the origin of each value.

Pure: `aserver.config.layers` reads files and the environment, and the master resolves values that depend on this
machine (`workers = "auto"`, `control = "auto"`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import msgspec

from aserver.config.rules import check, warnings
from aserver.config.schema import BIND_PARTS, NAMES, SETTINGS, convert, read_flag
from aserver.config.table import Table
from aserver.config.values import DEFAULT_HOST, DEFAULT_PORT
from aserver.errors import ConfigError

#: Likeness (difflib, 0 to 1) that a known name must have to be offered for a name that is not known.
_NEAR = 0.75
#: A name that is less like it than the best by more than this is not offered beside the best.
_AS_NEAR = 0.08


class Config(Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting, checked: durations are seconds, sizes bytes, repeatable settings tuples, unset None.

    Instances come from `build` (or `aserver.config.layers.load`); the constructor itself checks nothing.
    """

    def to_wire(self) -> dict[str, object]:
        """Plain builtins, for a message to another aserver process."""
        wire: dict[str, object] = msgspec.to_builtins(self)
        return wire

    @classmethod
    def from_wire(cls, wire: Mapping[str, object]) -> Self:
        """The settings from the result of `to_wire`, also after a trip by msgpack or JSON. Raises ConfigError."""
        try:
            return msgspec.convert(wire, cls)
        except msgspec.ValidationError as error:
            raise ConfigError(f"settings from another process do not fit this aserver: {error}") from None

    def replace(self, **values: object) -> "Config":
        """A checked copy with other values, in any form that `build` takes. Raises ConfigError."""
        return build([Layer("replace()", values), Layer("before", self.to_wire())]).config


@dataclass(frozen=True, slots=True)
class Layer:
    """Settings from a single place. `origin` is its name for people; `spell` turns a setting's name into that used
    there.

    `lines` are those of the file, by the name that was written there. `errors`, `changes` and `notes` were found while
    the layer was read: mistakes, settings of other servers with another meaning here, and remarks for the log.
    """

    origin: str
    values: Mapping[str, object]
    spell: Callable[[str], str] = str
    lines: Mapping[str, int] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def place(self, key: str) -> str:
        """The file and line of a value, or the layer's name alone."""
        line = self.lines.get(self.spell(key))
        return self.origin if line is None else f"{self.origin} line {line}"

    def where(self, key: str) -> str:
        """The origin of a value, as `aserver config` and errors show it."""
        spelled = self.spell(key)
        return self.place(key) if spelled == key else f"{self.place(key)}, {spelled}"


@dataclass(frozen=True, slots=True)
class Resolved:
    """A checked configuration and the origin of each value ("default" for most).

    `hooks` are the names of the functions that a `.py` settings file, `hooks_file`, defines. Each generation looks for
    its code in `directory`: the working directory at start, by the name that its user knows. `file` is the
    settings file that was read, named or found. `changes` are to be warned of: settings of other servers that do not
    mean the same here; `notes` are only to be said.
    """

    config: Config
    origins: Mapping[str, str]
    hooks: tuple[str, ...] = ()
    hooks_file: str | None = None
    directory: str | None = None
    file: str | None = None
    changes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Likely mistakes that can be seen without a look at the system, a sentence each."""
        from aserver.config import foreign  # noqa: PLC0415 - 10 ms that a zygote does not need

        uncalled = foreign.uncalled_hooks()
        hooks = (f"hook {name} does nothing: {uncalled[name]}" for name in self.hooks if name in uncalled)
        return (*self.changes, *warnings(self.config), *hooks)


def _unknown(key: str, layer: Layer) -> ConfigError:
    """The error for a name that no setting has, with the nearest that is a setting's."""
    plain = key.lower().replace("-", "_")
    from aserver.config import foreign  # noqa: PLC0415 - as above

    answer = foreign.answer(plain) or suggestion(plain, (*NAMES, *BIND_PARTS), layer.spell)
    return ConfigError(f"there is no setting {layer.spell(key)} ({layer.place(key)}){answer}")


def suggestion(name: str, known: Iterable[str], spell: Callable[[str], str] = str) -> str:
    """`; did you mean a or b?`, for those of the `known` names that are really close; or nothing."""
    near = nearest(name, known)
    return f"; did you mean {' or '.join(map(spell, near))}?" if near else ""


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The names most like `name`: at most three, and only those that are nearly as like it as the first."""
    import difflib  # noqa: PLC0415 - rarely needed, and a start waits for each import

    def likeness(other: str) -> float:
        return difflib.SequenceMatcher(None, other, name).ratio()

    near = difflib.get_close_matches(name, list(known), n=3, cutoff=_NEAR)
    return [each for each in near if likeness(each) >= likeness(near[0]) - _AS_NEAR]


def _own(layer: Layer, errors: list[str]) -> dict[str, tuple[str, object]]:
    """The settings of a layer under their own names: name -> (as written, value). Mistakes go to `errors`."""
    found: dict[str, tuple[str, object]] = {}
    for key, written in layer.values.items():
        if key in BIND_PARTS:
            continue
        try:
            name, value = _named(key, written, layer)
        except ConfigError as error:
            errors.append(str(error))
            continue
        if name in found:
            both = f"{layer.spell(found[name][0])} and {layer.spell(key)}"
            errors.append(f"{name} is set twice ({layer.place(key)}): as {both}; keep one")
        else:
            found[name] = (key, value)
    return found


def _named(key: str, written: object, layer: Layer) -> tuple[str, object]:
    """The setting's own name and value. Raises ConfigError."""
    name = NAMES.get(key)
    if name is None:
        raise _unknown(key, layer)
    for word, meaning in SETTINGS[name].switches:
        if word == key:
            on = read_flag(key, written, layer.where(key))
            return name, meaning if on else not meaning if isinstance(meaning, bool) else SETTINGS[name].default
    return name, written


def _bind(layers: Sequence[Layer]) -> tuple[str, str] | None:
    """The address that `host`, `port`, `uds` or `fd` of the uppermost layer that has any of them make.

    `host` and `port` may come from different layers, down to the first that says `bind`. None if a `bind`
    stands above them all, or there are none.
    """
    parts: dict[str, tuple[str, str]] = {}
    for layer in layers:
        here = {key: (str(layer.values[key]), layer.where(key)) for key in BIND_PARTS if key in layer.values}
        names = [key for key in ("bind", *BIND_PARTS) if key in layer.values]
        if len(names) > 1 and names != ["host", "port"]:
            raise ConfigError(f"bind is set twice ({layer.origin}): as {' and '.join(map(layer.spell, names))}")
        parts = here | parts
        if "bind" in names or "uds" in here or "fd" in here:
            break
    if "uds" in parts and len(parts) == 1:
        return f"unix:{parts['uds'][0]}", parts["uds"][1]
    if "fd" in parts and len(parts) == 1:
        return f"fd://{parts['fd'][0]}", parts["fd"][1]
    if not ("host" in parts or "port" in parts):
        return None
    host = parts.get("host", (DEFAULT_HOST, ""))[0]
    port = parts.get("port", (str(DEFAULT_PORT), ""))[0]
    where = next(parts[part][1] for part in ("port", "host") if part in parts)
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}", where


def build(layers: Sequence[Layer]) -> Resolved:
    """The first layer that has a setting wins; every layer is checked. Raises ConfigError with all mistakes."""
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    errors = [text for layer in layers for text in layer.errors]
    address = None
    try:
        address = _bind(layers)
    except ConfigError as error:
        errors.append(str(error))
    for layer in layers:
        here = {name: (value, layer.where(key)) for name, (key, value) in _own(layer, errors).items()}
        if address and "bind" not in values and not BIND_PARTS.keys().isdisjoint(layer.values):
            here["bind"] = address
        for name, (value, origin) in here.items():
            try:
                converted = convert(name, value, origin)
            except ConfigError as error:
                errors.append(str(error))
                continue
            if name not in values:
                values[name], origins[name] = converted, origin
    config = msgspec.convert(values, Config)
    errors += check(config, origins)
    if errors:
        raise ConfigError.of(list(dict.fromkeys(errors)))
    return Resolved(
        config,
        {name: origins.get(name, "default") for name in SETTINGS},
        changes=tuple(text for layer in layers for text in layer.changes),
        notes=tuple(text for layer in layers for text in layer.notes),
    )

"""From layers of settings to one checked `Config` that knows where each value came from.

Pure: reading files and the environment is `aserver.config.layers`' business; resolving what depends on this machine
(`workers = "auto"`, `control = "auto"`) is the master's.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import msgspec

from aserver.config.rules import check, warnings
from aserver.config.schema import BIND_PARTS, NAMES, SETTINGS, convert, read_flag
from aserver.config.table import Table
from aserver.config.values import DEFAULT_HOST, DEFAULT_PORT
from aserver.errors import ConfigError

#: gunicorn's that nothing here calls: its settings files can be used as they are, and are told.
UNCALLED_HOOKS = frozenset({"worker_int", "pre_request", "post_request", "ssl_context"})


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
        """What `to_wire` gave, also after a trip through msgpack or JSON. Raises ConfigError."""
        try:
            return msgspec.convert(wire, cls)
        except msgspec.ValidationError as error:
            raise ConfigError(f"settings from another process do not fit this aserver: {error}") from None

    def replace(self, **values: object) -> "Config":
        """A checked copy with other values, in any form that `build` takes. Raises ConfigError."""
        return build([Layer("replace()", values), Layer("before", self.to_wire())]).config


@dataclass(frozen=True, slots=True)
class Layer:
    """Settings from one place. `origin` is for people; `spell` makes the name that was written there of a setting's.

    `advice` ends the message about an unknown setting.
    """

    origin: str
    values: Mapping[str, object]
    spell: Callable[[str], str] = str
    advice: str = ""

    def where(self, key: str) -> str:
        """Where a value came from, as `aserver config` and errors say it."""
        spelled = self.spell(key)
        return self.origin if spelled == key else f"{self.origin}, {spelled}"


@dataclass(frozen=True, slots=True)
class Resolved:
    """A checked configuration and where each value came from ("default" for most).

    `hooks` are the names of the functions that a `.py` settings file, `hooks_file`, defines. `directory` is where each
    generation's code is looked for: the working directory at start, by the name that its user knows. `file` is the
    settings file that was read, named or found.
    """

    config: Config
    origins: Mapping[str, str]
    hooks: tuple[str, ...] = ()
    hooks_file: str | None = None
    directory: str | None = None
    file: str | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Likely mistakes that can be seen without looking at the system; one sentence each."""
        uncalled = [name for name in self.hooks if name in UNCALLED_HOOKS]
        return (*warnings(self.config), *(f"hook {name} does nothing: aserver never calls it" for name in uncalled))


def _unknown(key: str, layer: Layer) -> ConfigError:
    """The error for a name that is no setting's, with the nearest that is."""
    near = difflib.get_close_matches(key.lower().replace("-", "_"), (*NAMES, *BIND_PARTS), n=1, cutoff=0.5)
    hint = f"; did you mean {layer.spell(near[0])}?" if near else ""
    return ConfigError(f"there is no setting {layer.spell(key)} ({layer.origin}){hint}{layer.advice}")


def _own(layer: Layer) -> dict[str, tuple[str, object]]:
    """The settings of one layer under their own names: name -> (as written, value). Raises ConfigError."""
    found: dict[str, tuple[str, object]] = {}
    for key, written in layer.values.items():
        if key in BIND_PARTS:
            continue
        if (name := NAMES.get(key)) is None:
            raise _unknown(key, layer)
        if name in found:
            both = f"{layer.spell(found[name][0])} and {layer.spell(key)}"
            raise ConfigError(f"{name} is set twice ({layer.origin}): as {both}; keep one")
        value = written
        for word, meaning in SETTINGS[name].switches:
            if word == key:
                on = read_flag(key, written, layer.where(key))
                value = meaning if on else not meaning if isinstance(meaning, bool) else SETTINGS[name].default
        found[name] = (key, value)
    return found


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
    """The first layer that has a setting wins; every layer is checked. Raises ConfigError."""
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    address = _bind(layers)
    for layer in layers:
        if address and "bind" not in values and not BIND_PARTS.keys().isdisjoint(layer.values):
            values["bind"], origins["bind"] = convert("bind", *address), address[1]
        for name, (key, value) in _own(layer).items():
            converted = convert(name, value, layer.where(key))
            if name not in values:
                values[name], origins[name] = converted, layer.where(key)
    config = msgspec.convert(values, Config)
    check(config, origins)
    return Resolved(config, {name: origins.get(name, "default") for name in SETTINGS})

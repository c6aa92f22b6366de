"""A Python settings file's names as settings here: gunicorn's by its table of verdicts, our own as they are.

Pure. Every Python settings file is read so, because none says for which server it is: names of both may stand in the
same file. It must never drop a name in silence, except those that the file uses itself, as gunicorn does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from aserver.config import foreign
from aserver.config.build import Layer, nearest
from aserver.config.schema import BIND_PARTS, NAMES, convert
from aserver.errors import ConfigError

#: Words in the note that lists where gunicorn's defaults differ; `aserver migrate` knows the note by them.
IMPLIED = "leaves to defaults, which are others in gunicorn"
#: Names that a misspelt name may have meant.
_KNOWN = tuple(
    dict.fromkeys(
        (*NAMES, *BIND_PARTS, *(name for name, each in foreign.SERVERS["gunicorn"].table.items() if not each.hook))
    )
)


@dataclass(frozen=True, slots=True)
class Namespace:
    """The answer of the child that ran the file. `odd` has the types of settings that are no plain values."""

    settings: Mapping[str, object]
    hooks: Sequence[str] = ()
    functions: Sequence[str] = ()
    odd: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)
    assigned: Sequence[str] = ()
    imported: Sequence[str] = ()
    read: Sequence[str] = ()


def adopt(origin: str, names: Namespace) -> Layer:
    """The layer that the file makes. Its mistakes are the layer's, to be told with all others."""
    gunicorn = foreign.SERVERS["gunicorn"]
    theirs = {name: value for name, value in names.settings.items() if gunicorn.verdict(name) is not None}
    result = foreign.translate(gunicorn, theirs)
    values = dict(result.settings)
    plain = Layer(origin, {}, lines=names.lines)
    errors = [
        f"{name} ({plain.place(name)}) is of type {kind}, no plain value"
        for name, kind in names.odd.items()
        if name not in names.read or gunicorn.verdict(name) is not None
    ]
    errors += [_twice(plain, *each) for each in result.twice]
    changes = [f"{plain.place(name)}, {name}: {text}" for name, text in result.changes]
    for name, value in names.settings.items():
        if name in theirs:
            continue
        if name in NAMES or name in BIND_PARTS:
            if value is None or _is_helper(name, value, names, changes, plain):
                continue
            if (first := result.spelled.get(NAMES.get(name, ""))) is None:
                values[name] = value
            else:
                errors.append(_twice(plain, NAMES[name], first, name))
        elif name in names.assigned and name not in names.read and name not in names.imported:
            near = nearest(name, _KNOWN)
            hint = foreign.answer(name) or (f"; did you mean {' or '.join(near)}?" if near else "")
            changes.append(f"{name} ({plain.place(name)}) is no setting and is not used, as in gunicorn{hint}")
    changes += _almost_hooks(names, plain)
    spelled = result.spelled
    return Layer(
        origin,
        values,
        lambda key: spelled.get(NAMES.get(key, key), key),
        lines=names.lines,
        errors=tuple(errors),
        changes=tuple(changes),
        notes=(
            *(f"{plain.place(name)}, {name}: {text}" for name, text in result.notes),
            *_implied(origin, result.settings, theirs),
        ),
    )


def _implied(origin: str, settings: Mapping[str, object], given: Mapping[str, object]) -> list[str]:
    """A sentence on what gunicorn does where its file has no setting; `given` is by gunicorn's names."""
    if "gunicorn" not in PurePath(origin).name:
        return []
    rows = [
        f"{name} {theirs}{' (a WSGI application has one request at a time)' * (name == 'threads')}, here {ours}"
        for name, theirs, ours in foreign.SERVERS["gunicorn"].defaults
        if name not in settings and not (name == "threads" and "worker_class" in given)
    ]
    return [f"{origin} {IMPLIED}: {'; '.join(rows)}"] if rows else []


def _twice(plain: Layer, setting: str, first: str, second: str) -> str:
    return f"{setting} is set twice ({plain.place(second)}): as {first} and {second}; keep one"


def _is_helper(name: str, value: object, names: Namespace, changes: list[str], plain: Layer) -> bool:
    """Whether a name that is a setting here, and none of gunicorn's, is the file's own: `host`, `port`, `env`...

    It is if the file reads it and `bind` stands beside `host` and `port`, or its value does not fit.
    """
    if name not in names.read and name not in names.imported:
        return False
    if name in BIND_PARTS:
        return "bind" in names.settings
    if name not in NAMES:
        return False
    try:
        convert(NAMES[name], value, plain.place(name))
    except ConfigError:
        changes.append(f"{name} ({plain.place(name)}) is taken for a name of the file's own: it is no value of {name}")
        return True
    return False


def _almost_hooks(names: Namespace, plain: Layer) -> list[str]:
    almost = [(name, nearest(name, foreign.hooks())) for name in names.functions if name not in names.read]
    return [
        f"function {name} ({plain.place(name)}) is no hook and is never called; did you mean {' or '.join(near)}?"
        for name, near in almost
        if near
    ]

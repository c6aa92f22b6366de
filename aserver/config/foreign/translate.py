"""From another server's values, or its command line, to settings here, by the tables.

Pure. The command line, the file reader, `aserver migrate` and docs/migrate.md all ask here. It must never decide what a
setting means by itself: that stands in the server's table.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from aserver.config.foreign import granian, gunicorn, hypercorn, uvicorn, uwsgi, uwsgi_families, uwsgi_names
from aserver.config.foreign.verdict import Flag, Table, Verdict
from aserver.config.schema import NAMES

#: Settings of several values, which several settings there may make: uWSGI's `socket` and `http`.
_JOINED = frozenset({"bind", "env", "header"})


@dataclass(frozen=True, slots=True)
class ForeignServer:
    """Another server: its table, its options that may be repeated, its variables, its behaviour without a setting."""

    name: str
    table: Table
    repeated: frozenset[str]
    variables: Mapping[str, str]
    defaults: Sequence[tuple[str, str, str]]
    target: str

    def verdict(self, name: str) -> Verdict | None:
        """The verdict on a setting; of uWSGI's also by its subsystem."""
        found = self.table.get(name)
        return found or (uwsgi_families.family(name) if self.name == "uwsgi" else None)

    @property
    def names(self) -> list[str]:
        """The names of settings that have a verdict."""
        others = uwsgi_names.OPTIONS - self.table.keys() if self.name == "uwsgi" else ()
        return [*self.table, *sorted(others)]


SERVERS: Mapping[str, ForeignServer] = {
    server.name: server
    for server in (
        ForeignServer(
            "gunicorn", gunicorn.GUNICORN, gunicorn.REPEATED, gunicorn.VARIABLES, gunicorn.DEFAULTS, "wsgi_app"
        ),
        ForeignServer("uvicorn", uvicorn.UVICORN, uvicorn.REPEATED, uvicorn.VARIABLES, uvicorn.DEFAULTS, "app"),
        ForeignServer("granian", granian.GRANIAN, granian.REPEATED, granian.VARIABLES, granian.DEFAULTS, "app"),
        ForeignServer(
            "hypercorn", hypercorn.HYPERCORN, hypercorn.REPEATED, hypercorn.VARIABLES, hypercorn.DEFAULTS, "application"
        ),
        ForeignServer("uwsgi", uwsgi.UWSGI, uwsgi.REPEATED, uwsgi.VARIABLES, uwsgi.DEFAULTS, "module"),
    )
}


@dataclass(slots=True)
class Translated:
    """Settings here, the names they had there (`spelled`), and a remark on each name that needs it."""

    settings: dict[str, object] = field(default_factory=dict)
    spelled: dict[str, str] = field(default_factory=dict)
    changes: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    twice: list[tuple[str, str, str]] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def translate(server: ForeignServer, values: Mapping[str, object]) -> Translated:
    """Every value that has a verdict, by it; the names without a verdict are `unknown`."""
    result = Translated()
    implied: dict[str, tuple[object, str]] = {}
    for name, value in values.items():
        verdict = server.verdict(name)
        if verdict is None:
            result.unknown.append(name)
            continue
        if verdict.hook:
            continue
        meaning = verdict.meaning(name, value, values)
        result.changes += [(name, text) for text in meaning.changes]
        result.notes += [(name, text) for text in meaning.notes]
        for key, each in meaning.settings.items():
            setting = NAMES.get(key, key)
            own = verdict.to or name.replace("-", "_")
            if setting != NAMES.get(own, own):
                implied[key] = each, name
            elif setting in result.spelled and setting in _JOINED:
                result.settings[key] = [*_items(result.settings[key]), *_items(each)]
            elif setting in result.spelled and result.settings.get(key) != each:
                result.twice.append((setting, result.spelled[setting], name))
            elif setting not in result.spelled:
                result.settings[key], result.spelled[setting] = each, name
    for key, (each, name) in implied.items():
        if NAMES.get(key, key) not in result.spelled:
            result.settings[key], result.spelled[NAMES.get(key, key)] = each, name
    return result


def answer(name: str) -> str:
    """The end of the message about a name that is no setting here but another server's; empty if it is nowhere."""
    for server in SERVERS.values():
        verdict = server.table.get(name)
        if verdict is not None and not verdict.hook:
            instead = f"{verdict.to}: {verdict.text}" if verdict.to and verdict.text else verdict.text or verdict.to
            return f"; it is {server.name}'s: {instead}" if instead else ""
    return ""


def _items(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


@cache
def _flags(server: str) -> Mapping[str, tuple[str, Flag]]:
    table = SERVERS[server].table
    return {flag.spelling: (name, flag) for name, verdict in table.items() for flag in verdict.spellings(name)}


def flags(server: ForeignServer) -> Iterator[tuple[str, Verdict, Flag]]:
    """Every flag of a server."""
    for name, verdict in server.table.items():
        for flag in verdict.spellings(name):
            yield name, verdict, flag


def read_command_line(server: ForeignServer, words: Sequence[str]) -> tuple[dict[str, object], list[str]]:
    """The values that a command line sets, the target among them; and the words that were not understood."""
    values: dict[str, object] = {}
    strange: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            if server.target in values:
                strange.append(word)
            else:
                values[server.target] = word
            continue
        spelling, equals, value = word.partition("=") if word.startswith("--") else (word[:2], word[2:], word[2:])
        found = _find(server, spelling)
        if found is None:
            strange.append(word)
            if rest and not equals and not rest[0].startswith("-") and (len(rest) > 1 or server.target in values):
                rest.pop(0)  # most likely its value: the target comes last
            continue
        name, flag = found
        if flag is None or flag.value is None:
            if equals:
                text: object = value.removeprefix("=") if not word.startswith("--") else value
            elif rest and not (server.name == "uwsgi" and rest[0].startswith("-")):
                text = rest.pop(0)
            else:
                text = "true"
            set_value(server, values, name, text)
            continue
        values[name] = flag.value == "on"
        if equals and not word.startswith("--"):  # letters without values may stand together: -DR
            rest.insert(0, "-" + value)
    return values, strange


def set_value(server: ForeignServer, values: dict[str, object], name: str, text: object) -> None:
    """Note a value as it was given; those of an option that may be repeated are a list."""
    if name not in server.repeated:
        values[name] = text
        return
    before = values.setdefault(name, [])
    assert isinstance(before, list)
    before.append(text)


def _find(server: ForeignServer, spelling: str) -> tuple[str, Flag | None] | None:
    known = _flags(server.name)
    if spelling in known:
        return known[spelling]
    if server.name == "uwsgi":
        return (spelling[2:], None) if server.verdict(spelling[2:]) is not None else None
    if not spelling.startswith("--"):
        return None
    names = {known[each][0]: each for each in known if each.startswith(spelling)}  # argparse and click: `--work 4`
    return known[next(iter(names.values()))] if len(names) == 1 and server.name in {"gunicorn", "hypercorn"} else None

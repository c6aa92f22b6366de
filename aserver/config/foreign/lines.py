"""Where another server's settings stand: a command line, a Procfile, a systemd unit, a Dockerfile, a uwsgi.ini.

Pure: it is given text. `aserver migrate` reads the files. It must never guess: a text without a server's command gives
nothing.
"""

import contextlib
import itertools
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from aserver.config.foreign.relatives import rewritten
from aserver.config.foreign.translate import SERVERS, ForeignServer, read_command_line, set_value

_PLACEHOLDER = re.compile(r"%\((\w[\w-]*)\)")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*")
_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ash"})


@dataclass(slots=True)
class Found:
    """A server's settings, the words or names that were not understood, and remarks.

    `origin` is where they stand, and `lines` on which of its lines, if it has several.
    """

    server: ForeignServer
    values: dict[str, object]
    strange: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    origin: str = ""
    lines: dict[str, int] = field(default_factory=dict)


def in_words(words: Sequence[str]) -> Found | None:
    """The command line of a server, up to a shell's next command. None: there is none.

    `exec`, `env A=B`, `python -m`, `uv run` or `sh -c` may stand before it.
    """
    for index, word in enumerate(words):
        name = word.rpartition("/")[2]
        if name in _SHELLS and (script := _script(words[index + 1 :])) is not None:
            return in_words(_split(script))
        arguments = list(itertools.takewhile(lambda each: not set(each) <= set(";&|<>"), words[index + 1 :]))
        server = SERVERS.get(name)
        said: list[str] = []
        if (as_uvicorn := rewritten(name, arguments)) is not None:
            server, (arguments, said) = SERVERS["uvicorn"], as_uvicorn
        if server is not None:
            values, strange = read_command_line(server, arguments)
            if as_uvicorn is not None:
                server = replace(server, name=name, defaults=server.defaults if name == "fastapi" else ())
            before = [each for each in words[:index] if _ASSIGNMENT.fullmatch(each)]
            notes = [f"{' '.join(before)} stays before the command, or becomes `env` here"] if before else []
            return Found(server, values, strange, [*notes, *said])
    return None


def in_command(text: str) -> Found | None:
    """A command line that is a single text: as a shell has it, or as CMD of a Dockerfile, with its brackets."""
    return in_words(_docker_words(re.sub(r"^\s*(CMD|ENTRYPOINT)\s+", "", text)))


def in_dockerfile(text: str) -> Found | None:
    """The command of the last ENTRYPOINT with the last CMD behind it."""
    joined = re.sub(r"\\\n\s*", " ", text)
    last = dict(re.findall(r"^\s*(CMD|ENTRYPOINT)\s+(.+)$", joined, re.MULTILINE))
    found = in_words([word for name in ("ENTRYPOINT", "CMD") for word in _docker_words(last.get(name, ""))])
    if found is not None:
        found.notes.append('the line becomes `CMD ["aserver", "run"]`, the file is in WORKDIR')
    return found


def _docker_words(text: str) -> list[str]:
    """The words of a JSON list, or a shell's."""
    with contextlib.suppress(ValueError):
        words = json.loads(text)
        if isinstance(words, list):
            return [str(each) for each in words]
    return _split(text)


def _script(words: Sequence[str]) -> str | None:
    """The text behind a shell's `-c`, `-lc`..."""
    for option, script in itertools.pairwise(words):
        if re.fullmatch(r"-[a-z]*c", option):
            return script
    return None


def in_procfile(text: str) -> Found | None:
    """The command of the process type `web`, else of the first that is a server's."""
    lines = [match.groups() for match in re.finditer(r"^([A-Za-z0-9_-]+):\s*(.+)$", text, re.MULTILINE)]
    for name, command in sorted(lines, key=lambda each: each[0] != "web"):
        if (found := in_words(_split(command))) is not None:
            found.notes.append(f"the process type {name} is read; the line becomes `{name}: aserver run`")
            return found
    return None


def in_unit(text: str) -> Found | None:
    """The command of `ExecStart` in a systemd unit."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for command in re.findall(r"^ExecStart\s*=\s*[-@:+!]*(.+)$", joined, re.MULTILINE):
        if (found := in_words(_split(command.replace("$MAINPID", "")))) is not None:
            found.notes.append("User, Group, WorkingDirectory, Environment and Type=notify stay in the unit")
            program = re.search(rf"\S*/(?={found.server.name}\s)", command)
            if program is not None:
                found.notes.append(f"ExecStart becomes `{program[0]}aserver run`, the file is in WorkingDirectory")
            return found
    return None


def in_uwsgi_ini(text: str, path: str) -> Found | None:
    """The section [uwsgi]. `%(name)` is an option of the file, `%d` its directory, `%n` its name without the suffix."""
    directory, _, file = path.rpartition("/")
    magic = {"%d": f"{directory}/", "%n": file.rpartition(".")[0], "%s": file, "%p": path}
    server = SERVERS["uwsgi"]
    values: dict[str, object] = {}
    used: set[str] = set()

    def option(match: re.Match[str]) -> str:
        given = values.get(match[1], match[0])
        return str(given[-1] if isinstance(given, list) else given)

    section = ""
    notes: list[str] = []
    numbers: dict[str, int] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        if line.startswith("["):
            section = line.strip("[]").strip()
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if section != "uwsgi":
            continue
        used |= set(_PLACEHOLDER.findall(value))
        value = _PLACEHOLDER.sub(option, value)
        for letter, meaning in magic.items():
            value = value.replace(letter, meaning)
        set_value(server, values, name, value if equals else "true")
        numbers.setdefault(name, number)
    if not values:
        return None
    strange = [name for name in values if server.verdict(name) is None and name not in used]
    known = {name: value for name, value in values.items() if server.verdict(name) is not None}
    return Found(server, known, [f"{name} ({file} line {numbers[name]})" for name in strange], notes, file, numbers)


def _split(command: str) -> list[str]:
    """A shell's words; a sign between commands is a word of its own."""
    command = re.sub(r"(?<=\s)\d(?=[<>])", "", command)  # 2>&1
    words = shlex.shlex(command, posix=True, punctuation_chars=";&|<>")
    words.whitespace_split = True
    try:
        return list(words)
    except ValueError:  # quotes that do not match
        return command.split()


def without_variables(found: Found) -> list[str]:
    """Take the values out that hold a shell's variable, which no file expands, and say of each what to do.

    The command reads `$PORT`, without other text, and `$WEB_CONCURRENCY` by itself.
    """
    said: list[str] = []
    for name, value in list(found.values.items()):
        texts = value if isinstance(value, list) else [value]
        if not any(isinstance(each, str) and "$" in each for each in texts):
            continue
        del found.values[name]
        if name in {"bind", "port"} and all(re.fullmatch(r".*\$\{?PORT(:-\d+)?\}?", str(each)) for each in texts):
            found.notes.append(f"{name} = {value}: aserver listens on 0.0.0.0:$PORT by itself")
            if name == "port":
                found.values.pop("host", None)
        elif name == "workers" and re.fullmatch(r"\$(WEB_CONCURRENCY|\{WEB_CONCURRENCY(:-\d+)?\})", str(value)):
            found.notes.append(f"workers = {value}: aserver reads WEB_CONCURRENCY by itself, and has 1 without it")
        else:
            said.append(f"{name} = {value} has a variable of the shell: give it on the command line or as ASERVER_*")
    return said


def missing_defaults(server: ForeignServer, known: Mapping[str, object]) -> list[str]:
    """A line for each setting that is not set and means another thing here."""
    return [
        f"{setting} is not set: {server.name} has {theirs}, aserver {ours}"
        for setting, theirs, ours in server.defaults
        if setting not in known
    ]

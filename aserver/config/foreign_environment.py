"""Variables of other servers in the environment: which are read, and which are only named in a warning.

Pure: it is given the environment. Runs in the command, and in the master for a reload. An embedding program's variables
are its own.
"""

import shlex
from collections.abc import Iterator, Mapping

from aserver.config import foreign
from aserver.config.build import Layer, suggestion
from aserver.config.schema import NAMES

ARGUMENTS = "GUNICORN_CMD_ARGS"


def gunicorn_arguments(environ: Mapping[str, str]) -> Layer:
    """The layer of $GUNICORN_CMD_ARGS: gunicorn's flags, above the settings file as in gunicorn."""
    text = environ.get(ARGUMENTS, "").strip()
    if not text:
        return Layer(f"${ARGUMENTS}", {})
    try:
        words = shlex.split(text)
    except ValueError as error:
        return Layer(f"${ARGUMENTS}", {}, errors=(f"${ARGUMENTS}: {error}",))
    server = foreign.SERVERS["gunicorn"]
    values, strange = foreign.read_command_line(server, words)
    read = f"${ARGUMENTS} is read: {', '.join(values) or 'nothing'}"
    known = [flag.spelling for _, _, flag in foreign.flags(server)]
    errors = tuple(f"${ARGUMENTS}: gunicorn has no option {word}{suggestion(word, known)}" for word in strange)
    return foreign_layer(f"${ARGUMENTS}", server, values, errors=errors, notes=(read,))


def foreign_layer(
    origin: str,
    server: foreign.ForeignServer,
    values: Mapping[str, object],
    *,
    errors: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
    lines: Mapping[str, int] | None = None,
) -> Layer:
    """The layer that another server's settings make; `lines` are those of `origin`, by the names there."""
    result = foreign.translate(server, values)
    spelled = result.spelled
    plain = Layer(origin, {}, lines=lines or {})
    twice = (f"{setting} is set twice ({origin}): as {first} and {second}" for setting, first, second in result.twice)
    return Layer(
        origin,
        result.settings,
        lambda key: spelled.get(NAMES.get(key, key), key),
        errors=(*errors, *twice),
        lines=plain.lines,
        changes=tuple(f"{plain.place(name)}, {name}: {text}" for name, text in result.changes),
        notes=(*notes, *(f"{plain.place(name)}, {name}: {text}" for name, text in result.notes)),
    )


def lowest_layers(environ: Mapping[str, str], *, command: bool) -> Iterator[Layer]:
    """Variables that stand below every file, as in gunicorn and uvicorn: they are those servers' defaults."""
    if environ.get("WEB_CONCURRENCY"):
        yield Layer("$WEB_CONCURRENCY", {"workers": environ["WEB_CONCURRENCY"]})
    if not command:
        return
    if environ.get("PORT"):
        port = environ["PORT"].strip()
        said = () if port.isdigit() else ("$PORT is no number and is not read",)
        yield Layer("$PORT", {} if said else {"bind": f"0.0.0.0:{port}"}, changes=said)
    if environ.get("FORWARDED_ALLOW_IPS"):
        yield Layer("$FORWARDED_ALLOW_IPS", {"forwarded_allow_ips": environ["FORWARDED_ALLOW_IPS"]})


def unread(environ: Mapping[str, str]) -> Iterator[str]:
    """A warning for each variable of another server that is not read, with ours that says the same."""
    for name in ("uvicorn", "granian", "uwsgi"):
        server, prefix = foreign.SERVERS[name], f"{name.upper()}_"
        for variable, text in environ.items():
            option = variable.removeprefix(prefix).lower()
            if name == "uwsgi":
                option = option.replace("_", "-")
            verdict = server.verdict(option) if variable.startswith(prefix) and text else None
            if verdict is None:
                continue
            settings = verdict.meaning(option, text, {option: text}).settings
            ours = " ".join(f"ASERVER_{NAMES.get(key, key).upper()}={_text(value)}" for key, value in settings.items())
            instead = f"say {ours}" if ours and "password" not in option else verdict.text
            yield f"{variable} is {name}'s and is not read{'; ' if instead else ''}{instead}"


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

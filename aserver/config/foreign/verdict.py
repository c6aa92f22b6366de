"""Verdicts: what becomes here of a setting, flag or variable of another server.

Pure. The tables of the servers are made of `Verdict`s; `Meaning` is the answer for a value. It must never judge by
itself: a value passes through unchanged, and `aserver.config.build` checks it as any other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Answer(StrEnum):
    """The five answers to a setting of another server."""

    SAME = "same"
    RENAMED = "renamed"
    CONVERTED = "converted"
    NOT_NEEDED = "not needed"
    NO_EQUAL = "no equal"


@dataclass(frozen=True, slots=True)
class Meaning:
    """A value's meaning here: the settings that it makes, and remarks.

    `changes` say what does not mean here what it meant there, and are warned of. `notes` say why nothing is lost by a
    value that is not used.
    """

    settings: Mapping[str, object] = field(default_factory=dict)
    changes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


#: The sentence on the settings of HTTP/2 that several servers have.
HTTP2 = (
    "HTTP/2 is spoken over TLS, and in the clear where bind says h2c://host:port; its limits are fixed (docs/http2.md)"
)
#: The sentence on a WebSocket implementation that is switched off.
WEBSOCKETS = "WebSockets cannot be switched off: an application without them refuses them itself"
#: The value, and all values that stand beside it.
Convert = Callable[[object, Mapping[str, object]], Meaning]


@dataclass(frozen=True, slots=True)
class Flag:
    """A spelling on a command line. `value` is that of the flag alone; None: a value follows it."""

    spelling: str
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`to` is the setting's name here. `text` says why it is not needed, how to replace it, or the difference."""

    answer: Answer
    to: str = ""
    text: str = ""
    convert: Convert | None = None
    flags: tuple[Flag, ...] | None = None
    hook: bool = False

    def spellings(self, name: str) -> tuple[Flag, ...]:
        """The flags of the setting `name`: those of its row, else `--name`."""
        return (Flag(_dashed(name)),) if self.flags is None else self.flags

    def meaning(self, name: str, value: object, others: Mapping[str, object]) -> Meaning:
        """The meaning of a value here. It is empty for None, and for a value that switches off what is not here."""
        if self.convert is not None:
            return self.convert(value, others)
        if self.answer in {Answer.SAME, Answer.RENAMED}:
            if value is None:
                return Meaning()
            return Meaning({self.to or name.replace("-", "_"): value}, (self.text,) if self.text else ())
        if asks_nothing(value):
            return Meaning()
        if self.answer is Answer.NOT_NEEDED:
            return Meaning(notes=(self.text,))
        return Meaning(changes=(self.text,))


Table = Mapping[str, Verdict]


def asks_nothing(value: object) -> bool:
    """None, false, 0, "", an empty list, and the words for them."""
    return not value or (isinstance(value, str) and value.lower() in {"off", "false", "no", "none", "0"})


def is_on(value: object) -> bool:
    """Whether a switch is on, as text or as a value."""
    return not asks_nothing(value)


def _dashed(name: str) -> str:
    return "--" + name.replace("_", "-")


def _flags(text: str | None) -> tuple[Flag, ...] | None:
    """`-D=on --daemon=on`: two flags without a value; `-w --workers`: a value follows. "": there is none."""
    if text is None:
        return None
    pairs = [each.partition("=") for each in text.split()]
    return tuple(Flag(name, value if equals else None) for name, equals, value in pairs)


def same(flags: str | None = None, text: str = "") -> Verdict:
    """The same name (or an alias of it) and the same meaning."""
    return Verdict(Answer.SAME, text=text, flags=_flags(flags))


def renamed(to: str, flags: str | None = None, text: str = "") -> Verdict:
    """Another name, the same value. With `text` something differs a little, and is told as a change."""
    return Verdict(Answer.RENAMED, to, text, flags=_flags(flags))


def converted(to: str, convert: Convert, text: str, flags: str | None = None) -> Verdict:
    """Another value; `text` says in the documentation which."""
    return Verdict(Answer.CONVERTED, to, text, convert, _flags(flags))


def unneeded(text: str, flags: str | None = None) -> Verdict:
    """Nothing is lost without it."""
    return Verdict(Answer.NOT_NEEDED, text=text, flags=_flags(flags))


def unequal(text: str, flags: str | None = None) -> Verdict:
    """Nothing here does that; `text` says how to replace it."""
    return Verdict(Answer.NO_EQUAL, text=text, flags=_flags(flags))


def hook(text: str = "") -> Verdict:
    """A function in a Python file: called here too or, with a `text`, not."""
    return Verdict(Answer.NO_EQUAL if text else Answer.SAME, text=text, flags=(), hook=True)


# ── conversions that several servers share ───────────────────────────────────────────────────


def into(to: str, change: Callable[[object], object], *, said: str = "") -> Convert:
    """A conversion of the value alone; `said` is told with it."""

    def convert(value: object, _: Mapping[str, object]) -> Meaning:
        return Meaning() if value is None else Meaning({to: change(value)}, (said,) if said else ())

    return convert


def with_unit(unit: str) -> Callable[[object], object]:
    """A number that counts `unit`s, as text that is a duration or a size here: 5 and "ms" make `5ms`."""

    def change(value: object) -> object:
        return f"{value}{unit}" if isinstance(value, int | float) or str(value).strip().isdigit() else value

    return change


def absolute_socket(value: object) -> object:
    """Addresses, with `./` before a relative path of a unix socket."""
    if isinstance(value, list | tuple):
        return [absolute_socket(each) for each in value]
    text = str(value)
    if "," in text:
        return [absolute_socket(each.strip()) for each in text.split(",") if each.strip()]
    path = text.removeprefix("unix:").removeprefix("//") if text.startswith("unix:") else ""
    return f"unix:./{path}" if path and not path.startswith(("/", "@", "./", "../")) else value


def target_of(value: object, _: Mapping[str, object]) -> Meaning:
    """`module:app`, and `module:make_app()` as a factory; a call with arguments is left for the importer to refuse."""
    text = str(value)
    if text.endswith("()"):
        return Meaning({"target": text[:-2], "factory": True})
    return Meaning({"target": text}) if value else Meaning()


def count_is(least: int, to: str, instead: int) -> Convert:
    """The number itself. Below `least`, which means "no limit" there, it is `instead`: here is always a limit."""

    def convert(value: object, _: Mapping[str, object]) -> Meaning:
        if value is None:
            return Meaning()
        if str(value).strip().lstrip("-").isdigit() and int(str(value)) < least:
            return Meaning({to: instead}, (f"no limit there; {to} is {instead} here, as there always is a limit",))
        return Meaning({to: value})

    return convert


def switched(*, on: Mapping[str, object] | None = None, off: Mapping[str, object] | None = None) -> Convert:
    """A switch whose positions, `on` and `off`, make settings here; a position that is not given makes none."""

    def convert(value: object, _: Mapping[str, object]) -> Meaning:
        settings = on if is_on(value) else off
        return Meaning(settings or {})

    return convert

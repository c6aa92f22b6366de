"""The `aserver` command: options made from the settings table, and how errors end the process.

Runs in the operator's process, which becomes the master under `run`. It must never spell a setting by hand. `main` is
the only function of aserver that calls `sys.exit` (tests/unit/test_house_rules.py has the other ways to end).
"""

import importlib.util
import json
import os
import platform
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from aserver import __version__, loading, standard_streams, unix
from aserver.command import operate
from aserver.command.foreign_options import (
    ForeignOption,
    MigrateCommand,
    foreign_flags,
    foreign_options,
    strange_options,
    understood,
    with_log_file,
    with_plain_ws,
    without_switch_values,
)
from aserver.config import Resolved, SettingInfo, layers, settings
from aserver.config.schema import BIND_PARTS
from aserver.config.table import Group
from aserver.config.values import CHOICE, SWITCH, TEXT
from aserver.errors import AserverError, ConfigError, ExitCode

#: Columns that a value may take in `aserver config` before its origin is pushed aside.
_VALUE_WIDTH = 34

#: Columns of the names in `--help`, at most.
_LABEL_WIDTH = 36
#: Options that stand before a command.
_OWN_OPTIONS = ("-h", "--help", "--version")

Handler = Callable[[Resolved], int]


class _Option(click.Option):
    """An option of one settings group, whose help shows its first name only and mentions the rest.

    Without `shown` it is neither in the help nor completed by a shell.
    """

    def __init__(
        self,
        declarations: Sequence[str],
        *,
        topic: Group,
        shown: tuple[str, str] | None = None,
        completes: Sequence[str] | None = (),
        **more: Any,
    ) -> None:
        super().__init__(declarations, hidden=shown is None, **more)
        self.completes = completes
        self.topic = topic
        self.shown = shown

    def shell_complete(self, _: click.Context, incomplete: str) -> list[CompletionItem]:
        """The words of a choice; files where a value is free text (None)."""
        if self.completes is None:
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(word) for word in self.completes if word.startswith(incomplete)]


class _Command(click.Command):
    """A command that lists its options by topic, and names all options that it does not know in a single error."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = [option for option in self.get_params(ctx) if isinstance(option, _Option) and option.secondary_opts]
        args = without_switch_values(args, {name for option in own for name in option.opts if name.startswith("--")})
        args = with_plain_ws(args)
        try:
            if "--access-log" in args:
                args = with_log_file(args, self.make_parser(ctx).parse_args(list(args))[1])
            return super().parse_args(ctx, list(args))
        except click.NoSuchOption:
            names = [name for option in self.get_params(ctx) for name in (*option.opts, *option.secondary_opts)]
            if strange := strange_options(args, names):
                raise ConfigError.of(strange) from None
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        options = [parameter for parameter in self.get_params(ctx) if isinstance(parameter, _Option)]
        for group in Group:
            if records := [option.shown for option in options if option.shown and option.topic is group]:
                with formatter.section(str(group)):
                    _write_options(formatter, records)
        rest = [param.get_help_record(ctx) for param in self.get_params(ctx) if not isinstance(param, _Option)]
        with formatter.section("Other"):
            formatter.write_dl([record for record in rest if record is not None])


def _write_options(formatter: click.HelpFormatter, records: Sequence[tuple[str, str]]) -> None:
    """Write the options as click does, but keep the line ends of each text: its last line is the example."""
    left = min(max(len(label) for label, _ in records) + 2, _LABEL_WIDTH)
    room = formatter.width - formatter.current_indent - left
    for label, text in records:
        lines = [piece for line in text.splitlines() for piece in textwrap.wrap(line, room, break_on_hyphens=False)]
        first = lines.pop(0) if len(label) + 2 <= left else ""
        for column, piece in ((label, first), *(("", piece) for piece in lines)):
            formatter.write(f"{'':{formatter.current_indent}}{column:<{left}}{piece}".rstrip() + "\n")


def _dashed(name: str) -> str:
    return "--" + name.replace("_", "-")


def _options(info: SettingInfo) -> list[click.Parameter]:
    """The options of a setting: its own with all its names, and an option for each flag that stands for a value."""
    short = [f"-{info.short}"] if info.short else []
    names = [info.option, *map(_dashed, info.aliases)]
    flags = [_dashed(word) for word, _ in info.switches]
    also = ", ".join([*names[1:], *flags])
    text = info.help.replace("`", "") + ("; repeatable" if info.repeatable else "") + (f"; also {also}" if also else "")
    if info.default:
        text += f"  [{info.default}]"
    text += f"\n{info.assignment}"
    if info.kind is SWITCH:
        names = [f"{name}/--no-{name[2:]}" for name in names]
        label = f"--[no-]{info.option[2:]}"
    else:
        label = f"{info.option} {'|'.join(info.choices) if info.kind is CHOICE else info.kind.metavar}"
    own = _Option(
        [info.name, *short, *names],
        topic=info.group,
        shown=(", ".join([*short, label]), text),
        default=None,
        multiple=info.repeatable,
        completes=None if info.kind is TEXT else info.choices,
        type=bool if info.kind is SWITCH else str,
    )
    return [own, *(_Option([flag[2:].replace("-", "_"), flag], topic=info.group, is_flag=True) for flag in flags)]


def _all_options() -> list[click.Parameter]:
    """The argument TARGET and every option, in the order of the table."""
    found: list[click.Parameter] = [click.Argument(["target"], required=False)]
    for info in settings():
        if info.name == "target":
            continue
        found += _options(info)
        if info.name == "bind":
            for part, text in BIND_PARTS.items():
                label = f"{_dashed(part)} {part.upper()}"
                found.append(_Option([part, _dashed(part)], topic=info.group, shown=(label, text), type=str))
    taken = (spelling for option in found for spelling in (*option.opts, *option.secondary_opts))
    return [*found, *foreign_options([*taken, "--json"])]


def _resolve(context: click.Context, cwd: Path | None = None) -> Resolved:
    """The settings of this command line, the environment and the file together. Raises ConfigError."""
    ours = [param.name for param in context.command.params if isinstance(param, _Option | click.Argument)]
    given = {
        name: context.params[name] for name in ours if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    theirs = {
        param: context.params[str(param.name)]
        for param in context.command.params
        if isinstance(param, ForeignOption)
        and context.get_parameter_source(str(param.name)) is ParameterSource.COMMANDLINE
    }
    return layers.load(
        command_line=understood(given),
        other_flags=foreign_flags(theirs),
        environ=os.environ,
        cwd=cwd or unix.working_directory(os.environ),
    )


def _with_target(resolved: Resolved) -> Resolved:
    if resolved.config.target is None:
        raise ConfigError(
            "there is no target to serve: name it on the command line (aserver run module:app), "
            "in ASERVER_TARGET, or as `target` in the settings file"
        )
    return resolved


class _Commands(click.Group):
    """The commands. A target or an option in the place of a command means `run`, as with other servers."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = args[0] if args else ""
        if first not in self.commands and re.search("^-|[:.]", first) and first not in _OWN_OPTIONS:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            hint = f"A module is served by `aserver run {args[0]}`."
            raise click.UsageError(f"{error.format_message()} {hint}", ctx) from None


#: The options of the commands that have settings. They are made once, because there are hundreds.
_OPTIONS = _all_options()


def _show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's
    if wanted and not context.resilient_parsing:
        from importlib import metadata  # noqa: PLC0415 - 20 ms, for which a start would wait

        python = f"{platform.python_implementation()} {platform.python_version()} {sys.platform}"
        # Looked at and not imported, as a master imports neither parser nor loop.
        reader = importlib.util.find_spec("aserver.protocol.http1.reader")
        kind = "protocol in pure Python" if str(reader and reader.origin).endswith(".py") else "protocol compiled"
        parts = [f"{name} {metadata.version(name)}" for name in ("uvloop", "httptools")]
        click.echo(f"aserver {__version__} ({python}; {kind}; {', '.join(parts)})")
        raise click.exceptions.Exit(ExitCode.OK)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """aserver, a production ASGI server."""


@cli.command(
    "run",
    cls=_Command,
    params=list(_OPTIONS),
    epilog="Flags of gunicorn, uvicorn, Hypercorn and granian are understood, too: docs/migrate.md.",
)
@click.pass_context
def _run(context: click.Context, /, **_: object) -> int:
    """Serve TARGET, such as module:app, until told to stop."""
    return _serve(context)


@cli.command("dev", cls=_Command, params=list(_OPTIONS))
@click.pass_context
def _dev(context: click.Context, /, **_: object) -> int:
    """Serve TARGET while you write it: new code at each save, errors in the browser (run --reload)."""
    context.params["reload"] = True
    context.set_parameter_source("reload", ParameterSource.COMMANDLINE)
    return _serve(context)


def _serve(context: click.Context) -> int:
    from aserver.launch import daemon  # noqa: PLC0415 - `config` and `--help` need none of the server
    from aserver.launch import run as launch  # noqa: PLC0415 - as above
    from aserver.master import programs, upgrade  # noqa: PLC0415 - as above

    cwd = launch.started_in()

    def read() -> Resolved:
        return _with_target(_resolve(context, cwd))

    resolved = read()
    if resolved.config.daemon and not upgrade.is_continued(os.environ):
        programs.abandon_zygote_ahead()  # it would not be a child of the detached process
        return daemon.detached(lambda fd: launch.run_resolved(resolved, read, last=True, on_ready={fd: daemon.READY}))
    return launch.run_resolved(resolved, read, last=True)


@cli.command("check", cls=_Command, params=list(_OPTIONS))
@click.pass_context
def _check(context: click.Context, /, **_: object) -> int:
    """Check the settings and load TARGET, without serving it."""
    from aserver.command import check  # noqa: PLC0415 - as above

    return check.check(_with_target(_resolve(context)))


@cli.command("migrate", cls=MigrateCommand)
@click.argument("source", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--check", "load", is_flag=True, help="Check the settings, and load the application with them.")
def _migrate(*, source: tuple[str, ...], load: bool) -> int:
    """Print an aserver.toml made from another server's SOURCE, and what changes by the move.

    SOURCE is a file (gunicorn.conf.py, uwsgi.ini, hypercorn.toml, Procfile, Dockerfile, systemd unit) or a command
    line: aserver migrate gunicorn -w 4 app:app
    """
    from aserver.command import migrate  # noqa: PLC0415 - as above

    return migrate.migrate(source, load=load)


@cli.command("init")
def _init() -> int:
    """Write an aserver.toml for the project in this directory, with the settings that matter and what they do."""
    from aserver.command import init  # noqa: PLC0415 - as above

    click.echo(init.write(Path.cwd()))
    return ExitCode.OK


@cli.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def _completion(*, shell: str) -> int:
    """Print what completes aserver's commands and options in SHELL.

    For bash: echo 'source <(aserver completion bash)' >> ~/.bashrc
    """
    from click.shell_completion import ShellComplete, get_completion_class  # noqa: PLC0415 - as above

    kind = get_completion_class(shell)
    assert kind is not None
    # Not the method of the shell's own class, which starts a bash to look at its version.
    click.echo(ShellComplete.source(kind(cli, {}, "aserver", "_ASERVER_COMPLETE")))
    return ExitCode.OK


@cli.command("config", cls=_Command, params=list(_OPTIONS))
@click.option("--json", "as_json", is_flag=True, help="Machine-readable, with the values' own types.")
@click.pass_context
def _config(context: click.Context, /, *, as_json: bool, **_: object) -> int:
    """Print every setting with where it came from. Secrets are masked."""
    resolved = _resolve(context)
    click.echo(_as_json(resolved) if as_json else _as_table(resolved))
    for message in () if as_json else resolved.notes:
        click.echo(f"aserver: note: {message}", err=True)
    for message in () if as_json else resolved.warnings:
        click.echo(f"aserver: warning: {message}", err=True)
    return ExitCode.OK


for _command in operate.COMMANDS:
    cli.add_command(_command)


def _as_table(resolved: Resolved) -> str:
    names = max(len(info.name) for info in settings())
    lines = [
        f"{info.name:<{names}}  {info.show(getattr(resolved.config, info.name)):<{_VALUE_WIDTH}}  "
        f"{resolved.origins[info.name]}"
        for info in settings()
    ]
    if resolved.hooks:
        lines.append(f"{'(hooks)':<{names}}  {', '.join(resolved.hooks):<{_VALUE_WIDTH}}  {resolved.hooks_file}")
    return "\n".join(lines)


def _as_json(resolved: Resolved) -> str:
    values = resolved.config.to_wire()
    shown = {
        info.name: {
            "value": info.show(values[info.name]) if info.secret and values[info.name] else values[info.name],
            "origin": resolved.origins[info.name],
        }
        for info in settings()
    }
    whole = {"settings": shown, "hooks": resolved.hooks, "warnings": resolved.warnings}
    return json.dumps(whole, indent=2, ensure_ascii=False)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The console script: run the command and exit with its status; an expected error is a line on stderr."""
    loading.refuse_nested("aserver's command")
    standard_streams.keep()  # before anything is opened
    sys.exit(_status(arguments))


def _status(arguments: Sequence[str] | None) -> int:
    try:
        return int(cli.main(arguments, prog_name="aserver", standalone_mode=False) or 0)
    except AserverError as error:
        click.echo(f"aserver: error: {error}", err=True)
        # The user's own traceback comes last, because people look at the last lines, and paste them.
        explanations = [getattr(error, "detail", ""), *getattr(error, "__notes__", ())]
        for text in filter(None, explanations):
            click.echo(text.rstrip(), err=True)
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        click.echo(f"aserver: error: {error.format_message()}", err=True)
        return error.exit_code
    except click.Abort:  # Ctrl-C before the master listens to signals; the shell's number for SIGINT
        return 130

"""The commands that speak to a running server: status, events, reload, stop, scale, and what else COMMANDS has.

Run in the operator's process. Each finds the server by itself if only one runs, prints for people or, with --json, for
programs, and ends with a code that says how it went: 0, 1 for an outcome that was not wanted, 2 for no answer.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

import click

from aserver.command import instances, looks, status_view
from aserver.errors import AserverError, ConfigError, ExitCode

_Command = Callable[..., Any]
#: Columns of the bar of a roll-over.
_BAR = 10


def _reaches(function: _Command) -> _Command:
    """Add the options that say which server, and in which form it is told."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="For programs: JSON, an object a line."),
        click.option("--pid", type=int, help="Of the server's master, if several run."),
        click.option("--control", metavar="PATH", help="Its control socket, if it is not where it usually is."),
    ):
        function = option(function)
    return function


_waits = click.option("--wait", is_flag=True, help="Wait for the outcome, and tell what happens until then.")


@click.command("status")
@click.option(
    "--ready", "as_check", is_flag=True, help="End with 1, and the reason, unless clients should be sent there."
)
@_reaches
def status(*, control: str | None, pid: int | None, as_json: bool, as_check: bool) -> int:
    """Print what a running server does: its workers, listeners, last reload and last death."""
    with instances.Line(instances.find(control, pid)) as line:
        found = line.status()
    if as_check and not as_json:
        click.echo(found["reason"])
    else:
        click.echo(json.dumps(found) if as_json else "\n".join(status_view.show(found)))
    return ExitCode.UNEXPECTED if as_check and not found["ready"] else ExitCode.OK


@click.command("events")
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on, until Ctrl-C.")
@_reaches
def events(*, follow: bool, control: str | None, pid: int | None, as_json: bool) -> int:
    """Print the last thousand decisions of a running server, with their reasons."""
    with instances.Line(instances.find(control, pid)) as line:
        for record in line.records(follow=follow):
            click.echo(json.dumps(record) if as_json else _told(record))
    return ExitCode.OK


def _told(record: dict[str, Any]) -> str:
    detail = f"\n{record['detail']}".replace("\n", "\n    ") if record.get("detail") else ""
    return f"{record['time'][:23].replace('T', ' ')} {record['event']:<18} {record['message']}{detail}"


@click.command("reload")
@_waits
@_reaches
def reload(*, wait: bool, control: str | None, pid: int | None, as_json: bool) -> int:
    """Take up new code and settings: a new generation, which must work before anything old is touched."""
    return _order("reload", control, pid, wait=wait, as_json=as_json)


@click.command("upgrade")
@_waits
@_reaches
def upgrade(*, wait: bool, control: str | None, pid: int | None, as_json: bool) -> int:
    """Have the master re-execute itself in place, such as after an update of aserver, then reload."""
    return _order("upgrade", control, pid, wait=wait, as_json=as_json)


@click.command("scale")
@click.argument("number", type=click.IntRange(min=0))
@_waits
@_reaches
def scale(*, number: int, wait: bool, control: str | None, pid: int | None, as_json: bool) -> int:
    """Have NUMBER workers; 0 keeps the sockets without any."""
    return _order("scale", control, pid, wait=wait, as_json=as_json, to=number)


@click.command("recycle")
@click.argument("slot", type=click.IntRange(min=1))
@_reaches
def recycle(*, slot: int, control: str | None, pid: int | None, as_json: bool) -> int:
    """Replace the worker of SLOT by a fresh one; it leaves when that serves."""
    return _order("recycle", control, pid, wait=False, as_json=as_json, slot=slot)


@click.command("reopen")
@_reaches
def reopen(*, control: str | None, pid: int | None, as_json: bool) -> int:
    """Open the log files again, after they were renamed for rotation."""
    return _order("reopen", control, pid, wait=False, as_json=as_json)


@click.command("stop")
@click.option("--now", is_flag=True, help="Cancel the requests under way; lifespan shutdown still runs.")
@_reaches
def stop(*, now: bool, control: str | None, pid: int | None, as_json: bool) -> int:
    """Stop a running server, and wait until its workers have left."""
    with instances.Line(instances.find(control, pid)) as line:
        line.ask("stop", now=now, follow=True)
        try:
            _print(line.following(), as_json=as_json)
        except instances.Unreachable:  # it hangs up when all workers have gone
            if not as_json:
                click.echo("stopped")
    return ExitCode.OK


def _order(command: str, control: str | None, pid: int | None, *, wait: bool, as_json: bool, **more: object) -> int:
    """Give an order. With `wait`, the exit code is its outcome's."""
    with instances.Line(instances.find(control, pid)) as line:
        reply = line.ask(command, follow=wait, **more)
        if not wait:
            click.echo(json.dumps(reply) if as_json else f"{command}: ordered")
            return ExitCode.OK
        wanted = reply["workers_wanted"] if sys.stdout.isatty() else 0
        last = _print(instances.until_ended(line, reply["ticket"], reply["after"]), as_json=as_json, wanted=wanted)
    return ExitCode.OK if last["outcome"] == "complete" else ExitCode.UNEXPECTED


def _print(records: Iterable[dict[str, Any]], *, as_json: bool, wanted: int = 0) -> dict[str, Any]:
    """Print each record; for people without decisions at `debug`, and errors on standard error.

    With `wanted`, a bar shows how many of so many workers of the newest generation serve. Returns the last record.
    """
    last: dict[str, Any] = {}
    generation, served = 0, set[int]()
    for last in records:
        if last["event"] == "reload.begins":
            generation, served = last["generation"], set()
        if last["event"] == "worker.ready" and last["generation"] == generation:
            served.add(last["worker"])
        if as_json:
            click.echo(json.dumps(last))
        elif last["level"] != "debug":
            full = min(_BAR, _BAR * len(served) // wanted) if wanted else 0
            bar = f"[{'#' * full:<{_BAR}}] " if wanted else ""
            click.echo(bar + _told(last), err=last["level"] in ("warning", "error"))
    return last


@click.command("stacks")
@click.argument("slot", type=click.IntRange(min=1))
@_reaches
def stacks(*, slot: int, control: str | None, pid: int | None, as_json: bool) -> int:
    """Print where the threads and tasks of the worker of SLOT stand, with the requests that they serve."""
    return _look("stacks", slot, control, pid, looks.stacks, as_json=as_json)


@click.command("requests")
@click.argument("slot", type=click.IntRange(min=1))
@_reaches
def requests(*, slot: int, control: str | None, pid: int | None, as_json: bool) -> int:
    """Print the requests under way in the worker of SLOT: for how long, and for whom."""
    return _look("requests", slot, control, pid, looks.requests, as_json=as_json)


def _look(command: str, slot: int, control: str | None, pid: int | None, show: looks.Show, *, as_json: bool) -> int:
    with instances.Line(instances.find(control, pid)) as line:
        reply = line.ask(command, slot=slot)
    click.echo(json.dumps(reply) if as_json else "\n".join(text for each in reply["workers"] for text in show(each)))
    return ExitCode.OK


@click.command("top")
@_reaches
def top(*, control: str | None, pid: int | None, as_json: bool) -> int:
    """Show a running server live, with keys to recycle, to reload, and to look into a worker."""
    if as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("aserver top is for a terminal; programs ask aserver status --json")
    try:
        from rich.console import Console  # noqa: PLC0415 - an extra

        from aserver.command import top as screen  # noqa: PLC0415
    except ModuleNotFoundError:
        raise ConfigError("aserver top needs rich: pip install 'aserver-asgi[top]'") from None
    with contextlib.suppress(KeyboardInterrupt):
        screen.top(instances.find(control, pid), Console())
    return ExitCode.OK


@click.command("profile")
@click.argument("slot", type=click.IntRange(min=1))
@click.option("--seconds", type=click.IntRange(min=1), default=10, show_default=True, help="To watch for.")
@click.option("-o", "--output", metavar="FILE", default="flame.svg", show_default=True, help="To write to.")
@click.option("--speedscope", is_flag=True, help="A file for speedscope instead of a flame graph.")
@_reaches
def profile(
    *, slot: int, seconds: int, output: str, speedscope: bool, control: str | None, pid: int | None, as_json: bool
) -> int:
    """Record where the worker of SLOT spends its time, from outside, and draw it (py-spy)."""
    beside = os.path.dirname(sys.executable)
    program = shutil.which("py-spy", path=os.pathsep.join((beside, os.environ.get("PATH", ""))))
    if program is None:
        raise ConfigError("aserver profile needs py-spy: pip install 'aserver-asgi[profile]'")
    with instances.Line(instances.find(control, pid)) as line:
        workers = line.status()["workers"]
    pids = [each["pid"] for each in workers if each["slot"] == slot and each["phase"] in ("ready", "recycling")]
    if not pids:
        raise AserverError(f"no worker of slot {slot} serves")
    form = "speedscope" if speedscope else "flamegraph"
    options = ("--pid", str(pids[-1]), "--duration", str(seconds), "--format", form, "--output", output)
    ended = subprocess.run([program, "record", *options], check=False, capture_output=True, text=True)  # noqa: S603
    if "No stack counts found" in ended.stderr:  # py-spy leaves out threads that wait
        raise AserverError(f"worker {slot} (pid {pids[-1]}) only waited for {seconds} s; watch it while it works")
    if ended.returncode:
        raise AserverError(f"py-spy could not record worker {slot} (pid {pids[-1]}):\n{ended.stderr.strip()}")
    click.echo(
        json.dumps({"pid": pids[-1], "output": output}) if as_json else f"{output}: {seconds} s of worker {slot}"
    )
    return ExitCode.OK


COMMANDS: tuple[click.Command, ...] = (
    status,
    events,
    reload,
    upgrade,
    scale,
    recycle,
    reopen,
    stop,
    stacks,
    requests,
    top,
    profile,
)

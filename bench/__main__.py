"""The command: `python -m bench run | dev | list | setup | table | plot | page | simulate`.

Runs in the harness process. No other module may end it.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click

from bench import dev, environment, machine, page, rounds, servers
from bench.figures import Sample
from bench.report import Report, ScenarioReport, markdown
from bench.scenarios import QUICK, QUICK_SERVERS, SCENARIOS
from bench.scenarios.contract import Scenario, Stage
from bench.simulate import Size, simulate_all, to_json
from bench.simulate import table as simulated_table

RESULTS = Path(__file__).resolve().parent / "results"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Compare ASGI servers: CPU time per request, throughput, latency, memory, errors."""


@main.command("list")
def list_() -> None:
    """Show scenarios and servers, and for each scenario the servers without a row."""
    known = servers.read()
    with tempfile.TemporaryDirectory() as directory:
        stage = Stage(environment.locate(sys.executable), frozenset({0}), Path(directory), 1)
        for scenario in SCENARIOS.values():
            launch = scenario.launch(stage)
            refused = [name for name, server in known.items() if server.refusal(scenario.name, launch)]
            click.echo(f"{scenario.name:15} {scenario.title}" + (f"  [not: {', '.join(refused)}]" if refused else ""))
    click.echo("\nservers: " + ", ".join(known))


@main.command()
@click.option("--python", default=sys.executable, show_default=True, help="Interpreter to measure with.")
def setup(python: str) -> None:
    """Make the servers' environment, or bring it up to date."""
    made, problems = environment.prepare(python)
    click.echo(f"{made.path.name}: Python {made.python_version()}")
    for name, version in rounds.versions(made, list(servers.read().values())).items():
        click.echo(f"  {name} {version}")
    for problem in problems:
        click.echo(problem, err=True)


@main.command()
@click.argument("scenario", nargs=-1, type=click.Choice(list(SCENARIOS)))
@click.option("--server", multiple=True, help="Only this server (repeatable); default all.")
@click.option("--without", multiple=True, help="All but this server (repeatable).")
@click.option("--rounds", "count", type=click.IntRange(1, 99), default=5, show_default=True)
@click.option("--seconds", type=click.IntRange(1, 600), default=5, show_default=True, help="Length of one load.")
@click.option(
    "--quick", is_flag=True, help="End within 5 minutes after the set-up; chooses rounds and seconds by itself."
)
@click.option(
    "--access-log",
    type=click.Choice(["file", "null"]),
    default="file",
    show_default=True,
    help="Where the access-log scenario's lines go.",
)
@click.option("--python", default=sys.executable, help="Interpreter to measure with; default this one.")
@click.option("--save", type=click.Path(path_type=Path, dir_okay=False), help="Also write the Markdown here.")
@click.option("--keep", is_flag=True, help="Keep the work directory with the servers' output.")
def run(
    *,
    scenario: Sequence[str],
    server: Sequence[str],
    without: Sequence[str],
    count: int,
    seconds: int,
    quick: bool,
    access_log: str,
    python: str,
    save: Path | None,
    keep: bool,
) -> None:
    """Measure SCENARIOs (default: all; with --quick: three, for six servers)."""
    known = servers.read()
    chosen = _choose(known, server or (QUICK_SERVERS if quick else ()), without)
    _end_on_sigterm()
    machine.raise_file_limit()
    made, problems = environment.prepare(python)
    began = time.monotonic()  # a first run installs for minutes before this
    found = rounds.versions(made, chosen)
    scenarios = [SCENARIOS[name] for name in scenario or (QUICK if quick else SCENARIOS)]
    with _work_directory(keep=keep) as directory:
        stage = _stage(made, directory, seconds, access_log, scenarios)
        if quick:
            limit = rounds.QUICK_SECONDS - (time.monotonic() - began)
            plan = rounds.fit(stage, scenarios, chosen, found, limit)
        else:
            plan = rounds.plan(stage, count, scenarios, chosen, found)
        report = _report(plan, chosen, found, scenarios, problems)
        ended = _execute(plan, report, began + rounds.QUICK_SECONDS - 5 if quick else None)
    if ended is not None:
        report.problems.append(f"incomplete: {ended}")
    _write(report, save)
    if ended == "interrupted":
        sys.exit(130)


def _choose(known: dict[str, servers.Server], wanted: Sequence[str], without: Sequence[str]) -> list[servers.Server]:
    for name in (*wanted, *without):
        if name not in known:
            raise click.UsageError(f"no server {name!r} in servers.toml; there are {', '.join(known)}")
    return [server for name, server in known.items() if (not wanted or name in wanted) and name not in without]


def _end_on_sigterm() -> None:
    """Make SIGTERM end the run as Ctrl-C does, so that no server is left behind."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


@contextmanager
def _work_directory(*, keep: bool) -> Iterator[Path]:
    if keep:
        directory = Path(tempfile.mkdtemp(prefix="bench-"))
        yield directory
        click.echo(f"bench: the servers' output is in {directory}", err=True)
    else:
        # A short name, because the path of a unix socket has room for 107 bytes (unix(7)).
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            yield Path(name)


def _stage(
    made: environment.Environment, directory: Path, seconds: int, access_log: str, scenarios: Sequence[Scenario]
) -> Stage:
    cpus = frozenset(os.sched_getaffinity(0))
    stage = Stage(made, cpus, directory, seconds, access_log=access_log)
    if not any(scenario.launch(stage).tls for scenario in scenarios):
        return stage
    try:
        certificate = _certificate(directory)
    except machine.MissingToolError:
        return stage  # the plan skips those scenarios and says so
    return Stage(made, cpus, directory, seconds, 1, access_log, *certificate)


def _certificate(directory: Path) -> tuple[Path, Path]:
    """Make a certificate for this run: P-256, and PKCS#8, the only form that granian takes."""
    certfile, keyfile = directory / "cert.pem", directory / "key.pem"
    command = [machine.tool("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=bench.local", "-addext", "subjectAltName=DNS:bench.local"]
    command += ["-keyout", str(keyfile), "-out", str(certfile)]
    subprocess.run(command, check=True, capture_output=True)
    return certfile, keyfile


def _report(
    plan: rounds.Plan,
    chosen: Sequence[servers.Server],
    found: dict[str, str],
    scenarios: Sequence[Scenario],
    problems: Sequence[str],
) -> Report:
    stage = plan.stage
    shared = machine.share_out(set(stage.cpus), 1)
    report = Report(
        date=time.strftime("%Y-%m-%d %H:%M"),
        machine=machine.describe(),
        settings={
            "python": stage.environment.python_version(),
            "rounds": plan.rounds,
            "seconds": stage.seconds,
            "server on CPU": _cpus(shared.server),
            "load on CPU": _cpus(shared.load),
        },
        versions={server.name: found[server.module] for server in chosen if server.module in found},
        roles={server.name: server.role.value for server in chosen},
        scenarios=[_scenario(scenario, plan) for scenario in scenarios],
        problems=list(problems),
    )
    if shared.shared:
        report.problems.append("server and load share one CPU: only CPU time per request means anything")
    return report


def _cpus(numbers: frozenset[int]) -> str:
    return "+".join(str(number) for number in sorted(numbers))


def _scenario(scenario: Scenario, plan: rounds.Plan) -> ScenarioReport:
    columns: list[dict[str, Any]] = [
        {"key": column.key, "title": column.title, "digits": column.digits, "compare": column.compare}
        for column in scenario.columns
    ]
    return ScenarioReport(
        scenario.name,
        scenario.title,
        columns,
        refused=plan.refused.get(scenario.name, {}),
        skipped=plan.skipped.get(scenario.name),
    )


def _execute(plan: rounds.Plan, report: Report, deadline: float | None) -> str | None:
    """Run the plan under a progress bar, or with a line per measurement where there is no terminal."""
    by_name = {scenario.name: scenario for scenario in report.scenarios}
    terminal = sys.stderr.isatty()
    total = max(1, round(plan.seconds))
    click.echo(f"bench: about {total // 60} min {total % 60} s", err=True)
    done = 0.0

    def keep(sample: Sample) -> None:
        by_name[sample.scenario].samples.append(sample)
        if not terminal:
            main = by_name[sample.scenario].columns[0]
            value = sample.figures.get(main["key"])
            said = sample.failure or f"{value:.{main['digits']}f} {main['title']} {sample.errors or ''}"
            left = max(0, round(plan.seconds - done))
            click.echo(f"  [{left:4} s left] {sample.scenario} {sample.round + 1} {sample.server}: {said}", err=True)

    with click.progressbar(length=total, show_eta=True, file=sys.stderr, width=24) as bar:

        def step(label: str, seconds: float) -> None:
            nonlocal done
            before, done = done, done + seconds
            if terminal:
                bar.label = label or bar.label
                bar.update(round(done) - round(before))
                bar.render_progress()

        return rounds.execute(plan, step, keep, deadline)


def _write(report: Report, save: Path | None) -> None:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / time.strftime("%Y%m%d-%H%M%S.json")
    path.write_text(json.dumps(report.to_json(), indent=1))
    text = markdown(report)
    path.with_suffix(".md").write_text(text)
    if save is not None:
        save.write_text(text)
    click.echo(text)
    click.echo(f"bench: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}", err=True)


def _read_report(file: Path) -> Report:
    try:
        return Report.from_json(json.loads(file.read_text()))
    except (ValueError, TypeError, KeyError) as error:
        raise click.ClickException(f"{file}: not a report of this bench: {error}") from error


_FILE = click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))


@main.command()
@_FILE
def table(file: Path) -> None:
    """Print the Markdown of a JSON report."""
    click.echo(markdown(_read_report(file)))


@main.command()
@_FILE
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Directory; default beside FILE.")
def plot(file: Path, out: Path | None) -> None:
    """Draw a JSON report as PNG and SVG, a picture per scenario."""
    _read_report(file)
    made, _ = environment.prepare()
    target = out or file.with_suffix("")
    command = [str(made.python), "-m", "bench.plotting", str(file.resolve()), str(target.resolve())]
    done = subprocess.run(command, cwd=environment.CHECKOUT, check=False)
    sys.exit(done.returncode)


@main.command("page")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
def page_(files: Sequence[Path]) -> None:
    """Put JSON reports into docs/performance.md and README.md, and draw their families of rows into docs/img.

    Rows of scenarios that are in no report stay.
    """
    reports = [_read_report(file) for file in files]
    for name, rows in (("docs/performance.md", ()), ("README.md", page.FEW)):
        path = environment.CHECKOUT / name
        text = path.read_text("utf-8")
        before = page.between(text, "figures")
        lines = page.table(reports, rows, before)
        lines += ["", *page.origins(reports, before)] if not rows else []
        path.write_text(page.replaced(text, "figures", lines), "utf-8")
    made, _ = environment.prepare()
    command = [str(made.python), "-m", "bench.plotting", "families", *(str(file.resolve()) for file in files)]
    done = subprocess.run([*command, "docs/img"], cwd=environment.CHECKOUT, check=False)
    sys.exit(done.returncode)


@main.command("dev")
@click.option("--python", help="Interpreter that has the servers; unset: the bench's own environment, made if needed.")
@click.option("--saves", default=10, show_default=True, help="Saves of each application under each server.")
def dev_(python: str | None, saves: int) -> None:
    """Measure save-to-answer under each server's reload."""
    python = python or str(environment.prepare()[0].python)
    for line in dev.table(python, saves, environment.CHECKOUT):
        click.echo(line)


@main.command()
@click.option("--hosts", type=click.IntRange(1), default=Size.hosts, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=Size.workers, show_default=True, help="Per host.")
@click.option("--days", type=click.FloatRange(0.1), default=Size.seconds / 86400, show_default=True)
@click.option("--lifetime", type=click.FloatRange(0.1), default=Size.lifetime / 3600, show_default=True, help="Hours.")
@click.option("--jitter", type=click.FloatRange(0), default=Size.jitter / 3600, show_default=True, help="Hours.")
@click.option("--boot", type=click.FloatRange(0.1), default=Size.boot, show_default=True, help="Seconds, the median.")
@click.option("--seed", type=int, default=Size.seed, show_default=True)
@click.option("--draw", type=click.Path(path_type=Path, file_okay=False), help="Also fleet.png and fleet.svg, there.")
def simulate(
    *,
    hosts: int,
    workers: int,
    days: float,
    lifetime: float,
    jitter: float,
    boot: float,
    seed: int,
    draw: Path | None,
) -> None:
    """Run the master's policy for a large fleet on a fake clock: capacity and load over days."""
    began = time.monotonic()
    size = Size(hosts, workers, days * 86400, lifetime * 3600, jitter * 3600, boot, seed)
    outcomes = simulate_all(size)
    click.echo(simulated_table(size, outcomes))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / time.strftime("%Y%m%d-%H%M%S-fleet.json")
    path.write_text(json.dumps(to_json(size, outcomes)))
    click.echo(
        f"bench: {hosts * workers:,} workers, {days:g} days, in {time.monotonic() - began:.0f} s: {path}", err=True
    )
    if draw is not None:
        made, _ = environment.prepare()  # that environment has matplotlib
        command = [str(made.python), "-m", "bench.simulate", str(path.resolve()), str(draw.resolve())]
        sys.exit(subprocess.run(command, cwd=environment.CHECKOUT, check=False).returncode)


if __name__ == "__main__":
    main(prog_name="python -m bench")

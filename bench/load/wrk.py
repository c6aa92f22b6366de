"""Runs wrk and reads its result.

Runs in the harness process; wrk itself is pinned to the load generator's CPUs.
"""

import json
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.machine import Processors, pinned, tool

SCRIPT = Path(__file__).resolve().with_name("wrk.lua")
_MARK = "BENCH "


class WrkError(Exception):
    """wrk ended without a result."""


@dataclass(frozen=True)
class WrkResult:
    """The result of a wrk run. Latencies in milliseconds; `errors` has only the kinds that happened."""

    requests: int
    seconds: float
    received: int
    p50: float
    p99: float
    p999: float
    longest: float
    errors: dict[str, int]


def parse(output: str) -> WrkResult:
    """Read the line that wrk.lua prints. Raises WrkError if there is no such line."""
    for line in reversed(output.splitlines()):
        if line.startswith(_MARK):
            found = json.loads(line.removeprefix(_MARK))
            break
    else:
        raise WrkError(f"wrk printed no result: {output.strip()[-200:] or '(nothing)'}")
    return WrkResult(
        requests=found["requests"],
        seconds=found["microseconds"] / 1e6,
        received=found["bytes"],
        p50=found["p50"] / 1000,
        p99=found["p99"] / 1000,
        p999=found["p999"] / 1000,
        longest=found["max"] / 1000,
        errors={kind: count for kind, count in found["errors"].items() if count},
    )


def run(
    url: str,
    *,
    seconds: int,
    connections: int,
    options: Iterable[str],
    processors: Processors,
    watch: Callable[[], None] | None = None,
) -> WrkResult:
    """Load a URL, and call `watch` twice a second meanwhile. Raises WrkError, MissingToolError."""
    # More than four threads only help against a server with as many workers.
    threads = max(1, min(len(processors.load), connections, 4))
    command = [tool("wrk"), f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s"]
    command += ["-s", str(SCRIPT), url, "--", *options]
    with pinned(processors.load):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        output = _communicate(process, watch)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode != 0:
        raise WrkError(f"wrk ended with status {process.returncode}: {output.strip()[-200:]}")
    return parse(output)


def _communicate(process: "subprocess.Popen[str]", watch: Callable[[], None] | None) -> str:
    while True:
        try:
            return process.communicate(timeout=0.5)[0]
        except subprocess.TimeoutExpired:
            if watch is not None:
                watch()

"""Runs h2load (nghttp2) and reads its result.

Runs in the harness process; h2load itself is pinned to the load generator's CPUs.
"""

import re
import subprocess
import time
from collections.abc import Callable, Iterable

from bench.load.wrk import WrkError, WrkResult
from bench.machine import Processors, pinned, tool

_FINISHED = re.compile(r"finished in ([\d.]+)(s|ms)")
_REQUESTS = re.compile(r"(\d+) succeeded, (\d+) failed")


def parse(output: str) -> WrkResult:
    """Read h2load's summary, which has no percentiles. Raises WrkError if there is no summary."""
    finished, requests = _FINISHED.search(output), _REQUESTS.search(output)
    if finished is None or requests is None:
        raise WrkError(f"h2load printed no result: {output.strip()[-200:] or '(nothing)'}")
    failed = int(requests[2])
    return WrkResult(
        requests=int(requests[1]),
        seconds=float(finished[1]) / (1000 if finished[2] == "ms" else 1),
        received=0,
        p50=0.0,
        p99=0.0,
        p999=0.0,
        longest=0.0,
        errors={"failed": failed} if failed else {},
    )


def run(
    url: str,
    *,
    seconds: int,
    connections: int,
    streams: int,
    options: Iterable[str],
    processors: Processors,
    watch: Callable[[], None] | None = None,
) -> WrkResult:
    """Load a URL with `streams` at once on each connection, and call `watch` twice a second meanwhile.

    Raises WrkError, MissingToolError.
    """
    threads = max(1, min(len(processors.load), connections, 4))
    command = [tool("h2load"), f"-t{threads}", f"-c{connections}", f"-m{streams}", f"-D{seconds}", *options, url]
    with pinned(processors.load):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        while process.poll() is None:  # its output fits into the pipe
            time.sleep(0.5)
            if watch is not None:
                watch()
        output, _ = process.communicate()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return parse(output)

"""The recipe of docs/operate.md for `opentelemetry-instrument`: traces from preloaded workers, each with its own id."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import ServerProcess

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not os.environ.get("TEST_APPLICATIONS"), reason="`make apps` runs it"),
]

#: Spans go to standard output, at once.
EXPORT = {
    "OTEL_SERVICE_NAME": "shop",
    "OTEL_TRACES_EXPORTER": "console",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
    "OTEL_BSP_SCHEDULE_DELAY": "100",
}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_preloaded_workers_are_traced_each_by_its_own_id(server: Callable[..., ServerProcess]) -> None:
    """Recycled ones, too; and the access log has the id of the client's trace. Fails with an id of the zygote's."""
    command = shutil.which(
        "opentelemetry-instrument", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    assert command is not None
    limits = ("--max-requests", "3", "--min-lifetime", "0", "--on-fork-hazard", "warn", "--access-log-format", "json")
    run = [sys.executable, "-m", "aserver", "run", "tests.apps.real.traced:app", "--workers", "1", *limits]
    running = server(argv=[command, *run, "--bind", "127.0.0.1:0"], env=EXPORT)
    assert "asgi app loaded" in running.log, "it is preloaded"
    for recycled in (1, 2):
        for _ in range(3):
            answer = running.fetch("/", headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
            assert answer.text == "hello"
        running.wait_log("has left", count=recycled)
    assert running.stop() == 0
    ids = re.findall(r'"service.instance.id": "([^"]+)"', running.log)
    assert len(set(ids)) == 2
    assert running.log.count(f'"trace_id": "0x{TRACE}"') >= 6
    lines = [json.loads(line) for line in running.log.splitlines() if line.startswith('{"time"')]
    assert [line["trace_id"] for line in lines] == [TRACE] * 6

"""What deploy/ has for Prometheus and Grafana, with a real server that a real Prometheus scrapes; `make monitoring`.

Grafana itself is no package of Debian, PyPI or npm; its own library of the dashboard's schema is.
"""

import json
import os
import re
import signal
import ssl
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.harness import ServerProcess, free_port, require_tool, wait_for
from tests.harness.certificates import Authority
from tests.process.rolling import Site, Start, settle

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "aserver.json").read_text())

pytestmark = [
    pytest.mark.skipif(not os.environ.get("TEST_MONITORING"), reason="`make monitoring` runs it"),
    pytest.mark.timeout(90),
]

#: Of the series that say nothing as long as nothing is amiss, those that the test does not make happen.
QUIET = {"AserverTooFewWorkers", "AserverWorkersDie", "AserverErrors", "AserverSlow"}


def lost(before: Any, after: Any, place: str = "") -> Iterator[str]:
    """The places in `before` that are not, or not the same, in `after`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from lost(value, after.get(key, "nothing"), f"{place}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from lost(one, other, f"{place}[{index}]")
    elif before != after:
        yield f"{place}: {after!r} instead of {before!r}"


def test_grafana_knows_each_key_and_each_type() -> None:
    """Read by Grafana's library and written again, nothing is missing: what its schema does not know, it drops."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models import dashboard

    register_default_plugins()
    read = dashboard.Dashboard.from_json(DASHBOARD)
    again = json.loads(JSONEncoder().encode(read))
    assert list(lost(DASHBOARD, again)) == []
    panels = read.panels or []
    for panel in panels:
        assert isinstance(panel, dashboard.Panel)
        assert all(type(target).__module__.endswith(".prometheus") for target in panel.targets or [])
    numbers = [panel.id_val for panel in panels]
    assert len({*numbers}) == len(numbers) == len(DASHBOARD["panels"])


class Prometheus:
    """A Prometheus that scrapes a server five times a second, with the alerts of deploy/."""

    def __init__(self, directory: Path, where: str) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.config = directory / "prometheus.yml"
        scrape = {"job_name": "aserver", "static_configs": [{"targets": [where]}]}
        self.config.write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": "200ms", "evaluation_interval": "500ms"},
                    "rule_files": [str(DEPLOY / "prometheus" / "aserver.rules.yml")],
                    "scrape_configs": [scrape],
                }
            )
        )
        self.data = directory / "data"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it."""
        command = [require_tool("prometheus"), f"--config.file={self.config}", f"--storage.tsdb.path={self.data}"]
        command += [f"--web.listen-address={self.url.removeprefix('http://')}", "--log.level=error"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                wait_for(self._ready, what="Prometheus")
                yield
            finally:
                process.terminate()

    def _ready(self) -> bool:
        try:
            return bool(self.ask("query", query="up"))
        except OSError:
            return False

    def ask(self, what: str, **query: str) -> Any:
        """The answer of its interface; an expression that it does not take is an HTTPError."""
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            said = json.load(answer)
        assert said["status"] == "success", said
        return said["data"]

    def finds(self, expression: str) -> list[Any]:
        """The series of an expression that have a value."""
        found: list[Any] = self.ask("query", query=expression)["result"]
        return [series for series in found if series["value"][1] != "NaN"]


@pytest.fixture
def observed(server: Start, tmp_path: Path) -> Iterator[tuple[ServerProcess, Prometheus]]:
    """A server in which all that the dashboard shows happens once, and the Prometheus that looked on."""
    site = Site(tmp_path)
    authority = Authority(tmp_path)
    pair = authority.issue("127.0.0.1")
    options = (*pair.options, "--admin", "127.0.0.1:0", "--workers", "2", "--canary-time", "0", "--lifespan", "on")
    running = server(site.target, *site.options, *options, env=site.env)
    (found, *_) = running.wait_log(r"admin endpoint: http://([\d.]+:\d+)")
    prometheus = Prometheus(tmp_path, found[1])
    trusting = ssl.create_default_context(cafile=str(authority.file))
    with prometheus.running():
        prometheus_sees = prometheus.finds
        wait_for(lambda: prometheus_sees("aserver_reloads_total == 0"), what="the first scrape")
        queued = {"X-Request-Start": f"t={datetime.now(UTC).timestamp()}"}
        with httpx.Client(base_url=running.url, verify=trusting, headers=queued) as client:

            def measured() -> list[Any]:
                # A series' first sample increases nothing, and what a worker has not yet told dies with it.
                assert client.get("/").text == "one"
                return prometheus_sees("rate(http_server_request_duration_seconds_count[5m]) > 0")

            wait_for(measured, what="a rate of requests")
        settle(running, 2)[0].kill()
        running.wait_log("was killed")
        settle(running, 2)
        running.signal(signal.SIGHUP)
        running.wait_log("reload complete: generation 2")
        site.deploy("two", startup="raise OSError('no disk')")
        running.signal(signal.SIGHUP)
        running.wait_log("reload failed")
        yield running, prometheus


def test_every_panel_shows_something_and_alerts_judge(observed: tuple[ServerProcess, Prometheus]) -> None:
    """Fails with any series that a panel or an alert asks for by a name or a label that the server does not give."""
    _, prometheus = observed
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            # Without its comparison, if it has one: a failed reload is counted as such, and not as a failed boot.
            expression = (
                target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*").removesuffix(" > 0")
            )
            wait_for(partial(prometheus.finds, expression), what=f"{panel['title']}: {expression}")
    values = prometheus.ask("label/instance/values", **{"match[]": "aserver_workers_wanted"})
    assert len(values) == 1, "the dashboard's variable offers the server"

    rules = {rule["name"]: rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]}
    wait_for(
        lambda: (
            {each["labels"]["alertname"] for each in prometheus.ask("alerts")["alerts"]}
            >= {"AserverReloadFailed", "AserverWorkersDie"}
        ),
        what="the alerts of a failed reload and a dead worker",
    )
    for name, rule in rules.items():
        assert rule["health"] in {"ok", "unknown"}, (name, rule.get("lastError"))
        # Without its comparison, each alert has something to compare.
        for side in re.split(r" (?:>=|>|<|==) ", rule["query"]):
            if not re.fullmatch(r"[\d.]+", side) and name not in QUIET:
                assert prometheus.finds(side), (name, side)

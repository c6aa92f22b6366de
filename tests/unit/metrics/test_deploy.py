"""The files in deploy/ that watch a server ask for metrics that it has, in expressions that Prometheus takes."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from aserver.admin.exposition import name_of
from aserver.metrics.families import FAMILIES

DEPLOY = Path(__file__).parents[3] / "deploy"
RULES = DEPLOY / "prometheus" / "aserver.rules.yml"


def dashboard() -> list[str]:
    """The expressions of all panels, with Grafana's variables filled in."""
    panels = json.loads((DEPLOY / "grafana" / "aserver.json").read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel["targets"]]
    return [each.replace("$__rate_interval", "5m").replace("$instance", ".*") for each in found]


def exposed() -> set[str]:
    """The names of all series."""
    names: set[str] = set()
    for family, (kind, unit, _) in FAMILIES.items():
        name = name_of({"name": family, "unit": unit})
        ends = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}[kind]
        names |= {name + end for end in ends}
    return names


@pytest.mark.parametrize("text", [RULES.read_text(), "\n".join(dashboard())], ids=["rules", "dashboard"])
def test_each_metric_that_is_asked_for_exists(text: str) -> None:
    """Fails with a name that a change of `FAMILIES` has left behind: such a panel stays empty, an alert silent."""
    asked = set(re.findall(r"\b(?:aserver|http_server)_\w+", text))
    assert len(asked) > 8
    assert asked <= exposed()


@pytest.mark.external
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_takes_the_rules_and_the_expressions(tmp_path: Path) -> None:
    """Each alert fires when it should, by the cases in aserver.test.yml."""
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(dashboard())]
    panels = tmp_path / "panels.yml"
    panels.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    for command in (
        ["check", "rules", str(RULES), str(panels)],
        ["test", "rules", str(RULES.with_name("aserver.test.yml"))],
    ):
        done = subprocess.run(["promtool", *command], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

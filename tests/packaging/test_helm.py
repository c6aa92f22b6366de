"""deploy/helm/aserver, rendered by Helm's own engine; its manifests are valid, and their numbers add up."""

import importlib
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.packaging.pods import FOREIGN, check_query, check_times, validate

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "aserver"

pytestmark = pytest.mark.skipif(not os.environ.get("TEST_WHEELS"), reason="`make wheels` runs it")


@pytest.fixture(scope="module")
def helm() -> Any:
    """Helm as a library; its wheel is for Linux on x86-64."""
    pytest.importorskip("helm_python")
    return importlib.import_module("helm_python.chart")


def render(helm: Any, **values: object) -> dict[str, dict[str, Any]]:
    """The manifests by kind, a release `shop` of them; of two Services the second is called `AdminService`."""
    with helm.Chart.load(CHART) as chart:
        files: dict[str, str] = chart.render(values=values, name="shop", namespace="prod")
    found: dict[str, dict[str, Any]] = {}
    for name, text in files.items():
        for document in yaml.safe_load_all(text) if name.endswith(".yaml") else ():
            if document is not None:
                kind = document["kind"]
                found[f"Admin{kind}" if document["metadata"]["name"].endswith("-admin") else kind] = document
    return found


def test_helm_finds_nothing_to_complain_of(helm: Any) -> None:
    """But that there is no icon."""
    report = helm.lint(CHART, strict=True)
    assert [each["error"] for each in report["messages"]] == ["icon is recommended"]


EVERYTHING = {
    "args": ["--max-requests=10000"],
    "env": [{"name": "DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": "db", "key": "url"}}}],
    "imagePullSecrets": [{"name": "pull"}],
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "podAnnotations": {"a": "b"},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "service": {"type": "LoadBalancer", "port": 443},
}


@pytest.mark.parametrize("values", [{}, EVERYTHING, {"topologySpread": "", "autoscaling": {"by": "none"}}])
def test_the_manifests_are_valid(helm: Any, values: dict[str, Any]) -> None:
    found = render(helm, **values)
    for document in found.values():
        if document["kind"] not in FOREIGN:
            validate(document)
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        found["Service"]["spec"]["selector"],
        found["AdminService"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        found["Deployment"]["spec"]["selector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels.items()
    if "ServiceMonitor" in found:
        wanted = found["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
        assert wanted.items() <= found["AdminService"]["metadata"]["labels"].items()
        assert not wanted.items() <= found["Service"]["metadata"]["labels"].items()


@pytest.mark.parametrize(
    "times", [{}, {"drainDelay": 0, "gracefulTimeout": 5, "spare": 5}, {"gracefulTimeout": 600, "bootTimeout": 301}]
)
def test_the_times_add_up_whatever_they_are(helm: Any, times: dict[str, int]) -> None:
    """Fails with a fixed terminationGracePeriodSeconds."""
    check_times(render(helm, times=times)["Deployment"])


def test_what_scales_sets_the_number_of_pods_alone(helm: Any) -> None:
    by = {name: render(helm, autoscaling={"by": name}) for name in ("cpu", "keda", "none")}
    scales = {name: {"HorizontalPodAutoscaler", "ScaledObject"} & set(found) for name, found in by.items()}
    assert scales == {"cpu": {"HorizontalPodAutoscaler"}, "keda": {"ScaledObject"}, "none": set()}
    assert [name for name, found in by.items() if "replicas" in found["Deployment"]["spec"]] == ["none"]
    check_query(by["keda"]["ScaledObject"])


@pytest.mark.parametrize(
    "values",
    [
        {"tymes": {}},
        {"args": ["--drain-delay=5"]},
        {"workers": "auto"},
        {"times": {"spare": 0}},
        {"image": {"repository": "a", "tag": ""}},
    ],
)
def test_a_mistake_in_the_values_is_refused(helm: Any, values: dict[str, Any]) -> None:
    """Fails without values.schema.json."""
    with pytest.raises(Exception, match="values don't meet"):
        render(helm, **values)

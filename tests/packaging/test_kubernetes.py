"""deploy/kubernetes: valid by the API's own schemas, and with numbers that add up."""

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from aserver.config import layers
from aserver.metrics import families

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
#: Kinds of other projects; their schemas are not the API's.
FOREIGN = ("Kustomization", "ServiceMonitor", "ScaledObject")

pytestmark = pytest.mark.skipif(not os.environ.get("TEST_WHEELS"), reason="`make wheels` runs it")


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each document, with the name of its file."""
    for path in sorted(FOLDER.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text("utf-8")):
            yield path.name, document


def of_kind(kind: str) -> dict[str, Any]:
    """The first document of a kind."""
    return next(document for _, document in manifests() if document["kind"] == kind)


@pytest.mark.parametrize(
    ("name", "document"), [(name, each) for name, each in manifests() if each["kind"] not in FOREIGN]
)
def test_the_manifests_are_valid(name: str, document: dict[str, Any]) -> None:
    """Strictly: a field that the API does not know is a mistake."""
    validator: Any = importlib.import_module("kubernetes_validate")
    validator.validate(document, validator.latest_version(), strict=True)


def test_the_kustomization_names_files_that_are_there() -> None:
    resources = of_kind("Kustomization")["resources"]
    assert resources
    assert [name for name in resources if not (FOLDER / name).exists()] == []


def test_the_time_to_stop_adds_up() -> None:
    """With the settings of the arguments, read by aserver's own command line. Fails with 50 s."""
    pod = of_kind("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    options = [word.removeprefix("--").split("=") for word in container["args"] if word.startswith("--")]
    keywords = {name.replace("-", "_"): value for name, value in options}
    config = layers.load(keywords=keywords, environ={}, cwd=Path("/")).config
    needed = config.drain_delay + config.graceful_timeout + config.lifespan_shutdown_timeout
    assert pod["terminationGracePeriodSeconds"] > needed
    probe = container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] > 2 * config.boot_timeout
    assert {each["name"]: each["containerPort"] for each in container["ports"]}["admin"] == 9100
    assert config.admin == "0.0.0.0:9100"


def test_what_scales_is_measured() -> None:
    """KEDA's query names a family of ours, as Prometheus spells it."""
    (trigger,) = of_kind("ScaledObject")["spec"]["triggers"]
    names = {name.replace(".", "_") for name in families.FAMILIES}
    assert any(f"({name}{{" in trigger["metadata"]["query"] for name in names)

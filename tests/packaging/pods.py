"""The checks that a pod of deploy/kubernetes and one of deploy/helm have in common."""

import importlib
from pathlib import Path
from typing import Any

from aserver.config import layers
from aserver.metrics import families

#: Kinds of other projects; their schemas are not the API's.
FOREIGN = ("Kustomization", "ServiceMonitor", "ScaledObject")


def validate(document: dict[str, Any]) -> None:
    """By the API's own schemas, and strictly: a field that the API does not know is a mistake."""
    validator: Any = importlib.import_module("kubernetes_validate")
    validator.validate(document, validator.latest_version(), strict=True)


def check_times(deployment: dict[str, Any]) -> None:
    """The time to stop and to start adds up, with the settings of the arguments, read by aserver's own command line."""
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    options = [word.removeprefix("--").split("=") for word in container["args"] if word.startswith("--")]
    keywords = {name.replace("-", "_"): value for name, value in options}
    config = layers.load(keywords=keywords, environ={}, cwd=Path("/")).config
    needed = config.drain_delay + config.graceful_timeout + config.lifespan_shutdown_timeout
    assert pod["terminationGracePeriodSeconds"] > needed
    assert "lifecycle" not in container, "drain_delay is in place of a preStop hook"
    probe = container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] > 2 * config.boot_timeout
    assert {each["name"]: each["containerPort"] for each in container["ports"]}["admin"] == 9100
    assert config.admin == "0.0.0.0:9100"


def check_query(scaled: dict[str, Any]) -> None:
    """KEDA's query names a family of ours, as Prometheus spells it."""
    (trigger,) = scaled["spec"]["triggers"]
    names = {name.replace(".", "_") for name in families.FAMILIES}
    assert any(f"({name}{{" in trigger["metadata"]["query"] for name in names)

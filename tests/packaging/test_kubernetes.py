"""deploy/kubernetes: valid by the API's own schemas, and with numbers that add up."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.packaging.pods import FOREIGN, check_query, check_times, validate

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"

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
    validate(document)


def test_the_kustomization_names_files_that_are_there() -> None:
    resources = of_kind("Kustomization")["resources"]
    assert resources
    assert [name for name in resources if not (FOLDER / name).exists()] == []


def test_the_time_to_stop_adds_up() -> None:
    """Fails with 50 s."""
    check_times(of_kind("Deployment"))


def test_what_scales_is_measured() -> None:
    check_query(of_kind("ScaledObject"))

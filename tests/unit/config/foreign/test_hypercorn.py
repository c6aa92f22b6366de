"""Hypercorn's options. Each docstring says how it was seen to fail."""

import tomllib

import pytest

from tests.unit.command.migrating import Migrate


@pytest.mark.parametrize(
    ("words", "made", "said"),
    [
        ("hypercorn -k trio --verify-mode CERT_NONE -b 0.0.0.0:9 a:b", {"bind": ["0.0.0.0:9"]}, "trio's loop"),
    ],
)
def test_options_and_what_changes(migrate: Migrate, words: str, made: dict[str, object], said: str) -> None:
    """A line for each thing. Fails without the row of the option."""
    outcome = migrate("--", *words.split())
    assert outcome.status == 0, outcome.err
    assert tomllib.loads(outcome.out).items() >= made.items()
    assert said in outcome.err

"""uvicorn's options. Each docstring says how it was seen to fail."""

import tomllib

import pytest

from tests.unit.command.migrating import Migrate


@pytest.mark.parametrize(
    ("words", "made", "said"),
    [
        ("uvicorn a:b --port 9 --no-access-log --http2", {"bind": ["127.0.0.1:9"], "accesslog": "off"}, ""),
        ("python -m uvicorn a:b --interface asgi2", {"target": "a:b"}, "asgi2 is not spoken"),
    ],
)
def test_options_and_what_changes(migrate: Migrate, words: str, made: dict[str, object], said: str) -> None:
    """A line for each thing. Fails without the row of the option."""
    outcome = migrate("--", *words.split())
    assert outcome.status == 0, outcome.err
    assert tomllib.loads(outcome.out).items() >= made.items()
    assert said in outcome.err

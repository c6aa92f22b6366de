"""granian's options. Each docstring says how it was seen to fail."""

import tomllib

import pytest

from tests.unit.command.migrating import Migrate


@pytest.mark.parametrize(
    ("words", "made", "said"),
    [
        ("granian --interface rsgi a:b --workers-max-rss 9", {"max_memory": "9MiB", "memory_metric": "rss"}, "rsgi"),
        ("granian a:b --blocking-threads 3 --backpressure 9", {"threads": 3, "backpressure": 9}, ""),
        ("granian a:b --env-files .env --env-files b", {"env_file": ".env"}, "env_file is one file: join .env and b"),
        (
            "granian a:b --static-path-mount s --static-path-mount t --static-path-route /s --static-path-route /t",
            {"static": ["/s=s", "/t=t"]},
            "",
        ),
        ("granian a:b --static-path-mount s", {"static": ["/static=s"]}, ""),
        ("granian a:b --http 2", {"target": "a:b"}, "h2c://host:port"),
        ("granian a:b --http1-header-read-timeout 1500", {"header_timeout": "1.5s"}, ""),
    ],
)
def test_options_and_what_changes(migrate: Migrate, words: str, made: dict[str, object], said: str) -> None:
    """A line for each thing. Fails without the row of the option."""
    outcome = migrate("--", *words.split())
    assert outcome.status == 0, outcome.err
    assert tomllib.loads(outcome.out).items() >= made.items()
    assert said in outcome.err

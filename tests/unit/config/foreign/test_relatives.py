"""daphne's options and fastapi's, which are uvicorn's in the main. Each docstring says how it was seen to fail."""

import tomllib

import pytest

from tests.unit.command.migrating import Migrate


@pytest.mark.parametrize(
    ("words", "made", "said"),
    [
        (
            "daphne -u /run/a.sock -t 9 a:b",
            {"target": "a:b", "bind": ["unix:/run/a.sock"]},
            "see request_timeout",
        ),
        ("daphne --websocket-max-message-size 9 a:b", {"target": "a:b", "ws_max_size": "9"}, ""),
        ("daphne --proxy-headers-host X-Name a:b", {"target": "a:b"}, "see forwarded_allow_ips"),
        ("fastapi run --reload -v -e a:b", {"target": "a:b", "reload": True}, "fastapi, -v"),
        ("fastapi run app/main.py --app=api", {"target": "app.main:api", "bind": ["0.0.0.0:8000"]}, ""),
        ("python -m fastapi dev -e a:b --port 9", {"target": "a:b", "bind": ["127.0.0.1:9"], "reload": True}, ""),
    ],
)
def test_options_and_what_changes(migrate: Migrate, words: str, made: dict[str, object], said: str) -> None:
    """A line for each thing. Fails without the row of the option."""
    outcome = migrate("--", *words.split())
    assert outcome.status == 0, outcome.err
    assert tomllib.loads(outcome.out).items() >= made.items()
    assert said in outcome.err


def test_a_switch_may_take_back_what_the_command_means(migrate: Migrate) -> None:
    """Fails where `fastapi dev` reloads whatever is said."""
    outcome = migrate("--", "fastapi", "dev", "--no-reload", "-e", "a:b")
    assert (outcome.status, tomllib.loads(outcome.out)) == (0, {"target": "a:b"}), outcome.err

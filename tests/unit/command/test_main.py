"""The console script: which command lines start a zygote ahead. Each docstring says how it was seen to fail."""

import sys

import pytest

from aserver.command import cli, main
from aserver.master import programs


@pytest.mark.parametrize(
    ("line", "ahead"),
    [
        ("run app:asgi", True),
        ("dev", True),
        ("app:asgi", True),
        ("-w 4 app:asgi", True),
        ("run --help", False),
        ("--version", False),
        ("check app:asgi", False),
        ("status", False),
        ("", False),
    ],
)
def test_a_zygote_starts_ahead_where_a_server_is_to_run(
    monkeypatch: pytest.MonkeyPatch, line: str, ahead: bool
) -> None:
    """Fails with a process for each `status`, or none for a target without `run`; it is given up whatever happens."""
    called: list[str] = []
    monkeypatch.setattr(sys, "argv", ["aserver", *line.split()])
    monkeypatch.setattr(programs, "start_zygote_ahead", lambda: called.append("start"))
    monkeypatch.setattr(programs, "abandon_zygote_ahead", lambda: called.append("abandon"))

    def ended() -> None:
        raise SystemExit(3)

    monkeypatch.setattr(cli, "main", ended)
    with pytest.raises(SystemExit) as caught:
        main.main()
    assert caught.value.code == 3
    assert called == [*(["start"] if ahead else []), "abandon"]


@pytest.mark.parametrize("variable", ["_ASERVER_UPGRADE", "_ASERVER_COMPLETE"])
def test_an_upgrade_and_completion_need_none(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Fails without the look at the environment."""
    monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(sys, "argv", ["aserver", "run", "app:asgi"])
    monkeypatch.setattr(programs, "start_zygote_ahead", lambda: pytest.fail("it was started"))
    monkeypatch.setattr(cli, "main", lambda: None)
    main.main()

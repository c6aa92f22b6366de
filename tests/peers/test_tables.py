"""The tables of verdicts against the servers themselves: each option that they have has one.

A group of its own (`make migrate-tables`), since it installs those servers; `make test` passes over it. Each docstring
says how the test was seen to fail.
"""

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from aserver.config.foreign import SERVERS, ForeignServer, hooks
from aserver.config.foreign.lines import in_words
from aserver.config.foreign.translate import flags
from aserver.config.foreign.uwsgi_names import OPTIONS
from aserver.config.schema import NAMES


def _peer(name: str) -> Any:
    if os.environ.get("TEST_REQUIRE_PEERS"):
        return importlib.import_module(name)
    return pytest.importorskip(name)


def _spellings(server: ForeignServer, name: str) -> set[tuple[str, bool]]:
    """Each flag of a row and whether a value follows it."""
    return {(flag.spelling, flag.value is None) for row, _, flag in flags(server) if row == name}


def _click_options(command: Any) -> dict[str, set[tuple[str, bool]]]:
    arguments: dict[str, set[tuple[str, bool]]] = {
        parameter.name: set() for parameter in command.params if parameter.param_type_name == "argument"
    }
    return arguments | {
        parameter.name: {(spelling, not parameter.is_flag) for spelling in (*parameter.opts, *parameter.secondary_opts)}
        for parameter in command.params
        if parameter.param_type_name == "option"
    }


def _repeated(command: Any) -> set[str]:
    return {each.name for each in command.params if each.param_type_name == "option" and each.multiple}


def _compare(server: ForeignServer, theirs: dict[str, set[tuple[str, bool]]], *, ours: Iterable[str]) -> None:
    missing, gone = theirs.keys() - server.table.keys(), set(ours) - theirs.keys()
    assert not missing, f"{server.name} has settings without a verdict"
    assert not gone, f"the table has settings that {server.name} has not"
    wrong = {
        name: (found, _spellings(server, name)) for name, found in theirs.items() if found != _spellings(server, name)
    }
    assert not wrong, "flags as they are there, and in the table"


def test_gunicorn() -> None:
    """Every setting of KNOWN_SETTINGS with its flags. Fails without one row, or with one flag too few."""
    known = _peer("gunicorn.config").KNOWN_SETTINGS
    theirs = {
        setting.name: {
            (flag, setting.action not in {"store_true", "store_false", "store_const"}) for flag in setting.cli or ()
        }
        for setting in known
    }
    server = SERVERS["gunicorn"]
    _compare(server, theirs, ours=server.table)
    assert server.repeated == {s.name for s in known if s.action == "append"}
    assert hooks() == {s.name for s in known if s.section == "Server Hooks" or s.name in _DIRTY}, "functions"


_DIRTY = {"on_dirty_starting", "dirty_post_fork", "dirty_worker_init", "dirty_worker_exit"}


def test_uvicorn() -> None:
    """Every parameter of its command with its flags. Fails without one row."""
    _peer("uvicorn")
    server = SERVERS["uvicorn"]
    command = importlib.import_module("uvicorn.main").main
    _compare(server, _click_options(command), ours=server.table)
    assert server.repeated == _repeated(command)


def test_granian() -> None:
    """Every parameter of its command with its flags. Fails without one row."""
    server = SERVERS["granian"]
    command = _peer("granian.cli").cli
    _compare(server, _click_options(command), ours=server.table)
    assert server.repeated == _repeated(command)


def test_hypercorn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every attribute of Config, and every flag of the parser. Fails without one row, or with one flag too few."""
    config = _peer("hypercorn.config").Config
    server = SERVERS["hypercorn"]
    methods = {"from_mapping", "from_pyfile", "from_toml", "from_object"}
    theirs = {
        name.removeprefix("_")
        for name, value in vars(config).items()
        if (not name.startswith("__") and not callable(getattr(value, "__func__", value))) or name == "logger_class"
    } - methods
    assert not theirs - server.table.keys()
    argparse = importlib.import_module("argparse")
    parsers: list[Any] = []

    def leave(parser: Any, *_: object) -> None:
        parsers.append(parser)
        sys.exit(0)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", leave)
    with pytest.raises(SystemExit):
        importlib.import_module("hypercorn.__main__").main([])
    wanted = {
        (spelling, action.nargs != 0)
        for action in parsers[0]._actions
        for spelling in action.option_strings
        if spelling not in {"-h", "--help"}
    }
    assert {(flag.spelling, flag.value is None) for _, _, flag in flags(server)} == wanted
    repeated = {
        spelling
        for each in parsers[0]._actions
        if type(each).__name__ == "_AppendAction"
        for spelling in each.option_strings
    }
    assert {flag.spelling for name, _, flag in flags(server) if name in server.repeated} == repeated


def _understand(words: list[str], spellings: Iterable[tuple[str, bool]]) -> None:
    """The command with each option: the option is understood, and one with a value does something or is spoken of."""
    for spelling, valued in spellings:
        target = ["shop"] * (spelling not in {"-e", "--entrypoint"} or words == ["daphne"])
        plain = in_words([*words, *target])
        found = in_words([*words, spelling, *["7"] * valued, *target])
        assert plain is not None
        assert found is not None
        assert found.strange == [], f"{words[0]} has an option without a verdict"
        assert not valued or found != plain, f"{spelling} is ignored silently"


def test_daphne() -> None:
    """Every flag of its parser. Fails without one line of `relatives`."""
    parser = _peer("daphne.cli").CommandLineInterface().parser
    _understand(
        ["daphne"],
        [
            (each, action.nargs != 0)
            for action in parser._actions
            for each in action.option_strings
            if action.dest != "help"
        ],
    )


@pytest.mark.parametrize("verb", ["run", "dev"])
def test_fastapi(verb: str) -> None:
    """Every flag of the two commands. Fails without one line of `relatives`."""
    app = _peer("fastapi_cli.cli").app  # first: where it is missing, so is typer
    group = importlib.import_module("typer.main").get_command(app)
    options = _click_options(group.commands[verb])
    _understand(["fastapi", verb], [each for spellings in options.values() for each in sorted(spellings)])


def test_uwsgi() -> None:
    """A verdict on each option of `uwsgi --help`. Fails without one row, without one family, or without one of OPTIONS.

    Builds differ in their options, so that the table may have more.
    """
    program = Path(sys.executable).with_name("uwsgi")
    if not program.exists() and not os.environ.get("TEST_REQUIRE_PEERS"):
        pytest.skip("uwsgi is not installed")
    text = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
    options = {match[1] for match in re.finditer(r"^\s*(?:-\S\|)?--(\S+)", text, re.MULTILINE)}
    assert len(options) > 800
    server = SERVERS["uwsgi"]
    assert not [option for option in sorted(options) if server.verdict(option) is None]
    assert options - server.table.keys() <= OPTIONS


def test_every_verdict_leads_to_a_setting() -> None:
    """Fails with a misspelt name in a row, and when a setting that was to come has come and its row still says so."""
    for server in SERVERS.values():
        for name, verdict in server.table.items():
            if verdict.to:
                assert verdict.to in NAMES, f"{server.name}: {name} leads to {verdict.to}"

"""docs/settings.md is what the tables say, and each of its examples is a setting as it reads it."""

import shlex
import tomllib
from pathlib import Path

import pytest
from click.core import ParameterSource

from aserver.command.cli import cli
from aserver.command.config_page import as_flag, in_toml, markdown
from aserver.config import Layer, SettingInfo, build, settings

PAGE = Path(__file__).parents[3] / "docs" / "settings.md"
COMPANY: dict[str, object] = {"certfile": "c", "keyfile": "k", "ca_certs": "a"}


def test_the_page_is_current() -> None:
    """Fails with a table that was changed without `make docs`."""
    assert PAGE.read_text("utf-8") == markdown()


@pytest.mark.parametrize("info", settings(), ids=lambda info: info.name)
def test_an_example_means_the_same_in_toml_and_as_a_flag(info: SettingInfo) -> None:
    """Fails with an example of the wrong kind, or that shows the default."""
    layers = [Layer("toml", tomllib.loads(in_toml(info))), Layer("company", COMPANY)]
    value = getattr(build(layers).config, info.name)
    arguments = shlex.split(as_flag(info))
    command = cli.commands["run"]
    context = command.make_context("run", arguments)
    given = {
        name: each
        for name, each in context.params.items()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    assert given.keys() == {info.name}
    assert getattr(build([Layer("flag", given), Layer("company", COMPANY)]).config, info.name) == value
    assert value != getattr(build([]).config, info.name)

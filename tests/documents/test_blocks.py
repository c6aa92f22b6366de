"""Each block of the documents can be run, or says why not; what is not run is read by the parser that it is for."""

import ast
import json
import re
import tomllib
from contextlib import suppress

import click
import pytest
import yaml

from aserver.command import cli
from tests.documents.pages import LANGUAGES, PAGES, Block, blocks, prose
from tests.harness.server import REPOSITORY

ALL = [block for page in PAGES for block in blocks(page)]

#: What a line of an indented block must not begin with: it would be a command or a program, and nothing would run it.
RUNNABLE = re.compile(r"(?:aserver|python|pip|curl|docker|kubectl|import|from|async def|def|with|if) ")
#: Words in capitals that stand for a value.
PLACEHOLDERS = {"SLOT": "1", "N": "2", "TARGET": "app:app", "FILE": "file"}


@pytest.mark.parametrize("block", ALL, ids=str)
def test_a_block_has_a_language_and_is_of_it(block: Block) -> None:
    assert block.language in LANGUAGES
    if block.language == "python":
        ast.parse(block.text)
        assert block.name or block.reason, "which file is it? Or why is it not run?"
    elif block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == "yaml":
        yaml.safe_load(block.text)
    elif block.language == "json":
        for line in block.text.splitlines():
            json.loads(line)


@pytest.mark.parametrize("page", [page.relative_to(REPOSITORY).as_posix() for page in PAGES])
def test_what_can_be_run_is_fenced(page: str) -> None:
    indented = re.findall(r"(?<=\n\n) {4}(?! *[-*])(.+(?:\n {4}.*)*)", prose(REPOSITORY / page))
    lines = [line.strip() for each in indented for line in each.splitlines()]
    assert [line for line in lines if RUNNABLE.match(line)] == []


def commands() -> list[str]:
    """Commands in the prose, and in blocks that are not run."""
    found = {command for page in PAGES for command in re.findall(r"`(aserver [^`]+)`", prose(page))}
    for block in ALL:
        if block.language == "sh" and block.reason:
            found.update(re.findall(r"^(aserver [^#&|\n]+)", block.text, re.MULTILINE))
    return sorted(found)


@pytest.mark.parametrize("command", commands())
def test_a_command_that_is_only_named_exists_with_its_options(command: str) -> None:
    words = re.sub(r"[][]", "", command.replace("bash|zsh|fish", "bash").replace(" ...", "")).split()[1:]
    words = [PLACEHOLDERS.get(word, word) for word in words]
    context = click.Context(cli.cli, info_name="aserver")
    if words[0].startswith("-"):  # an option of `aserver` itself
        assert words[0] in {name for option in cli.cli.params for name in option.opts}
        return
    name, subcommand, arguments = cli.cli.resolve_command(context, words)
    assert name
    assert subcommand
    with suppress(click.exceptions.Exit):  # of --help
        subcommand.make_context(name, arguments, parent=context, resilient_parsing=len(words) == 1)

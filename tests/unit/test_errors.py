"""Exit codes and texts of the exceptions. Each docstring says how it was seen to fail."""

import re
from pathlib import Path

from aserver import errors
from aserver.errors import AserverError, ConfigError, ExitCode


def test_one_mistake_is_a_sentence_and_several_are_a_list() -> None:
    """Fails with a list of one, or without the indentation by which log and terminal show that they belong together."""
    assert str(ConfigError.of(["a is wrong"])) == "a is wrong"
    assert str(ConfigError.of(["a", "b"])) == "2 settings are wrong:\n  a\n  b"


def test_each_error_has_the_exit_code_that_the_documents_give_it() -> None:
    """docs/signals.md is what people's scripts follow. Fails with a number changed, or a class without a row above."""
    page = (Path(__file__).parents[2] / "docs" / "signals.md").read_text()
    rows = {int(number) for number in re.findall(r"^\| (\d) \|", page, re.MULTILINE)}
    assert {code.value for code in ExitCode} <= rows
    named = dict(re.findall(r"── (\w+) .*exit (\d)$", errors.__doc__ or "", re.MULTILINE))
    classes = {each.__name__: each for each in AserverError.__subclasses__() if each.__module__ == errors.__name__}
    for name, each in classes.items():
        assert each.exit_code == int(named.get(name, 1)), name

"""Tracebacks cut to the user's part."""

import json
import traceback
from collections.abc import Callable

import pytest

from aserver.importer import user_traceback, users_part
from tests.unit.importer.project import Project


def test_an_exception_that_is_raised_again_and_again_is_told_once() -> None:
    """As Django does for a broken URLconf. Fails without `_without_echoes`."""

    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    text = users_part("".join(traceback.format_exception(caught.value)))
    link = "\nDuring handling of the above exception, another exception occurred:\n\n"
    assert users_part(link.join([text, text, text])) == text
    assert "json/decoder" not in text
    other = text.replace("JSONDecodeError", "KeyError")
    assert users_part(link.join([text, text, other, other, text])) == link.join([text, other, text])


def test_syntax_error_keeps_its_caret(project: Project) -> None:
    project.write("main.py", "def app(:\n    pass\n")
    error = project.fail("main:app")
    assert "raised SyntaxError" in str(error)
    assert "def app(:" in error.detail
    assert "^" in error.detail
    assert "importlib" not in error.detail


def test_exception_group_is_whole(project: Project) -> None:
    project.write("main.py", "raise ExceptionGroup('two', [ValueError('first'), OSError('second')])\n")
    detail = project.fail("main:app").detail
    assert "ValueError: first" in detail
    assert "OSError: second" in detail
    assert "importlib" not in detail


@pytest.mark.parametrize(
    "handler", ["raise error from None", "raise OSError('why') from error", "raise OSError('why')", "group"]
)
def test_whatever_belongs_to_an_error_is_cut(project: Project, handler: str) -> None:
    """Causes, contexts and members of groups that passed through importlib. Fails with any of them left out of _cut."""
    project.write("inner.py", "1 / 0\n")
    last = "raise ExceptionGroup('two', [error]) from None" if handler == "group" else handler
    # Not an import statement, of which Python cuts its own frames.
    text = f"from importlib import import_module as load\ntry: load('inner')\nexcept ArithmeticError as error: {last}\n"
    project.write("main.py", text)
    detail = project.fail("main:app").detail
    assert "inner.py" in detail
    assert "importlib" not in detail


def test_user_traceback_of_a_context(project: Project) -> None:
    def fail() -> None:
        try:
            raise KeyError("first")
        except KeyError:
            raise ValueError("second")  # noqa: B904 - the context is what is looked at

    raising: Callable[[], None] = fail
    with pytest.raises(ValueError, match="second") as caught:
        raising()
    text = user_traceback(caught.value)
    assert text.index("KeyError: 'first'") < text.index("ValueError: second")

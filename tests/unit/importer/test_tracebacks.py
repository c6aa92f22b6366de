"""Tracebacks cut to the user's part."""

import json
import traceback

import pytest

from aserver.importer import users_part


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

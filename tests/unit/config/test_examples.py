"""The examples of settings."""

import pytest

from aserver.config import Config, convert, settings


@pytest.mark.parametrize("name", [info.name for info in settings()])
def test_the_example_of_a_setting_is_a_value_of_it(name: str) -> None:
    """And none that changes nothing."""
    info = next(info for info in settings() if info.name == name)
    assert convert(name, info.example, "example") != getattr(Config(), name)

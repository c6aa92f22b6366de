"""The advice of docs/settings.md is whole."""

from aserver.config import settings
from aserver.config.guidance import GUIDANCE


def test_each_setting_says_when_to_change_it_and_what_goes_wrong() -> None:
    """Both ways. Fails with a row of the table that has none."""
    assert GUIDANCE.keys() == {info.name for info in settings()}
    for name, guide in GUIDANCE.items():
        assert guide.when, name
        assert guide.wrong, name
        assert not any(text.endswith(".") for text in guide), name

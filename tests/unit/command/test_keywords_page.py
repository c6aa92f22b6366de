"""The keyword arguments of `run` and `serve`, made from the table. That type checkers hold them: tests/unit/launch."""

from aserver.command.keywords_page import module
from aserver.config.keywords import Settings
from aserver.config.schema import BIND_PARTS, NAMES
from tests.harness.server import REPOSITORY


def test_the_module_is_made_from_the_table() -> None:
    """Fails with a setting that was changed without `make docs`."""
    assert (REPOSITORY / "aserver" / "config" / "keywords.py").read_text() == module()
    assert Settings.__annotations__.keys() == {*NAMES, *BIND_PARTS} - {"target", "wsgi_app"}

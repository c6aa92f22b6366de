"""The names of uWSGI's options. Each docstring says how the test was seen to fail."""

from aserver.config.foreign.uwsgi import UWSGI
from aserver.config.foreign.uwsgi_families import family
from aserver.config.foreign.uwsgi_names import OPTIONS


def test_each_option_has_a_verdict_and_no_other_name_has_one() -> None:
    """Fails without one family, and without OPTIONS, because a family goes by the beginning of a name."""
    assert [name for name in sorted(OPTIONS) if name not in UWSGI and family(name) is None] == []
    assert family("harakiri-verbose") is not None
    assert [name for name in ("harakiri-verbos", "logfoo", "pymodul", "httpx-timeout") if family(name)] == []

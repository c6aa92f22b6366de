"""A log_config that was made for uvicorn, without uvicorn. Each docstring says how the test was seen to fail."""

import importlib.util
import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from aserver.log.setup import LoggerLines, apply_log_config

UVICORN = """
[loggers]
keys=root,access
[handlers]
keys=file
[formatters]
keys=access
[formatter_access]
class=uvicorn.logging.AccessFormatter
format=%(levelprefix)s %(client_addr)s "%(request_line)s" %(status_code)s
[handler_file]
class=FileHandler
formatter=access
args=({file!r},)
[logger_root]
handlers=
[logger_access]
qualname=aserver.access
level=INFO
propagate=0
handlers=file
"""


@pytest.mark.parametrize("suffix", ["ini", "json"])
def test_uvicorns_formatters_need_no_uvicorn(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the file that uvicorn's documents show, with a filter by path. Fails without STAND_INS, which takes the
    classes' place: Cannot resolve. Fails without `uvicorn_arguments`: the access formatter misses its fields.
    """
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    written = tmp_path / "access.log"
    if suffix == "ini":
        text = UVICORN.format(file=str(written))
    else:
        layout = '%(levelprefix)s %(client_addr)s "%(request_line)s" %(status_code)s'
        text = json.dumps(
            {
                "formatters": {"a": {"()": "uvicorn.logging.AccessFormatter", "fmt": layout, "use_colors": True}},
                "handlers": {"h": {"class": "logging.FileHandler", "formatter": "a", "filename": str(written)}},
                "loggers": {"aserver.access": {"handlers": ["h"], "level": "INFO", "propagate": False}},
            }
        )
    path = tmp_path / f"log.{suffix}"
    path.write_text(text)
    apply_log_config(str(path))
    logger = logging.getLogger("aserver.access")
    unhealthy = _NotHealth()
    logger.addFilter(unhealthy)
    lines = LoggerLines()
    lines.make = lambda records: ["a line of 100%\n" for _ in records]
    for target in (b"/shop?a=%20", b"/health"):
        lines.batch.append(
            SimpleNamespace(client=("10.0.0.1", 9), method="GET", target=target, version="1.1", status=404)
        )
    lines.flush()
    logger.removeFilter(unhealthy)
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()
    assert written.read_text() == 'INFO:     10.0.0.1:9 "GET /shop?a=%20 HTTP/1.1" 404 Not Found\n'


class _NotHealth(logging.Filter):
    """The filter that many a uvicorn server has: the path is the third argument."""

    def filter(self, record: logging.LogRecord) -> bool:
        assert record.getMessage() == "a line of 100%"
        return isinstance(record.args, tuple) and record.args[2] != "/health"

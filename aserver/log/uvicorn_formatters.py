"""Stand-ins for the formatters of `uvicorn.logging`, which a log_config made for uvicorn names.

Each process that logs uses them where uvicorn is not installed. They write the same lines, without colours, and never
import uvicorn.
"""

import copy
import logging
from http import HTTPStatus

_PHRASES: dict[object, str] = {status.value: status.phrase for status in HTTPStatus}


class LevelPrefixFormatter(logging.Formatter):
    """For `DefaultFormatter`: `%(levelprefix)s` is the level's name and a colon, nine characters wide."""

    def __init__(self, fmt: str | None = None, datefmt: str | None = None, style: str = "%", **_: object) -> None:
        """Take the arguments of uvicorn's; `use_colors` is not used."""
        super().__init__(fmt, datefmt, style)  # type: ignore[arg-type]  # its stub wants a Literal

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Format a copy, since other handlers get the record too."""
        copied = copy.copy(record)
        copied.levelprefix = f"{record.levelname + ':':<9}"
        self.add_fields(copied)
        return super().formatMessage(copied)

    def add_fields(self, record: logging.LogRecord) -> None:
        """Set further fields of the copy that is formatted."""


class RequestFieldsFormatter(LevelPrefixFormatter):
    """For `AccessFormatter`: `client_addr`, `request_line` and `status_code` from the arguments of an access record."""

    def add_fields(self, record: logging.LogRecord) -> None:
        """Leave a record that is no access record as it is: its format then misses the fields, as with uvicorn."""
        if not isinstance(record.args, tuple) or len(record.args) != 5:
            return
        client, method, path, version, status = record.args
        record.client_addr = client
        record.request_line = f"{method} {path} HTTP/{version}"
        record.status_code = f"{status} {_PHRASES.get(status, '')}"


#: uvicorn's names, and those of the classes here.
STAND_INS = {
    "uvicorn.logging.DefaultFormatter": f"{__name__}.LevelPrefixFormatter",
    "uvicorn.logging.ColourizedFormatter": f"{__name__}.LevelPrefixFormatter",
    "uvicorn.logging.AccessFormatter": f"{__name__}.RequestFieldsFormatter",
}

"""The limits that the settings put on a request. Pure."""

from math import inf


class RequestLimits:
    """The settings `limit_request_line`, `_fields`, `_field_size` and `_body`; no limit of the body is infinite."""

    __slots__ = ("body", "field_size", "fields", "line", "small_head")

    def __init__(self, *, line: int, fields: int, field_size: int, body: int) -> None:
        self.line = line
        self.fields = fields
        self.field_size = field_size
        self.body: float = body or inf
        self.small_head = min(line, field_size)  # no line or field of so small a head is too long

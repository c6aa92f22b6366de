"""The limits that the settings put on a request. Pure."""

from math import inf


class RequestLimits:
    """The limits of a request: the settings `limit_request_line`, `_fields`, `_field_size`, `_body` (0: no limit)."""

    __slots__ = ("body", "field_size", "fields", "line", "small_head")

    def __init__(self, *, line: int, fields: int, field_size: int, body: int) -> None:
        self.line = line
        self.fields = fields
        self.field_size = field_size
        self.body: float = body or inf
        #: A head of at most so many bytes breaks no limit of size.
        self.small_head = min(line, field_size)

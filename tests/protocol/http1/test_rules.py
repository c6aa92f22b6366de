"""Rules that HTTP/1 has beside llhttp's."""

from unittest import mock

import pytest

from aserver.errors import ClientError
from aserver.protocol.http1 import rules
from aserver.protocol.http1.head import RequestHead
from aserver.protocol.semantics.limits import RequestLimits


@pytest.mark.parametrize(
    ("coding", "version", "has_length", "status"),
    [
        (b"chunked", "1.0", False, 400),
        (b"chunked", "1.1", True, 400),
        (b"gzip, chunked", "1.1", False, 501),
        (b"chunked, gzip", "1.1", False, 400),
        (b"chunked, chunked", "1.1", False, 400),
        (b"identity", "1.1", False, 400),
        (b"", "1.1", False, 400),
    ],
)
def test_refused_transfer_encoding(coding: bytes, version: str, has_length: bool, status: int) -> None:
    with pytest.raises(ClientError) as error:
        rules.check_transfer_encoding(coding, version, has_length=has_length)
    assert error.value.status == status


def test_chunked_in_any_case() -> None:
    rules.check_transfer_encoding(b"Chunked", "1.1", has_length=False)


@pytest.mark.parametrize("name", [b"Host", b"content-length"])
def test_fields_that_must_not_be_repeated(name: bytes) -> None:
    """Joined they would be refused as well, as no Host and no number; this says what is wrong."""
    limits = RequestLimits(line=100, fields=9, field_size=100, body=0)
    head = RequestHead(limits, on_headers_complete=mock.Mock(), on_body=mock.Mock(), on_message_complete=mock.Mock())
    head.on_header(name, b"1")
    with pytest.raises(ClientError, match="repeated") as error:
        head.on_header(name.title(), b"1")
    assert error.value.status == 400

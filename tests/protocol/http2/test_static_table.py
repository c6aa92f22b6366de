"""HPACK's static table is the RFC's."""

from hpack.table import HeaderTable

from aserver.protocol.http2.static_table import STATIC


def test_the_static_table_is_the_rfcs() -> None:
    assert tuple(STATIC[1:]) == HeaderTable.STATIC_TABLE

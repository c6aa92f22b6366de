"""Tables of field names."""

from aserver.protocol.semantics import fields


def test_special_names_are_never_taken_for_plain_ones() -> None:
    assert not {name.lower() for name in fields.REQUEST_NAMES} & fields.FRAMING_NAMES


def test_common_names_need_no_further_look() -> None:
    """Fails without `split`: the table had the letters of the names instead of the names."""
    assert fields.REQUEST_NAMES[b"User-Agent"] == fields.REQUEST_NAMES[b"user-agent"] == b"user-agent"
    assert fields.RESPONSE_NAMES[b"Set-Cookie"] == b"set-cookie"
    assert not set(fields.REQUEST_NAMES) & (fields.FRAMING_NAMES | fields.FORWARDING_NAMES)

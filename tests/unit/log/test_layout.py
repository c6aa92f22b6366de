"""Layouts: no text makes a second record, and every limit of a line is kept."""

import json
import logging
import re

from hypothesis import given
from hypothesis import strategies as st

from aserver.log.layout import JsonLayout, Layout, TextLayout


def make_record(message: str, details: str, request_id: str) -> logging.LogRecord:
    record = logging.LogRecord("aserver.error", logging.ERROR, __file__, 1, message, None, None)
    record.process = 54321  # not ours, or what has room would depend on its digits
    record.exc_text = details
    record.request_id = request_id
    return record


texts = st.text(max_size=60) | st.text('\n\r\x1b\x85\u2028\x00"\\é€\udcff ab', max_size=300)


@given(texts, texts, texts, st.sampled_from([None, 512, 4096]))
def test_no_input_makes_a_second_text_record(message: str, details: str, request_id: str, limit: int | None) -> None:
    layout: Layout = TextLayout("master")
    for piece in layout.render(make_record(message, details, request_id), limit):
        assert limit is None or len(piece) <= limit
        assert piece.endswith(b"\n")
        first, *more = piece.decode().splitlines()
        assert re.match(r"\d\d:\d\d:\d\d\.\d{3} master ", first)
        assert all(line.startswith("    ") for line in more)
        assert not re.search(b"[\x00-\x09\x0b-\x1f\x7f]", piece.replace(b"\t", b""))


@given(texts, texts, texts, st.sampled_from([None, 512, 4096]))
def test_no_input_breaks_json(message: str, details: str, request_id: str, limit: int | None) -> None:
    layout: Layout = JsonLayout("master")
    for piece in layout.render(make_record(message, details, request_id), limit):
        assert limit is None or len(piece) <= limit
        assert piece.count(b"\n") == 1
        assert piece.isascii()
        fields = json.loads(piece)
        assert limit is not None or fields["message"] == message


@given(texts, texts, texts, st.integers(0, 300))
def test_every_limit_of_a_json_line_is_kept(message: str, details: str, request_id: str, limit: int) -> None:
    """Endless in "[cut]" that is longer than its room, where `_shorten` tries again until it fits."""
    record = make_record(message, details, request_id)
    record.process = 4194304  # PID_MAX_LIMIT
    layout: Layout = JsonLayout("zygote g1")
    pieces = layout.render(record, limit)
    for piece in pieces:
        assert len(piece) <= limit
        assert piece.count(b"\n") == 1
        fields = json.loads(piece)
        assert limit < 64 or fields["message"] == message or fields["message"].endswith(" [cut]")
        assert limit < 128 or fields["level"] == "error"
    assert pieces or limit < len("{}\n")


def test_a_json_line_without_room_loses_its_request_id_first() -> None:
    """Message and request id a third each, and then 170 bytes of other fields: too much for a short line."""
    record = make_record("m" * 160, "Traceback\nValueError", "r" * 158)
    [piece] = JsonLayout("zygote g1").render(record, 512)
    fields = json.loads(piece)
    assert list(fields) == ["time", "level", "process", "pid", "logger", "message", "traceback", "part", "parts"]
    assert fields["message"].startswith("mmm")
    assert fields["traceback"] == "Traceback\nValueError"


@given(texts, texts, texts, st.integers(64, 300))
def test_every_limit_of_a_text_record_is_kept(message: str, details: str, request_id: str, limit: int) -> None:
    layout: Layout = TextLayout("master")
    for piece in layout.render(make_record(message, details, request_id), limit):
        assert len(piece) <= limit
        assert piece.decode().endswith("\n")


def test_a_text_line_is_not_cut_inside_a_character() -> None:
    for limit in range(200, 203):
        [piece] = TextLayout("master").render(make_record("€" * 300, "", ""), limit)
        assert piece.decode().endswith("€ [cut]\n")

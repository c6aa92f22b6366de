"""The spelling of durations, sizes and addresses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aserver.config.values import format_duration, format_size, parse_address, parse_duration, parse_size
from tests.unit.config.built import one, refused


@given(st.floats(min_value=0, allow_infinity=False, allow_nan=False))
def test_durations_round_trip(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(min_value=0, max_value=10**9).map(lambda ms: ms / 1000))
def test_usual_durations_round_trip(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(min_value=0) | st.integers(min_value=0, max_value=1 << 50).map(lambda size: size << 10))
def test_sizes_round_trip(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("1.5", 1.5), ("500ms", 0.5), ("30s", 30), ("5m", 300), ("1h", 3600), ("0", 0), (" 2 S ", 2)],
)
def test_durations(text: str, seconds: float) -> None:
    assert one(hang_timeout=text).hang_timeout == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512M", 512 << 20),
        ("1GiB", 1 << 30),
        ("1gb", 1 << 30),
        ("64K", 65536),
        ("8190", 8190),
        ("1.5k", 1536),
        ("7B", 7),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert one(max_memory=text).max_memory == size


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":8000", "0.0.0.0:8000"),
        ("8001", "127.0.0.1:8001"),
        ("localhost", "localhost:8000"),
        ("0.0.0.0:0", "0.0.0.0:0"),
        ("[::1]:80", "[::1]:80"),
        ("[0:0::1]", "[::1]:8000"),
        ("unix:/run/a.sock", "unix:/run/a.sock"),
        ("unix:///run/a.sock", "unix:/run/a.sock"),
        ("unix:@abstract", "unix:@abstract"),
        ("http://:80", "http://0.0.0.0:80"),
        ("http://[0:0::1]:1", "http://[::1]:1"),
        ("fd://3", "fd://3"),
        ("fd://web.socket", "fd://web.socket"),
        ("tcp://a:1", "a:1"),
    ],
)
def test_addresses(text: str, address: str) -> None:
    assert one(bind=text).bind == (address,)
    assert parse_address(address) == address


@pytest.mark.parametrize(
    "text",
    [
        "a:b",
        "::1:8000",
        "a:70000",
        "/run/a.sock",
        "unix:",
        "unix:a",
        "fd:x",
        "fd://a/b",
        "ftp://a:1",
        "https://unix:/a",
        "https://a",
        "http://https://a:1",
        "h2c://a",
        "h2c://unix:/a",
        "https://h2c://a:1",
        "[x]:1",
        "a b:1",
    ],
)
def test_bad_addresses(text: str) -> None:
    assert f"bind = {text!r} (test): " in refused(bind=text)

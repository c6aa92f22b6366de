"""The output of wrk and of its script."""

import pytest

from bench.load import wrk

WRK = """Running 2s test @ http://127.0.0.1:8000/
  1 threads and 64 connections
    5000 requests in 2.00s, 1.00MB read
BENCH {"requests": 5000, "microseconds": 2000000, "bytes": 1048576, "p50": 950.0, "p99": 2100.0, "p999": 4000.0, \
"max": 9000.0, "errors": {"connect": 0, "read": 3, "write": 0, "status": 2, "timeout": 0}}
"""


def test_wrk_results_are_read_in_seconds_and_milliseconds_and_keep_only_errors_that_happened() -> None:
    result = wrk.parse(WRK)
    assert (result.requests, result.seconds, result.p50, result.p99, result.p999) == (5000, 2.0, 0.95, 2.1, 4.0)
    assert result.errors == {"read": 3, "status": 2}


def test_wrk_without_a_result_says_what_it_printed_instead() -> None:
    with pytest.raises(wrk.WrkError, match="unable to connect"):
        wrk.parse("unable to connect to 127.0.0.1:1 Connection refused")


def test_the_script_prints_what_the_parser_reads() -> None:
    script = wrk.SCRIPT.read_text()
    for key in ("requests", "microseconds", "bytes", "p50", "p99", "p999", "max", "errors"):
        assert f'"{key}"' in script

"""Let atheris search: `python -m tests.fuzz TARGET [OPTION ...]`.

TARGET is `http` or `http2`; the options are libFuzzer's, such as `-max_total_time=60`.
"""

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

#: Not among the test dependencies: `pip install atheris` (Linux and macOS, CPython 3.11 to 3.13).
atheris: Any = importlib.import_module("atheris")

with atheris.instrument_imports(include=["aserver.protocol"]):
    from tests.fuzz import fuzz_http, fuzz_http2
from tests.protocol.http1 import framing_rows  # noqa: E402 - after what must be instrumented
from tests.protocol.http2 import rfc9113_rows, wire  # noqa: E402

#: Rows up to this size (bytes) are what the search begins with.
LARGEST_SEED = 500


def main() -> None:
    """Run until the time is over (exit code 0) or something breaks."""
    target = sys.argv.pop(1)
    if target == "http":
        check = fuzz_http.Checker().check
        seeds = [row.raw for row in framing_rows.rows()]
    elif target == "http2":
        check = fuzz_http2.Checker().check
        seeds = [row.raw for row in rfc9113_rows.ROWS if row.opening is wire.OPENING]
    else:
        sys.exit(f"no target {target!r}: http or http2")

    def one_input(data: bytes) -> None:
        provider = atheris.FuzzedDataProvider(data)
        cuts = [provider.ConsumeIntInRange(0, 500) for _ in range(3)]
        check(provider.ConsumeBytes(provider.remaining_bytes()), cuts)

    with tempfile.TemporaryDirectory() as corpus:
        for number, raw in enumerate(seeds):
            if len(raw) < LARGEST_SEED:
                # The provider takes numbers from the end.
                seed = raw + bytes((number % 40, 0, number % 90, 0, number % 200, 0))
                Path(corpus, str(number)).write_bytes(seed)
        atheris.Setup([*sys.argv, corpus], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

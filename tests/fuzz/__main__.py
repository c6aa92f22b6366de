"""Let atheris search; the options are libFuzzer's, such as `-max_total_time=60`."""

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

#: Not among the test dependencies: `pip install atheris` (Linux and macOS, CPython 3.11 to 3.13).
atheris: Any = importlib.import_module("atheris")

with atheris.instrument_imports(include=["aserver.protocol"]):
    from tests.fuzz.fuzz_http import Checker
from tests.protocol.http1.framing_rows import rows  # noqa: E402 - after what must be instrumented

#: Rows up to this size (bytes) are what the search begins with.
LARGEST_SEED = 500


def main() -> None:
    """Run until the time is over (exit code 0) or something breaks."""
    checker = Checker()

    def one_input(data: bytes) -> None:
        provider = atheris.FuzzedDataProvider(data)
        cuts = [provider.ConsumeIntInRange(0, 500) for _ in range(3)]
        checker.check(provider.ConsumeBytes(provider.remaining_bytes()), cuts)

    with tempfile.TemporaryDirectory() as corpus:
        for number, row in enumerate(rows()):
            if len(row.raw) < LARGEST_SEED:
                # The provider takes numbers from the end.
                seed = row.raw + bytes((number % 40, 0, number % 90, 0, number % 200, 0))
                Path(corpus, str(number)).write_bytes(seed)
        atheris.Setup([*sys.argv, corpus], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

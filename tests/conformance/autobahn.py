"""Run the Autobahn test suite against the real command: `python -m tests.conformance.autobahn [CASE ...]`.

The suite (https://github.com/crossbario/autobahn-testsuite) is a Python 2 program; it is installed once, with pip, for
the Python 2.7 that is found or named by AUTOBAHN_PYTHON, into `.autobahn` in the repository. Exits with 0 if no case
failed, 1 if one did, 2 if the suite could not be run. What the cases say of RFC 6455 and 7692 is also in
tests/protocol/websocket/test_reader.py, case by case; this is the confirmation by somebody else's code.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.harness.server import REPOSITORY, ServerProcess

SUITE = "autobahntestsuite==25.10.1"
HOME = REPOSITORY / ".autobahn"
#: What needs no server of its own: 1 to 7 frames, 9 sizes and speed, 10 fragmentation, 12 and 13 compression.
CASES = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*", "12.*", "13.*")
GOOD = ("OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED")

# zope is a namespace package made by a .pth file, which counts only in a site directory.
_START = """
import site, sys
site.addsitedir(sys.argv.pop(1))
from autobahntestsuite.wstest import run
run()
"""


def find_python2() -> str | None:
    """Return an interpreter of Python 2.7 that has pip, or None."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [os.environ.get("AUTOBAHN_PYTHON"), shutil.which("python2.7"), shutil.which("python2")]
    candidates += map(str, sorted(root.glob("versions/2.7*/bin/python2.7"), reverse=True))
    for candidate in filter(None, candidates):
        try:
            tried = subprocess.run([candidate, "-m", "pip", "--version"], capture_output=True, check=False)
        except OSError:
            continue
        if b"(python 2.7)" in tried.stdout:
            return candidate
    return None


def install(python: str) -> Path:
    """Install the suite unless it is there; return its site directory. Raises CalledProcessError."""
    site = HOME / SUITE
    HOME.mkdir(exist_ok=True)
    (HOME / ".gitignore").write_text("*\n")
    if not (site / "installed").exists():
        subprocess.run(
            [python, "-m", "pip", "install", "--disable-pip-version-check", "-q", "--target", str(site), SUITE],
            check=True,
        )
        (site / "installed").touch()
    return site


def run_suite(python: str, site: Path, cases: list[str], limit: float) -> dict[str, dict[str, Any]]:
    """Run the cases against a fresh server; return the results by case. Raises TimeoutExpired."""
    reports = HOME / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    # The largest message of the suite is 16 MiB, as ws_max_size is by default.
    with ServerProcess("tests.apps.ws_echo:app", "--no-access-log") as server:
        server.wait_ready()
        where = server.where
        specification = HOME / "specification.json"
        specification.write_text(
            json.dumps(
                {
                    "outdir": str(reports),
                    "servers": [{"agent": "aserver", "url": f"ws://{where[0]}:{where[1]}"}],
                    "cases": cases,
                    "exclude-cases": [],
                    "exclude-agent-cases": {},
                }
            )
        )
        with (HOME / "wstest.log").open("wb") as log:
            subprocess.run(
                [python, "-c", _START, str(site), "-m", "fuzzingclient", "-s", str(specification)],
                cwd=HOME,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=limit,
                check=False,
            )
        for line in server.log.splitlines():
            if "ERROR" in line or "Traceback" in line:
                print("server:", line)
    results: dict[str, dict[str, Any]] = json.loads((reports / "index.json").read_text())["aserver"]
    return results


def report(results: dict[str, dict[str, Any]]) -> bool:
    """Print what is not plainly good; tell whether nothing failed."""
    print(f"{len(results)} cases:", dict(Counter(each["behavior"] for each in results.values())))
    print("closing:", dict(Counter(each["behaviorClose"] for each in results.values())))
    good = bool(results)
    for case in sorted(results, key=lambda name: [int(part) for part in name.split(".")]):
        behaviour, closing = results[case]["behavior"], results[case]["behaviorClose"]
        if behaviour not in GOOD or closing not in GOOD:
            good = False
            print(f"FAILED {case}: {behaviour}, closing {closing}")
        elif behaviour not in ("OK", "INFORMATIONAL"):
            print(f"       {case}: {behaviour}")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cases", nargs="*", default=list(CASES), help="such as 6.* or 9.1.6")
    parser.add_argument("--limit", type=float, default=1800, help="seconds for all of them (default %(default)g)")
    arguments = parser.parse_args()
    python = find_python2()
    if python is None:
        print("The Autobahn suite is a Python 2 program: put python2.7 with pip on PATH or into AUTOBAHN_PYTHON.")
        return 2
    started = time.monotonic()
    try:
        results = run_suite(python, install(python), arguments.cases, arguments.limit)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"the suite did not run: {error} (its output is in {HOME / 'wstest.log'})")
        return 2
    good = report(results)
    print(f"{time.monotonic() - started:.0f} s; the suite's own report: {HOME / 'reports' / 'index.html'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

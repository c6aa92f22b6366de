"""standard_streams: what is closed leads to /dev/null, before anything else can take the number."""

import subprocess
import sys

import pytest

from tests.harness.server import REPOSITORY

LOOK = "import os; print([os.path.basename(os.readlink(f'/proc/self/fd/{fd}')) for fd in range(3)], file=open(3, 'w'))"


@pytest.mark.parametrize("module", ["aserver.standard_streams", "aserver.command.main"])
def test_nothing_that_keeps_a_file_open_is_imported_before_the_streams_are_kept(module: str) -> None:
    """Fails without a module of its own for it: `terminal` imports ctypes, and libffi 3.8 keeps a file open."""
    program = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); import {module}; print('ctypes' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


def test_closed_streams_lead_to_dev_null_and_others_stay() -> None:
    """Fails without the loop of `keep`."""
    path = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})"
    program = f"{path}\nfrom aserver import standard_streams\nstandard_streams.keep()\n{LOOK}"
    argv = ["sh", "-c", 'exec "$@" 3>&1 <&- 2>&- >/dev/zero', "sh", sys.executable, "-c", program]
    result = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True)
    assert result.stdout == "['null', 'zero', 'null']\n"

"""The first zygote is started before the command is imported, and leaves with a command that serves nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import PATIENCE
from tests.harness.server import REPOSITORY

pytestmark = pytest.mark.process

#: Takes click's place: says which children there are when the command begins to import, and ends it.
CLICK = (
    "import os, time\n"
    "deadline = time.monotonic() + 20\n"
    "for pid in open(f'/proc/self/task/{os.getpid()}/children').read().split():\n"
    "    while not (words := open(f'/proc/{pid}/cmdline').read()) and time.monotonic() < deadline:\n"
    "        pass  # the parent goes on an instant before execve(2) has set them\n"
    "    print(words.replace(chr(0), ' '), flush=True)\n"
    "raise SystemExit(9)\n"
)


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
@pytest.mark.parametrize(
    ("arguments", "environ", "started"),
    [
        (["run", "app:app"], {}, True),
        (["dev", "app:app"], {}, True),
        (["app:app", "--workers", "2"], {}, True),
        (["--bind", "127.0.0.1:0", "app:app"], {}, True),
        (["status"], {}, False),
        (["run", "--help"], {}, False),
        (["run", "app:app"], {"_ASERVER_PREFLIGHT": "1"}, False),
    ],
)
def test_the_zygote_imports_beside_the_command(
    tmp_path: Path, arguments: list[str], environ: dict[str, str], *, started: bool
) -> None:
    """Fails without start_zygote_ahead in command.main, and hangs as long as a zygote lives without the abandoning."""
    (tmp_path / "click.py").write_text(CLICK)
    done = subprocess.run(
        [sys.executable, "-m", "aserver", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)]), **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 9, done.stderr
    assert ("zygote" in done.stdout) is started, done.stdout

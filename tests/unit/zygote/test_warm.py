"""Which modules are loaded ahead, rehearsed in a process of its own. Each docstring says how it was seen to fail.

The whole, with a zygote and its workers, is in tests/process/test_dev.py.
"""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aserver.zygote.warm import Warmth
from tests.harness.server import REPOSITORY

REHEARSE = """
import json, os, sys
from aserver import importer
from aserver.zygote import warm
sys.path.insert(0, {installed!r}); sys.path.insert(0, {users!r})
warm.is_installed = lambda origin: origin.startswith({installed!r})
before = dict(os.environ)
done = warm.rehearse({modules!r}, {environ!r})
assert dict(os.environ) == before
print(json.dumps([done.modules, done.spoilt, done.why]))
"""


def rehearse(tmp_path: Path, sources: dict[str, str], *, environ: dict[str, str] | None = None) -> list[object]:
    """Import `sources` in their order; those of "users/" are the user's, the others are installed."""
    for folder in ("installed", "users"):
        (tmp_path / folder).mkdir()
    for name, text in sources.items():
        folder, _, module = name.rpartition("/")
        (tmp_path / (folder or "installed") / f"{module}.py").write_text(text)
    code = REHEARSE.format(
        installed=str(tmp_path / "installed"),
        users=str(tmp_path / "users"),
        modules=[name.rpartition("/")[2] for name in sources],
        environ=environ or {},
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[object] = json.loads(done.stdout)
    return found


def test_modules_of_the_user_are_left_out_with_all_that_needs_them(tmp_path: Path) -> None:
    """They would be the version of that moment for ever. Fails without `_ONLY_INSTALLED`."""
    sources = {"fine": "", "users/shop": "", "needs": "import shop", "broken": "1 / 0", "leaves": "raise SystemExit"}
    assert rehearse(tmp_path, sources) == [["fine"], "", ""]


LISTENS = "c = socket.create_server(('127.0.0.1', 0))"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()", "a thread"),
        (f"import socket\n{LISTENS}\nd = socket.create_connection(c.getsockname())", "a connected socket"),
    ],
    ids=["thread", "socket"],
)
def test_the_first_module_that_leaves_something_ends_the_rehearsal(tmp_path: Path, text: str, why: str) -> None:
    """Neither survives a fork. Fails without `_threads`, or without `descriptor_hazards`."""
    modules, spoilt, said = rehearse(tmp_path, {"fine": "", "pool": text, "later": ""})
    assert (modules, spoilt) == ([], "pool")
    assert why in str(said)


def test_the_variables_are_as_the_users_code_had_set_them(tmp_path: Path) -> None:
    """Such as DJANGO_SETTINGS_MODULE. Fails without the update; that they are taken back is asserted there."""
    sources = {"wants": "import os\nassert os.environ['SHOP'] == 'x'"}
    assert rehearse(tmp_path, sources, environ={"SHOP": "x"}) == [["wants"], "", ""]


def test_the_first_worker_is_asked_and_the_next_if_it_did_not_get_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where each worker is asked, or where a first that crashed at its import was the only one."""
    warmth = Warmth()
    with contextlib.ExitStack() as parents:
        assert warmth.ask(parents) is not None
        assert warmth.ask(parents) is None
    warmth.hear()  # its end, without a word
    assert warmth.reading is None
    worker = warmth.ask(contextlib.ExitStack())
    assert worker is not None
    monkeypatch.setenv("SHOP", "x")
    worker.tell()
    assert warmth.reading is not None
    told = json.loads(os.read(warmth.reading, 1 << 20))
    assert told["environ"] == {"SHOP": "x"}
    assert {"json", "pytest"} <= set(told["modules"])
    assert not {"__main__", "aserver.zygote.warm", __name__} & set(told["modules"])
    os.close(warmth.reading)
    for sock in vars(warmth.relay).values():
        sock.close()

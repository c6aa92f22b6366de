"""The census of native threads."""

import importlib.machinery
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aserver.zygote import native
from tests.unit.zygote.loads import load

# The workers of a parallel run (-n) have threads of their own, which the census of this very process finds.
pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif("PYTEST_XDIST_WORKER" in os.environ, reason="needs a process without xdist's threads: no -n"),
]


#: A thread that Python does not list, as of an extension module; `end()` joins it.
STAND_IN = """
import _thread, os, pathlib
ids, reading, writing = [], *os.pipe()
def run():
    ids.append(_thread.get_native_id())
    os.read(reading, 1)
    ids.clear()
_thread.start_new_thread(run, ())
while not ids:
    pass
thread = ids[0]
def end():
    if ids:
        os.write(writing, b"x")
    while os.path.exists(f"/proc/self/task/{thread}"):
        pass
"""


def test_a_native_thread_that_ends_before_a_fork_is_no_hazard(tmp_path: Path) -> None:
    """As OpenBLAS ends its own. Fails without `survivors`."""
    code = STAND_IN + "os.register_at_fork(before=end)\n"
    assert load(tmp_path, "census_ends", code).hazards == ()
    assert not sys.modules["census_ends"].ids, "the premise: there was a thread, and it was told to end"


def test_a_native_thread_that_stays_is_a_hazard(tmp_path: Path) -> None:
    """As tokio's. Its name is the process's own and is not told. Fails with all native threads left out."""
    assert load(tmp_path, "census_stays", STAND_IN).hazards == ("a native thread of an extension module",)
    sys.modules["census_stays"].end()


def test_a_native_thread_that_is_known_is_no_hazard(tmp_path: Path) -> None:
    """jemalloc's. Fails without SAFE_NAMES."""
    code = STAND_IN + "pathlib.Path(f'/proc/self/task/{thread}/comm').write_text('jemalloc_bg_thd')\n"
    assert load(tmp_path, "census_known", code).hazards == ()
    module = sys.modules["census_known"]
    assert module.ids == [module.thread], "the premise: it is there still"
    module.end()


def test_a_native_thread_is_named_by_the_extension_it_came_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its stack cannot be seen. Fails without ExtensionWatch, and with its patches left in place."""
    loader: Any = importlib.machinery.ExtensionFileLoader

    def create(self: object, spec: object) -> None:
        exec(STAND_IN, names)

    names: dict[str, Any] = {}
    monkeypatch.setattr(loader, "create_module", create)
    code = "import importlib.machinery as m\nm.ExtensionFileLoader('some.extension', '/').create_module(None)\n"
    (found,) = load(tmp_path, "census_brought", code).hazards
    assert found == "a native thread that came with the import of some.extension"
    assert loader.create_module is create
    names["end"]()


def test_a_native_thread_of_an_extension_is_named_by_its_library() -> None:
    """In a process of its own, as libuv's threads stay for good.

    Fails without `_outermost`.
    """
    code = (
        "import asyncio, os, uvloop\n"
        "from aserver.zygote import native\n"
        "async def resolve():\n    await asyncio.get_running_loop().getaddrinfo('localhost', 1)\n"
        "with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:\n    runner.run(resolve())\n"
        "for thread in native.threads() - {os.getpid()}:\n    print(native.describe(thread, None))\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert said
    assert all(line.startswith("native thread 'libuv-worker' of uvloop/loop.cpython-") for line in said), said


def test_a_child_that_hangs_in_a_fork_handler_ends_the_census_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails without the time limit in `_fork_and_end`."""
    monkeypatch.setattr(native, "PROBE_PATIENCE", 0.05)
    reading, writing = os.pipe()
    hanging = [True]
    os.register_at_fork(after_in_child=lambda: os.read(reading, 1) if hanging else None)
    assert native.survivors([os.getpid()]) == [os.getpid()]
    hanging.clear()
    os.close(reading)
    os.close(writing)

"""The census: what loading an app leaves behind that does not survive a fork, found in this very process."""

import asyncio
import importlib.machinery
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from aserver.config import Config
from aserver.errors import AppLoadError
from aserver.zygote import native
from aserver.zygote.descriptors import make_private
from aserver.zygote.preload import Preloaded, ThreadWatch, preload

# The workers of a parallel run (-n) have threads of their own, which the census of this very process finds.
pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif("PYTEST_XDIST_WORKER" in os.environ, reason="needs a process without xdist's threads: no -n"),
]

APP = "async def app(scope, receive, send):\n    pass\n"


def _load(directory: Path, name: str, code: str, **settings: str) -> Preloaded:
    (directory / f"{name}.py").write_text(code + "\n" + APP)
    return preload(Config(target=f"{name}:app", app_dir=str(directory), **settings))  # type: ignore[arg-type]


def test_a_clean_app_leaves_nothing(tmp_path: Path) -> None:
    loaded = _load(tmp_path, "census_clean", "import json")
    assert loaded.hazards == ()
    assert loaded.app.interface == "asgi"


def test_a_generator_is_named_and_is_no_hazard(tmp_path: Path) -> None:
    """Fails without RandomWatch in `preload`."""
    loaded = _load(tmp_path, "census_dice", "import random\nDICE = random.Random()")
    (remark,) = loaded.remarks
    assert f"{tmp_path}/census_dice.py:2 in <module>: DICE = random.Random()" in remark
    assert loaded.hazards == ()


def test_a_thread_is_named_with_the_users_line(tmp_path: Path) -> None:
    """Not with the library's line that called start(). Fails with the innermost frame for the place."""
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "pool = ThreadPoolExecutor(thread_name_prefix='census')\n"
        "def warm():\n"
        "    return pool.submit(int)\n"
        "warm().result()\n"
    )
    (found,) = _load(tmp_path, "census_thread", code).hazards
    assert found == f"thread 'census_0' started at {tmp_path}/census_thread.py:4 in warm: return pool.submit(int)"
    sys.modules["census_thread"].pool.shutdown()


def test_a_thread_that_has_ended_is_no_hazard(tmp_path: Path) -> None:
    """Though the kernel may still list it right after join(). Fails, one time in a few, without the second look."""
    code = "import threading\nfor _ in range(50):\n    t = threading.Thread(target=int)\n    t.start()\n    t.join()"
    assert _load(tmp_path, "census_ended", code).hazards == ()


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
    assert _load(tmp_path, "census_ends", code).hazards == ()
    assert not sys.modules["census_ends"].ids, "the premise: there was a thread, and it was told to end"


def test_a_native_thread_that_stays_is_a_hazard(tmp_path: Path) -> None:
    """As tokio's. Its name is the process's own and is not told. Fails with all native threads left out."""
    assert _load(tmp_path, "census_stays", STAND_IN).hazards == ("a native thread of an extension module",)
    sys.modules["census_stays"].end()


def test_a_native_thread_that_is_known_is_no_hazard(tmp_path: Path) -> None:
    """jemalloc's. Fails without SAFE_NAMES."""
    code = STAND_IN + "pathlib.Path(f'/proc/self/task/{thread}/comm').write_text('jemalloc_bg_thd')\n"
    assert _load(tmp_path, "census_known", code).hazards == ()
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
    (found,) = _load(tmp_path, "census_brought", code).hazards
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


@pytest.mark.parametrize(
    ("code", "hazard"),
    [
        ("db.execute('create table a (b)')", True),
        ("db.execute('select 1')", True),
        ("db.close()", False),
        ("db.close(); db = sqlite3.connect(':memory:'); db.execute('create table a (b)')", False),
        ("db.execute('create table a (b)'); db.close(); db = open(path, 'r+b', 0)", True),
    ],
    ids=["written", "empty", "closed", "memory", "another driver"],
)
def test_an_open_sqlite_database_is_a_hazard(
    tmp_path: Path, code: str, hazard: bool, request: pytest.FixtureRequest
) -> None:
    """By its file's first bytes, or by Python's connection. Fails without `_is_sqlite` and `_sqlite_connections`."""
    name = f"census_sqlite_{len(code)}_{request.node.name.count('e')}"
    path = tmp_path / "some.db"
    loaded = _load(tmp_path, name, f"import sqlite3\npath = {str(path)!r}\ndb = sqlite3.connect(path)\n{code}")
    assert loaded.hazards == ((f"an open SQLite database, {path}, whose locks a fork loses",) if hazard else ())
    sys.modules[name].db.close()


def test_thread_start_is_put_back() -> None:
    """Also when loading raises. Fails without __exit__'s assignment."""
    original = threading.Thread.start
    with pytest.raises(ZeroDivisionError), ThreadWatch():
        assert 1 / (threading.Thread.start is original)
    assert threading.Thread.start is original


def test_a_connection_is_named_by_its_peer_and_a_listener_is_none(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as peer:
        port = peer.getsockname()[1]
        code = (
            "import socket\n"
            f"connection = socket.create_connection(('127.0.0.1', {port}))\n"
            "unconnected = socket.socket()\n"
            "pair = socket.socketpair()\n"
        )
        (found,) = _load(tmp_path, "census_socket", code).hazards
        assert found.startswith(f"a connected socket to 127.0.0.1:{port} (descriptor ")
        module = sys.modules["census_socket"]
        for each in (module.connection, module.unconnected, *module.pair):
            each.close()


def test_a_loop_that_is_open_is_found_and_a_closed_one_is_not(tmp_path: Path) -> None:
    code = (
        "import asyncio\nloop = asyncio.new_event_loop()\nother = asyncio.new_event_loop()\n"
        "for each in (loop, other):\n    each.run_until_complete(asyncio.sleep(0))\nother.close()"
    )
    loaded = _load(tmp_path, "census_loop", code)
    (found,) = loaded.hazards
    assert "an event loop that was not closed" in found
    assert loaded.unused_loops == ()
    sys.modules["census_loop"].loop.close()


def test_a_loop_that_never_ran_is_no_hazard(tmp_path: Path) -> None:
    """As gradio makes one for a Lock. Fails without LoopWatch.unused, and with a patch of `run_forever` that stays."""
    original = asyncio.BaseEventLoop.run_forever
    code = "import asyncio\nloop = asyncio.new_event_loop()"
    loaded = _load(tmp_path, "census_unused_loop", code)
    loop = sys.modules["census_unused_loop"].loop
    assert loaded.hazards == ()
    assert loaded.unused_loops == (loop,)
    assert asyncio.BaseEventLoop.run_forever is original
    loop.close()


@pytest.mark.parametrize(
    "made",
    ["loop.add_reader(pair[0], print)", "loop = __import__('uvloop').new_event_loop()"],
    ids=["watches", "uvloop"],
)
def test_a_loop_that_cannot_be_made_private_is_a_hazard(tmp_path: Path, made: str) -> None:
    """Fails without the look at what the selector watches, and with uvloop's loops left out of the hazards."""
    name = f"census_loop_{len(made)}"
    code = f"import asyncio, socket\npair = socket.socketpair()\nloop = asyncio.new_event_loop()\nfirst = loop\n{made}"
    loaded = _load(tmp_path, name, code)
    module = sys.modules[name]
    assert any("an event loop that was not closed" in hazard for hazard in loaded.hazards)
    assert module.loop not in loaded.unused_loops
    for each in (module.loop, module.first, *module.pair):
        each.close()


def test_a_loop_made_private_shares_nothing_with_its_copy() -> None:
    """The child's loop runs and wakes itself, and the parent's sees nothing of it.

    Fails without either dup2 in make_private: the parent's poll descriptor reports what the child's loop watches, or
    the child's waking.
    """
    loop: Any = asyncio.new_event_loop()
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(10)  # SIGALRM ends it
            make_private(loop)
            loop.run_until_complete(asyncio.sleep(0))
            theirs.send(b"something to read")
            loop.add_reader(ours, int)
            threading.Thread(target=loop.call_soon_threadsafe, args=(loop.stop,)).start()
            loop.run_forever()  # ends only if it is woken
            loop.call_soon_threadsafe(int)
            theirs.send(b" and done")
            theirs.recv(1)  # until the parent has looked
        finally:
            os._exit(0)
    with ours, theirs:
        theirs.close()  # the end of a child that failed ends the wait
        while (said := ours.recv(100, socket.MSG_PEEK)) and not said.endswith(b"done"):
            pass
        assert loop._selector.select(0) == []
        assert loop._selector._selector.poll(0) == []
        ours.send(b"!")
        assert os.waitpid(pid, 0)[1] == 0
        loop.close()


def test_a_child_process_is_found(tmp_path: Path) -> None:
    code = "import subprocess, sys\nchild = subprocess.Popen(['sleep', '60'])"
    (found,) = _load(tmp_path, "census_child", code).hazards
    child: subprocess.Popen[bytes] = sys.modules["census_child"].child
    assert f"a child process (pid {child.pid})" in found
    child.kill()
    child.wait()


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_preload_warmup_is_called_sync_or_async(tmp_path: Path, kind: str) -> None:
    name = f"warm_{kind.split(maxsplit=1)[0]}"
    code = f"calls = []\n{kind} warm():\n    calls.append(1)\n"
    loaded = _load(tmp_path, name, code, preload_warmup=f"{name}:warm")
    assert sys.modules[name].calls == [1]
    assert loaded.hazards == (), "the loop of the warm-up is gone"


@pytest.mark.parametrize(
    ("hook", "said"),
    [("raises", "preload_warmup warm_bad:raises raised ValueError"), ("number", "is not a function but int")],
)
def test_a_warmup_that_cannot_be_called_is_a_failed_load(tmp_path: Path, hook: str, said: str) -> None:
    code = "number = 5\ndef raises():\n    raise ValueError('cold')\n"
    with pytest.raises(AppLoadError, match=said):
        _load(tmp_path, "warm_bad", code, preload_warmup=f"warm_bad:{hook}")


def test_the_census_starts_nothing_of_its_own(tmp_path: Path) -> None:
    """Not even for an async warm-up: the zygote has one thread and no loop when it forks."""
    code = "import asyncio\nasync def warm():\n    await asyncio.sleep(0)\n"
    before = threading.active_count()
    assert _load(tmp_path, "warm_quiet", code, preload_warmup="warm_quiet:warm").hazards == ()
    assert threading.active_count() == before
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()

"""The census: what loading an app leaves behind that does not survive a fork, found in this very process."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from aserver.errors import AppLoadError
from aserver.zygote.preload import ThreadWatch
from tests.unit.zygote.loads import load

# The workers of a parallel run (-n) have threads of their own, which the census of this very process finds.
pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif("PYTEST_XDIST_WORKER" in os.environ, reason="needs a process without xdist's threads: no -n"),
]


def test_a_clean_app_leaves_nothing(tmp_path: Path) -> None:
    loaded = load(tmp_path, "census_clean", "import json")
    assert loaded.hazards == ()
    assert loaded.app.interface == "asgi"


def test_a_generator_is_named_and_is_no_hazard(tmp_path: Path) -> None:
    """Fails without RandomWatch in `preload`."""
    loaded = load(tmp_path, "census_dice", "import random\nDICE = random.Random()")
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
    (found,) = load(tmp_path, "census_thread", code).hazards
    assert found == f"thread 'census_0' started at {tmp_path}/census_thread.py:4 in warm: return pool.submit(int)"
    sys.modules["census_thread"].pool.shutdown()


def test_a_thread_that_has_ended_is_no_hazard(tmp_path: Path) -> None:
    """Though the kernel may still list it right after join(). Fails, one time in a few, without the second look."""
    code = "import threading\nfor _ in range(50):\n    t = threading.Thread(target=int)\n    t.start()\n    t.join()"
    assert load(tmp_path, "census_ended", code).hazards == ()


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
    loaded = load(tmp_path, name, f"import sqlite3\npath = {str(path)!r}\ndb = sqlite3.connect(path)\n{code}")
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
        (found,) = load(tmp_path, "census_socket", code).hazards
        assert found.startswith(f"a connected socket to 127.0.0.1:{port} (descriptor ")
        module = sys.modules["census_socket"]
        for each in (module.connection, module.unconnected, *module.pair):
            each.close()


def test_a_child_process_is_found(tmp_path: Path) -> None:
    code = "import subprocess, sys\nchild = subprocess.Popen(['sleep', '60'])"
    (found,) = load(tmp_path, "census_child", code).hazards
    child: subprocess.Popen[bytes] = sys.modules["census_child"].child
    assert f"a child process (pid {child.pid})" in found
    child.kill()
    child.wait()


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_preload_warmup_is_called_sync_or_async(tmp_path: Path, kind: str) -> None:
    name = f"warm_{kind.split(maxsplit=1)[0]}"
    code = f"calls = []\n{kind} warm():\n    calls.append(1)\n"
    loaded = load(tmp_path, name, code, preload_warmup=[f"{name}:warm"])
    assert sys.modules[name].calls == [1]
    assert loaded.hazards == (), "the loop of the warm-up is gone"


@pytest.mark.parametrize(
    ("hook", "said"),
    [("raises", "preload_warmup warm_bad:raises raised ValueError"), ("number", "is not a function but int")],
)
def test_a_warmup_that_cannot_be_called_is_a_failedload(tmp_path: Path, hook: str, said: str) -> None:
    code = "number = 5\ndef raises():\n    raise ValueError('cold')\n"
    with pytest.raises(AppLoadError, match=said):
        load(tmp_path, "warm_bad", code, preload_warmup=[f"warm_bad:{hook}"])


def test_the_census_starts_nothing_of_its_own(tmp_path: Path) -> None:
    """Not even for an async warm-up: the zygote has one thread and no loop when it forks."""
    code = "import asyncio\nasync def warm():\n    await asyncio.sleep(0)\n"
    before = threading.active_count()
    assert load(tmp_path, "warm_quiet", code, preload_warmup=["warm_quiet:warm"]).hazards == ()
    assert threading.active_count() == before
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


ASKED = (
    "calls = []\n"
    "async def app(scope, receive, send):\n"
    "    calls.append((scope['method'], scope['path'], scope['query_string'], await receive()))\n"
    "    if scope['path'] == '/raises':\n"
    "        raise ValueError('cold')\n"
    "    if scope['path'] != '/nothing':\n"
    "        await send({'type': 'http.response.start', 'status': int(scope['path'][1:]), 'headers': []})\n"
    "        await send({'type': 'http.response.body'})\n"
)


def test_requests_run_through_the_app_before_the_fork(tmp_path: Path) -> None:
    """In the order of the setting, and without a loop or a hazard left. Fails without `_ask`."""
    loaded = load(tmp_path, "warm_asked", ASKED, preload_warmup=["GET /200?a=b", "HEAD /204"])
    body = {"type": "http.request", "body": b"", "more_body": False}
    assert sys.modules["warm_asked"].calls == [("GET", "/200", b"a=b", body), ("HEAD", "/204", b"", body)]
    assert (loaded.hazards, loaded.remarks) == ((), ())


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("/500", "was answered 500"),
        ("/404", "was answered 404"),
        ("/nothing", "was not answered"),
        ("/raises", "raised ValueError('cold')"),
    ],
)
def test_a_request_without_a_good_answer_is_told_and_no_more(tmp_path: Path, target: str, said: str) -> None:
    """It may need what lifespan startup makes. Fails without the except, and where the status is not looked at."""
    (remark,) = load(tmp_path, "warm_cold", ASKED, preload_warmup=[f"GET {target}"]).remarks
    assert remark.startswith(f"preload_warmup GET {target} {said}; the workers start all the same")


def test_a_request_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails without asyncio.timeout: the start hangs."""
    monkeypatch.setattr("aserver.importer.warmup.PATIENCE", 0.01)
    code = "import asyncio\nasync def app(scope, receive, send):\n    await asyncio.Event().wait()\n"
    (remark,) = load(tmp_path, "warm_hangs", code, preload_warmup=["GET /"]).remarks
    assert "was not answered within 0.01 s" in remark


def test_what_a_request_leaves_is_found_by_the_census(tmp_path: Path) -> None:
    """A thread that it starts. Fails where requests run after the census, or outside of the watches."""
    code = ASKED.replace("    calls", "    threading.Thread(target=gate.wait, daemon=True).start()\n    calls")
    code = f"import threading\ngate = threading.Event()\n{code}"
    (found,) = load(tmp_path, "warm_thread", code, preload_warmup=["GET /200"]).hazards
    sys.modules["warm_thread"].gate.set()
    assert "warm_thread.py:5 in app" in found


def test_requests_are_not_for_wsgi(tmp_path: Path) -> None:
    """Its threads would not survive the fork. Fails without the look at `wsgi`."""
    code = "def app(environ, start_response):\n    return []\n"
    with pytest.raises(AppLoadError, match="preload_warmup GET /: a WSGI application is warmed up by a function alone"):
        load(tmp_path, "warm_wsgi", code, preload_warmup=["GET /"])

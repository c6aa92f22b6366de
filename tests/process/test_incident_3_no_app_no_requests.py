"""Incident 3: a worker that could not load the app went on serving without it, with 500s, for hours.

uWSGI with lazy-apps: memory was short when one worker was restarted; the import failed; a quarter of all requests got
`no python application found`. Each docstring says how the test was seen to fail.
"""

import re
from pathlib import Path

import pytest

from tests.harness import Load
from tests.process.rolling import Start, ready_pids

pytestmark = pytest.mark.process

APP = """
import os

if os.path.exists(os.environ["MEMORY_IS_SHORT"]):
    raise MemoryError("while Django was imported")

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        if os.path.exists(os.environ["MEMORY_IS_SHORT"] + "-in-lifespan"):
            raise MemoryError("while the cache was filled")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""


@pytest.mark.parametrize("stage", ["at import", "in lifespan"])
def test_incident_3_a_worker_without_its_app_gets_no_request(server: Start, stage: str, tmp_path: Path) -> None:
    """One of four is killed and cannot be replaced: three serve, the pauses grow, a due recycle is put off; when
    memory is back the fourth is.

    Fails with ready() before load_app or before lifespan.startup (500s, or connections that nobody answers), without
    the pause in BackOff.boot_failed (one attempt after the other), and without the
    conditions of the drain in reconcile._replace_outgoing (due workers leave).
    """
    (tmp_path / "site_app.py").write_text(APP)
    short = tmp_path / "short"
    blocks = short if stage == "at import" else Path(f"{short}-in-lifespan")
    env = {"MEMORY_IS_SHORT": str(short)}
    limits = ("--max-requests", "400", "--min-lifetime", "0", "--lifespan", "on", "--no-access-log")
    options = ("--workers", "4", "--lazy", "--app-dir", str(tmp_path), *limits)
    running = server("site_app:app", *options, env=env)
    blocks.touch()
    victim = running.workers()[0]
    victim.kill()
    running.wait_log(f"pid {victim.pid}\\) was killed by SIGKILL")
    survivors = {each.pid for each in running.workers()} & set(ready_pids(running))
    with Load(running.where, keep_alive=False, connections=8, pause=0.002) as load:
        attempts = running.wait_log(r"could not boot: .*; 3 of 4 workers serve, attempt \d in ([\d.]+) s", count=3)
        running.wait_log("is due: ", count=2)
        running.wait_log(r"MemoryError: while")
        load.wait_for_more(100)
        assert survivors <= {each.pid for each in running.workers()}, "a due recycle is put off"
        blocks.unlink()
        running.wait_for(lambda: len(ready_pids(running)) >= 5, what="the fourth worker")
        load.wait_for_more(100)
    load.outcome.check(at_least=500)
    pauses = [float(each[1]) for each in attempts]
    assert pauses[2] > pauses[0] * 1.01, f"they grow: {pauses}"
    assert running.stop() == 0


@pytest.mark.parametrize(("stage", "code"), [("at import", 4), ("in lifespan", 3)])
def test_incident_3_a_first_start_without_any_worker_ends_with_its_own_code(
    server: Start, stage: str, code: int, tmp_path: Path
) -> None:
    """And the traceback comes last. Fails with exit code 0 or 1, and with the reason before the traceback alone."""
    (tmp_path / "site_app.py").write_text(APP)
    short = tmp_path / "short"
    (short if stage == "at import" else Path(f"{short}-in-lifespan")).touch()
    options = ("--workers", "2", "--lazy", "--app-dir", str(tmp_path), "--boot-retries", "2", "--lifespan", "on")
    running = server("site_app:app", *options, env={"MEMORY_IS_SHORT": str(short)}, ready=False)
    assert running.wait_exit() == code
    last = running.log.splitlines()[-12:]
    assert any(re.search(r"MemoryError: while", line) for line in last), last
    assert any("site_app.py" in line for line in last), last
    assert any(line.startswith("aserver: error: ") for line in last), last

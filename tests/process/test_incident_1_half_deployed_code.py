"""Incident 1: new code is copied over the old without a restart, and a recycled worker imports half of it.

gunicorn: the replacement raised AttributeError at import, the master halted in the middle of reaping, and a healthy
service of 28 days was down. Each docstring says how the test was seen to fail.
"""

import re
import signal
from pathlib import Path

import pytest

from tests.harness import Load
from tests.process.rolling import Start, ready_pids, settle

pytestmark = pytest.mark.process

APP = """
import config

REGION = config.{name}.encode()

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({{"type": "lifespan.startup.complete"}})
        await receive()
        await send({{"type": "lifespan.shutdown.complete"}})
        return
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(REGION))]}})
    await send({{"type": "http.response.body", "body": REGION}})
"""
ERROR = "AttributeError: module 'config' has no attribute 'APP_RUNNING_REGION'"


@pytest.mark.parametrize("mode", ["--preload", "--lazy"])
def test_incident_1_a_recycled_worker_never_takes_the_service_down(server: Start, mode: str, tmp_path: Path) -> None:
    """The app's new file is there, config.py's is not yet; workers reach their limit; then the deploy is completed.

    Preload: the replacement comes from the loaded image, and the log names the changed file. Lazy: the replacement
    cannot boot, the old worker serves past its limit, the traceback is whole. A reload with half the code changes
    nothing either. No request fails from the beginning to the end.

    Fails, preload: with an import in each worker after all (lazy=True in rollout.begin: no replacement). Lazy: without
    the conditions of the drain in reconcile._replace_outgoing (the old workers go, requests fail), and
    with rollout.give_up in boot_failed for the current generation (the master ends, as gunicorn's did).
    """
    (tmp_path / "site_app.py").write_text(APP.format(name="REGION"))
    (tmp_path / "config.py").write_text("REGION = 'eu-1'\n")
    limits = ("--workers", "2", "--max-requests", "150", "--min-lifetime", "0", "--no-access-log", "--lifespan", "on")
    env = {"PYTHONDONTWRITEBYTECODE": "1"}
    running = server("site_app:app", "--app-dir", str(tmp_path), *limits, mode, env=env)
    with Load(running.where, connections=8) as load:
        (tmp_path / "site_app.py").write_text(APP.format(name="APP_RUNNING_REGION"))
        if mode == "--preload":
            running.wait_log("has left after", count=4)
            running.wait_log(rf"{re.escape(str(tmp_path))}/site_app\.py changed on disk .*: a reload is due")
        else:
            running.wait_log(r"is due: \d+ requests served")
            running.wait_log(r"worker \d \(.*\) could not boot: .*site_app.*; 2 of 2 workers serve, attempt \d in")
            running.wait_log(re.escape(ERROR))
            load.wait_for_more(300)
            assert "has left after" not in running.log, "past its limit, and serving"
        running.signal(signal.SIGHUP)
        running.wait_log(r"reload failed: generation 2: .*site_app.*; generation 1 stays \(2 of 2 workers serve\)")
        running.wait_log(re.escape(ERROR))
        assert 'site_app.py", line 4, in <module>' in running.log
        load.wait_for_more(100)
        assert set(load.outcome.bodies) == {b"eu-1"}
        (tmp_path / "config.py").write_text("APP_RUNNING_REGION = 'eu-2'\n")
        running.signal(signal.SIGHUP)
        running.wait_log("generation 3 serves")
        running.wait_for(lambda: b"eu-2" in load.outcome.bodies, what="the new code")
    load.outcome.check(at_least=500)
    assert ready_pids(running, 3)
    settle(running, 2)
    assert running.stop() == 0

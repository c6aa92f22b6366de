"""The configuration files of incidents 4 and 5 as gunicorn took them, typos included, under the real command.

Each docstring says how the test was seen to fail.
"""

import re
import signal
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.harness import fetch
from tests.process.rolling import Start

pytestmark = pytest.mark.process

BOTTLE_APP = """
import os
import bottle

app = bottle.Bottle()


@app.route("/")
def index():
    return str(os.getpid())
"""

BOTTLE_FILE = """
bind = 'unix:{socket}'
backlog = 2048
workers = 5
threads = 5
worker_class = 'sync'
worker_connections = 1000
timeout = 30
keepalive = 2
max_requests = 512
spew = False
daemon = False
pidfile = None
umask = 0
user = None
group = None
tmp_upload_dir = None
errorlog = '-'
loglevel = 'info'
accesslog = '-'
access_log_format = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'
proc_name = None


def post_fork(server, worker):
    server.log.info("Worker spawned (pid: %s)", worker.pid)


def pre_fork(server, worker):
    pass


def pre_exec(server):
    server.log.info("Forked child, re-executing.")


def when_ready(server):
    server.log.info("Server is ready. Spawning workers on %s, %s threads", server.address, server.cfg.threads)


def worker_int(worker):
    worker.log.info("worker received INT or QUIT signal")
    import threading, sys, traceback
    id2name = {{th.ident: th.name for th in threading.enumerate()}}
    code = []
    for threadId, stack in sys._current_frames().items():
        code.append("\\n# Thread: %s(%d)" % (id2name.get(threadId, ""), threadId))
        for filename, lineno, name, line in traceback.extract_stack(stack):
            code.append('File: "%s", line %d, in %s' % (filename, lineno, name))
    worker.log.debug("\\n".join(code))


def worker_abort(worker):
    worker.log.info("worker received SIGABRT signal")
"""


def test_the_file_of_incident_4_runs_as_it_stands(server: Start, tmp_path: Path) -> None:
    """`-c config.py web:app`, a bottle app, five workers on a unix socket, hooks that log by `server.log`.

    Fails without the table (threads, worker_class and worker_connections are errors), and without `server.address`
    or `server.cfg.threads` (hook when_ready raises).
    """
    (tmp_path / "web.py").write_text(BOTTLE_APP)
    socket = tmp_path / "web.sock"
    (tmp_path / "config.py").write_text(BOTTLE_FILE.format(socket=socket))
    running = server("web:app", "-c", "config.py", bind=(), cwd=tmp_path)
    assert fetch(str(socket)).status == 200
    assert len(running.workers()) == 5
    running.wait_log(r"Worker spawned \(pid: \d+\)", count=5)
    running.wait_log(re.escape(f"Server is ready. Spawning workers on ['{socket}'], 5 threads"))
    log = running.log
    assert "hook worker_int does nothing" in log
    assert " raised; " not in log
    for name in ("spew", "daemon", "tmp_upload_dir", "threads"):
        assert f", {name}:" not in log, "it asks for nothing"
    running.signal(signal.SIGHUP)
    running.wait_log("generation 2 serves")
    assert fetch(str(socket)).status == 200
    assert running.stop() == 0


FLASK_APP = """
import os
from multiprocessing.pool import ThreadPool
from flask import Flask

app = Flask(__name__)
pool = ThreadPool(processes=1)


@app.route("/")
def index():
    return pool.apply_async(lambda: os.environ["CONFIG_ENV"]).get(timeout=5)
"""

FLASK_FILE = """
bind = ":8000"
workers = 2
max_requests = 50000
max_requests_jitter = 2
timeout = 70
graceful_timeout = 30
limit_request_line = 8190
limit_request_fields = 200
limit_request_fields_size = 8190
pidfile = "gunicorn.pid"
pythonpath = "/srv/no/such/folder"
accesslog = "access.log"
errorlog = "error.log"
loglevel = 'debug'
access_log_format = '%(t)s %(p)s %(h)s "%(r)s" %(s)s %(L)s %(b)s %(f)s" "%(a)s"'
daemon = False
raw_env = "CONFIG_ENV=uat"
capture_output = True
work_class = "sync"
"""


@pytest.mark.parametrize("discovered", [False, True])
def test_the_file_of_incident_5_runs_as_it_stands(server: Start, tmp_path: Path, *, discovered: bool) -> None:
    """`--preload -c gunicorn.conf.py flask_demo:app`, Flask, a ThreadPool made at import, two typos; also unasked.

    The command line's port is 0 in place of the file's 8000. Fails with an error for `work_class`, without the split
    of `raw_env`, and with an app_dir that has to be a directory.
    """
    (tmp_path / "flask_demo.py").write_text(FLASK_APP)
    (tmp_path / "gunicorn.conf.py").write_text(FLASK_FILE)
    named = () if discovered else ("-c", "gunicorn.conf.py")
    running = server("flask_demo:app", "--preload", *named, cwd=tmp_path, ready=False)
    error = tmp_path / "error.log"

    def address() -> tuple[str, int] | None:
        text = error.read_text() if error.exists() else ""
        found = re.search(r"http://127\.0\.0\.1:(\d+)", text)
        return ("127.0.0.1", int(found[1])) if found and "workers are ready" in text else None

    where = running.wait_for(address, what="the error log to tell of ready workers")
    assert where is not None
    assert fetch(where).body == b"uat"
    log = error.read_text()
    assert "work_class (gunicorn.conf.py line 20) is no setting and is not used, as in gunicorn; did you mean" in log
    assert "limit_request_fields_size (gunicorn.conf.py line 10) is no setting" in log
    assert "/srv/no/such/folder, which is not a directory" in log
    assert ("gunicorn.conf.py was found in" in log) == discovered
    assert (tmp_path / "gunicorn.pid").read_text().strip() == str(running.pid)
    assert running.stop() == 0
    assert '"GET / HTTP/1.1" 200' in (tmp_path / "access.log").read_text()


HOOKS = dedent(
    """
    def on_starting(server):
        server.log.info("S %s %s %s", server.address, server.cfg.worker_class, server.cfg.proc_name)

    def pre_fork(server, worker):
        server.log.warning("F %s %s", worker.age, worker)

    def post_fork(server, worker):
        worker.log.error("P %s %s %s %s", worker.pid, worker.ppid == server.pid, worker.alive, worker.cfg.timeout)
        worker.log.access_log.name, worker.log.error_log.name
        server.cfg.no_such_setting

    worker_class = "gthread"
    proc_name = "shop"
    timeout = 40
    """
)


def test_hooks_get_objects_with_gunicorns_attributes(server: Start, tmp_path: Path) -> None:
    """Names of gunicorn's in `cfg`, also those that are no settings here. Fails without SettingsView."""
    (tmp_path / "conf.py").write_text(HOOKS)
    running = server("tests.apps.raw:app", "-c", str(tmp_path / "conf.py"))
    (worker,) = running.workers()
    running.wait_log(r"S \[\('127.0.0.1', 0\)\] gthread shop")
    running.wait_log(r"F 1 <Worker None>")
    running.wait_log(rf"P {worker.pid} True True 40\b")
    running.wait_log(r"AttributeError: cfg\.no_such_setting: neither aserver nor gunicorn has a setting")
    assert running.stop() == 0


LOG_FILE = """
logconfig_dict = {
    "root": {"level": "INFO", "handlers": ["console"]},
    "formatters": {"generic": {"format": "MINE %(name)s %(message)s"}},
}
"""


def test_the_command_as_other_servers_users_type_it(server: Start, tmp_path: Path) -> None:
    """Without `run`, flags before the target, GUNICORN_CMD_ARGS, $PORT, a logconfig_dict: real requests are answered.

    Fails without `parse_args`, and with the dict taken for a file's name. By the dict the access log goes to the
    console, and each line once.
    """
    (tmp_path / "gunicorn.conf.py").write_text(LOG_FILE)
    command = [sys.executable, "-m", "aserver", "-k", "gthread", "-t", "20", "--access-log", "tests.apps.raw:app"]
    env = {"PORT": "0", "GUNICORN_CMD_ARGS": "--workers 2 --name shop"}
    running = server(argv=command, env=env, cwd=tmp_path)
    assert len(running.workers()) == 2
    running.wait_log(r"MINE aserver\.\S+ .*http://0\.0\.0\.0:\d+")
    assert running.fetch("/").status == 200
    running.wait_log(r"MINE aserver\.access .*GET / ")
    assert running.stop() == 0
    assert len(re.findall("MINE aserver\\.access ", running.log)) == 1
    assert "$GUNICORN_CMD_ARGS is read: workers, proc_name" in running.log

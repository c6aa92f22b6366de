"""deploy/logrotate.conf, run by logrotate itself."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.harness import ServerProcess, fetch
from tests.harness.server import REPOSITORY, addresses_in
from tests.harness.tools import require_tool

pytestmark = [pytest.mark.process, pytest.mark.external]


def test_the_rule_opens_the_logs_again(tmp_path: Path) -> None:
    """The next line is in the new file, and none is in the old one. Fails without the rule's signal."""
    logrotate = require_tool("logrotate")
    logs, pidfile = tmp_path / "logs", tmp_path / "pid"
    logs.mkdir(mode=0o755)  # logrotate refuses a folder in which others may write
    rule = (REPOSITORY / "deploy" / "logrotate.conf").read_text("utf-8")
    places = {"/var/log/aserver": str(logs), "/run/aserver/aserver.pid": str(pidfile)}
    for place, own in places.items():
        assert place in rule
        rule = rule.replace(place, own)
    conf = tmp_path / "rule.conf"
    conf.write_text(rule, "utf-8")
    conf.chmod(0o644)
    access, error = logs / "access.log", logs / "error.log"
    options = ("--accesslog", str(access), "--errorlog", str(error), "--pidfile", str(pidfile))
    with ServerProcess("aserver.command.demo:app", *options) as server:
        server.wait_for(
            lambda: error.exists() and "worker is ready" in error.read_text(), what="the server to be ready"
        )
        where = addresses_in(error.read_text())[0].where
        assert fetch(where, "/hello").status == 200
        server.wait_for(lambda: "/hello" in access.read_text(), what="the first line")
        done = subprocess.run(
            [logrotate, "--force", "--state", str(tmp_path / "state"), str(conf)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        server.wait_for(lambda: error.exists() and "logs reopened" in error.read_text(), what="the new error log")
        assert fetch(where, "/hello").status == 200
        server.wait_for(lambda: "/hello" in access.read_text(), what="the line in the new file")
    assert (logs / "access.log.1").read_text().count("/hello") == 1

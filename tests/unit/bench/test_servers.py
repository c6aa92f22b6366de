"""Servers are started and stopped, with failures that say why and nothing left behind; and the table of servers."""

import os
import signal
import sys
import tomllib
from pathlib import Path

import pytest

from bench import meter, servers
from bench.environment import CHECKOUT, Environment, locate
from bench.machine import Processors
from bench.scenarios import SCENARIOS
from bench.scenarios.contract import Stage
from bench.servers import Launch, Role, Running, Server, Starter, StartError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the benches read /proc")

ANSWER = """
import http.server, subprocess, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", "2"); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *args): pass
if "orphan" in sys.argv:
    subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"])
http.server.HTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""


@pytest.fixture
def starter(tmp_path: Path) -> Starter:
    cpus = frozenset(os.sched_getaffinity(0))
    return Starter(Environment(Path(sys.prefix)), Processors(cpus, cpus), tmp_path)


def server(tmp_path: Path, text: str, *more: str) -> Server:
    script = tmp_path / "server.py"
    script.write_text(text)
    command = f"{{python}} {script} {{host}} {{port}} {' '.join(more)}"
    options = {"tcp": "", "no_access_log": ""}
    return Server("own", Role.PEER, "own", "own", command, options, {}, {}, signal.SIGHUP, single=True)


def test_a_server_is_ready_at_its_first_answer_and_gone_after_the_block(starter: Starter, tmp_path: Path) -> None:
    with starter.start(server(tmp_path, ANSWER), Launch("app")) as running:
        assert running.wait_ready("/") > 0
        assert running.address.exchange("/") == (200, b"ok")
        assert _alive(running)
    assert not _alive(running)


def test_what_ignores_sigterm_is_killed_with_the_tree(starter: Starter, tmp_path: Path) -> None:
    with starter.start(server(tmp_path, ANSWER, "orphan"), Launch("app")) as running:
        running.wait_ready("/")
        assert len(_alive(running)) == 2
        assert not running.stop()
    assert not _alive(running)


def test_a_server_that_ends_at_once_says_what_it_wrote(starter: Starter, tmp_path: Path) -> None:
    with (
        starter.start(server(tmp_path, "raise SystemExit('no such app')"), Launch("app")) as running,
        pytest.raises(StartError, match="ended with status 1: no such app"),
    ):
        running.wait_ready("/")


def test_a_server_that_never_answers_is_given_up(
    starter: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "READY_SECONDS", 0.3)
    text = "print('thinking', flush=True)\nimport time\ntime.sleep(60)"
    with (
        starter.start(server(tmp_path, text), Launch("app")) as running,
        pytest.raises(StartError, match="no 200 within"),
    ):
        running.wait_ready("/")
    assert not _alive(running)


def test_the_environment_of_the_caller_is_not_measured(
    starter: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "7")
    text = "import os; raise SystemExit('WEB_CONCURRENCY=' + os.environ.get('WEB_CONCURRENCY', 'unset'))"
    with (
        starter.start(server(tmp_path, text), Launch("app")) as running,
        pytest.raises(StartError, match="WEB_CONCURRENCY=unset"),
    ):
        running.wait_ready("/")


def _alive(running: Running) -> list[int]:
    return [stat.pid for stat in meter.tree(running.pid) if stat.state != "Z"]


# ── servers.toml ─────────────────────────────────────────────────────────────────────────────


def test_every_server_makes_a_command_line_for_every_scenario_it_does_not_refuse(tmp_path: Path) -> None:
    keys = ("python", "bin", "here", "app", "answer", "host", "port", "uds", "workers", "certfile", "keyfile")
    values = {key: f"<{key}>" for key in (*keys, "access_log", "max_requests")}
    stage = Stage(locate("python3"), frozenset({0}), tmp_path, 1)
    for server in servers.read().values():
        for scenario in SCENARIOS.values():
            launch = scenario.launch(stage)
            if server.refusal(scenario.name, launch) is None:
                words = server.arguments(launch, values)
                assert all("{" not in word for word in words)
                wanted = "<app>" if server.role is not Role.LIMIT else "<answer>"
                assert any(wanted in word for word in words)
                assert any(("<uds>" if launch.unix else "<port>") in word for word in words)


def test_the_subject_is_compiled_beside_it_stands_its_source_and_there_is_one_limit() -> None:
    roles = {server.name: server.role for server in servers.read().values()}
    assert [name for name in roles if roles[name] is Role.SUBJECT] == ["aserver", "aserver-pure"]
    assert list(roles.values()).count(Role.LIMIT) == 1


def test_a_server_without_an_option_refuses_what_needs_it() -> None:
    known = servers.read()
    assert known["daphne"].refusal("steady", Launch("who:app", workers=2)) == "one process only"
    assert "max_requests" in str(known["granian"].refusal("other", Launch("who:app", workers=2, max_requests=9)))
    assert known["limit"].refusal("fastapi", Launch("fast:app")) is not None
    assert (
        known["uvicorn-httptools"].refusal("memory-preload", Launch("heavy:app", workers=4, loading="preload")) is None
    )


def test_an_unknown_key_in_the_table_is_named(tmp_path: Path) -> None:
    file = tmp_path / "servers.toml"
    file.write_text('[x]\nrole="peer"\nmodule="x"\ndistribution="x"\ncommand="x"\ncolour="red"\n')
    with pytest.raises(ValueError, match=r"\[x\] has unknown keys: colour"):
        servers.read(file)


def test_aserver_is_looked_for_under_its_distributions_name() -> None:
    """Fails with another name: in a fresh clone no version is found, and `bench run` measures the peers alone."""
    ours = [each for each in servers.read().values() if each.name.startswith("aserver")]
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert {each.distribution for each in ours} == {project["name"]}

"""What the benches read: wrk's output, the kernel's accounting, servers.toml; and how CPUs are shared out."""

from pathlib import Path

import pytest

from bench import machine, meter, servers
from bench.environment import locate
from bench.load import wrk
from bench.meter import Stat
from bench.rounds import fit, plan
from bench.scenarios import SCENARIOS
from bench.scenarios.contract import Stage
from bench.servers import Launch, Role

WRK = """Running 2s test @ http://127.0.0.1:8000/
  1 threads and 64 connections
    5000 requests in 2.00s, 1.00MB read
BENCH {"requests": 5000, "microseconds": 2000000, "bytes": 1048576, "p50": 950.0, "p99": 2100.0, "p999": 4000.0, \
"max": 9000.0, "errors": {"connect": 0, "read": 3, "write": 0, "status": 2, "timeout": 0}}
"""


def test_wrk_results_are_read_in_seconds_and_milliseconds_and_keep_only_errors_that_happened() -> None:
    result = wrk.parse(WRK)
    assert (result.requests, result.seconds, result.p50, result.p99, result.p999) == (5000, 2.0, 0.95, 2.1, 4.0)
    assert result.errors == {"read": 3, "status": 2}


def test_wrk_without_a_result_says_what_it_printed_instead() -> None:
    with pytest.raises(wrk.WrkError, match="unable to connect"):
        wrk.parse("unable to connect to 127.0.0.1:1 Connection refused")


def test_the_script_prints_what_the_parser_reads() -> None:
    script = wrk.SCRIPT.read_text()
    for key in ("requests", "microseconds", "bytes", "p50", "p99", "p999", "max", "errors"):
        assert f'"{key}"' in script


def test_stat_is_read_past_a_command_name_with_brackets_and_spaces() -> None:
    fields = ["S", "7", "12", "12"] + ["0"] * 7 + ["100", "50", "30", "20"] + ["0"] * 30
    assert meter.parse_stat(f"12 (a) (b c) {' '.join(fields)}", ticks=100) == Stat(12, "S", 7, 12, 2.0)


def test_the_tree_holds_descendants_and_orphans_of_the_session_and_nobody_else() -> None:
    root, child, grandchild = Stat(10, "S", 1, 10, 0), Stat(11, "S", 10, 10, 0), Stat(12, "S", 11, 12, 0)
    orphan, stranger = Stat(13, "S", 1, 10, 0), Stat(14, "S", 1, 14, 0)
    picked = meter.select_tree([stranger, orphan, grandchild, child, root], 10)
    assert [stat.pid for stat in picked] == [10, 11, 12, 13]


def test_our_own_tree_is_found_and_has_used_cpu_time() -> None:
    import os

    assert os.getpid() in {stat.pid for stat in meter.tree(os.getpid())}
    assert meter.cpu_seconds(os.getpid()) > 0


def test_memory_is_read_in_bytes() -> None:
    text = "5574-7ffc ---p 00000000 00:00 0    [rollup]\nRss:      100 kB\nPss:       40 kB\nPrivate_Dirty: 8 kB\n"
    assert meter.parse_rollup(text) == {"Rss": 102400, "Pss": 40960, "Private_Dirty": 8192}


@pytest.mark.parametrize(
    ("usable", "workers", "server", "load"),
    [
        ({0}, 1, {0}, {0}),
        ({0, 1}, 1, {0}, {1}),
        ({0, 1}, 4, {0}, {1}),
        ({2, 3, 5, 7}, 2, {2, 3}, {5, 7}),
    ],
)
def test_cpus_are_shared_out(usable: set[int], workers: int, server: set[int], load: set[int]) -> None:
    shared = machine.share_out(usable, workers)
    assert (set(shared.server), set(shared.load)) == (server, load)
    assert shared.shared == (server == load)


def test_a_missing_tool_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.machine.shutil.which", lambda *_args, **_kwargs: None)
    with pytest.raises(machine.MissingToolError, match=r"nginx is not installed .*apt-get install nginx-light"):
        machine.tool("nginx")


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


def test_a_quick_plan_gives_up_rounds_and_seconds_until_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.rounds.tool", lambda name: name)
    stage = Stage(locate("python3"), frozenset({0, 1}), tmp_path, 5)
    chosen = list(servers.read().values())
    versions = {server.module: "1" for server in chosen}
    hello = [SCENARIOS["hello"]]
    roomy = fit(stage, hello, chosen, versions, 1000)
    tight = fit(stage, hello, chosen, versions, 140)
    assert roomy.rounds > tight.rounds
    assert tight.seconds <= 140 < plan(stage, 5, hello, chosen, versions).seconds


def test_a_server_that_is_not_installed_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.rounds.tool", lambda name: name)
    stage = Stage(locate("python3"), frozenset({0, 1}), tmp_path, 1)
    made = plan(stage, 1, [SCENARIOS["hello"]], [servers.read()["granian"]], {})
    assert made.refused == {"hello": {"granian": "granian is not installed"}}
    assert made.servers == {"hello": []}

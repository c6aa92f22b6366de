"""How CPUs are shared out, and tools that are missing."""

import pytest

from bench import machine


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

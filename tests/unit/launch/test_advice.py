"""What the start warns of, and that a plain start says nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from aserver import cgroups, unix
from aserver.config import Config, layers
from aserver.launch.advice import advise

SYSTEMD = {"INVOCATION_ID": "0123456789abcdef"}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two CPUs and 1 GB."""
    monkeypatch.setattr(unix, "usable_cpus", lambda: 2)
    monkeypatch.setattr(cgroups, "memory_limit", lambda: 1 << 30)


def advised(workers: int = 1, fd_limit: int = 4096, environ: Mapping[str, str] | None = None, **settings: Any) -> str:
    keywords = {"target": "x:app", **settings}
    config: Config = layers.load(keywords=keywords, environ={}, cwd=Path("/")).config
    return "\n".join(advise(config, workers, environ=environ or {}, fd_limit=fd_limit))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"workers": 8},
        {"environ": SYSTEMD},
        {"bind": ("[::1]:80", "localhost:81", "127.0.0.2:82", "unix:/x", "fd://3")},
        {"max_memory": 1 << 29, "workers": 2},
        {"graceful_timeout": 300.0},
        {"bind": ("unix:/x",), "umask": 0o7, "group": "www-data"},
        {"bind": ("unix:/x",), "uds_mode": 0o600, "uds_owner": "www-data"},
    ],
)
def test_what_is_plain_is_silent(settings: dict[str, Any]) -> None:
    assert advised(**settings) == ""


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"graceful_timeout": 85.0, "environ": SYSTEMD}, "make 95 s, but systemd kills after 90 s"),
        ({"workers": 9}, "9 workers share 2 usable CPUs"),
        ({"max_memory": 1 << 29, "workers": 3}, "above the cgroup's limit of 1073741824 bytes"),
        ({"bind": ("0.0.0.0:80",)}, "limit_request_body is 0"),
        ({"bind": ("[::]:80",)}, "limit_request_body is 0"),
        ({"bind": ("http://example.org:80",)}, "limit_request_body is 0"),
        ({"fd_limit": 256}, "the limit of open descriptors is 256, below 1024"),
        ({"limit_connections": 5000}, "4096, below 5100"),
        ({"environ": {"SCRIPT_NAME": "/x"}}, "SCRIPT_NAME in the environment is not read"),
        ({"bind": ("unix:/x",), "umask": 0o77}, "unix:/x has mode 0700, so only uid"),
        ({"bind": ("unix:/x",), "uds_mode": 0o660, "user": "app", "group": "0"}, "so only app may connect"),
    ],
)
def test_a_likely_mistake_is_one_line(settings: dict[str, Any], text: str) -> None:
    said = advised(**settings)
    assert text in said
    assert "\n" not in said


def test_a_limit_of_the_body_silences() -> None:
    assert advised(bind=("0.0.0.0:80",), limit_request_body=1 << 20) == ""


def test_a_directory_that_shuts_out_the_proxy_is_named(tmp_path: Path) -> None:
    """Fails without the look at the directories above the socket: its own mode says nothing."""
    (tmp_path / "run").mkdir()
    for mode, told in ((0o700, True), (0o755, False)):
        (tmp_path / "run").chmod(mode)
        config = Config(bind=(f"unix:{tmp_path}/run/app.sock",))
        said = [each for each in advise(config, 1, environ={}, fd_limit=1 << 20) if f"{tmp_path}/run has mode" in each]
        assert bool(said) == told

"""Layers become one checked Config: names, origins, addresses, and the guess at a misspelt name."""

import msgspec
import pytest

from aserver.config import Config, Layer, build
from aserver.config.schema import LARGEST
from aserver.errors import ConfigError
from tests.unit.config.built import one, refused


def test_the_largest_numbers_go_from_process_to_process() -> None:
    """Fails with a LARGEST of 2**65: the message cannot be made, and the master dies of it."""
    config = one(max_requests=LARGEST, limit_request_body=LARGEST, ws_max_size=LARGEST)
    assert Config.from_wire(msgspec.msgpack.decode(msgspec.msgpack.encode(config.to_wire()))) == config


def test_the_first_layer_wins_and_says_so_and_the_rest_are_still_checked() -> None:
    resolved = build([Layer("upper", {"workers": 2}), Layer("lower", {"workers": 3, "backlog": 9})])
    assert (resolved.config.workers, resolved.config.backlog) == (2, 9)
    assert [resolved.origins[name] for name in ("workers", "backlog", "bind")] == ["upper", "lower", "default"]
    with pytest.raises(ConfigError, match=r"workers = 'x' \(lower\)"):
        build([Layer("upper", {"workers": 2}), Layer("lower", {"workers": "x"})])


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("worker", "workers"),
        ("max_request", "max_requests"),
        ("timeot", "timeout"),
        ("prot", "port"),
        ("MAX-SURGE", "max_surge"),
    ],
)
def test_an_unknown_name_gets_the_nearest(wrong: str, near: str) -> None:
    assert refused(**{wrong: 1}) == f"there is no setting {wrong} (test); did you mean {near}?"


def test_an_unknown_name_without_a_near_one_gets_no_guess() -> None:
    assert refused(zzzzqqq=1) == "there is no setting zzzzqqq (test)"


def test_one_setting_under_two_names_in_one_place_is_refused() -> None:
    assert "hang_timeout is set twice (test): as timeout and hang_timeout" in refused(timeout=1, hang_timeout=2)
    assert "bind is set twice" in refused(bind="a:1", port=2)
    assert "bind is set twice" in refused(uds="/a", fd=3)


@pytest.mark.parametrize(
    ("upper", "lower", "bind"),
    [
        ({"host": "::1", "port": 9}, {}, "[::1]:9"),
        ({"port": "9"}, {}, "127.0.0.1:9"),
        ({"host": "0.0.0.0"}, {}, "0.0.0.0:8000"),
        ({"uds": "/a.sock"}, {"port": 1}, "unix:/a.sock"),
        ({"fd": 3}, {"host": "h"}, "fd://3"),
        ({"port": 9}, {"host": "h"}, "h:9"),
        ({"port": 9}, {"bind": "h:1"}, "127.0.0.1:9"),
        ({"port": 9}, {"uds": "/a"}, "127.0.0.1:9"),
        ({"bind": "h:1"}, {"port": 9}, "h:1"),
    ],
)
def test_host_port_uds_and_fd_make_a_bind(upper: dict[str, object], lower: dict[str, object], bind: str) -> None:
    assert build([Layer("upper", upper), Layer("lower", lower)]).config.bind == (bind,)


def test_a_config_survives_the_channel() -> None:
    config = one(bind="a:1,b:2", workers="auto", umask="027", accesslog="off", header="A: b", certfile="c", keyfile="k")
    assert Config.from_wire(msgspec.msgpack.decode(msgspec.msgpack.encode(config.to_wire()))) == config
    with pytest.raises(ConfigError, match="do not fit"):
        Config.from_wire({"no_such": 1})


def test_replace_checks_and_keeps_the_rest() -> None:
    config = one(bind="unix:/a", accesslog="off", env=["A=x\ny"], workers="auto")
    changed = config.replace(workers=4, timeout="5m")
    assert (changed.workers, changed.hang_timeout) == (4, 300.0)
    assert changed.replace(workers="auto", hang_timeout=30) == config
    with pytest.raises(ConfigError, match="at least 1"):
        config.replace(workers=0)

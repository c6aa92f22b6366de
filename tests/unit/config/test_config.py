"""The settings table, the values' spelling, and how layers become one checked Config."""

from pathlib import Path

import msgspec
import pytest

from aserver.command.config_page import markdown
from aserver.config import Config, Layer, SettingInfo, build, settings, warnings
from aserver.config.schema import LARGEST
from aserver.errors import ConfigError
from tests.unit.config.built import one, refused

#: The published names; people's command lines and files depend on every one of them.
NAMES = [
    "metrics", "statsd_host", "statsd_prefix", "dogstatsd_tags",
    "target", "factory", "app_dir", "interface", "root_path", "lifespan", "lifespan_shutdown_timeout", "bind",
    "backlog", "uds_mode", "uds_owner", "uds_group", "reuse_port", "workers", "preload", "preload_warmup",
    "on_fork_hazard", "max_requests", "max_requests_jitter", "max_lifetime", "max_lifetime_jitter",
    "min_lifetime", "max_memory", "memory_metric", "max_surge", "max_unavailable", "boot_timeout",
    "boot_retries", "hang_timeout", "slow_callback", "graceful_timeout", "idle_grace", "stream_grace",
    "drain_delay", "canary_time", "keep_alive", "header_timeout", "body_timeout", "write_timeout",
    "disconnect_grace", "limit_request_line", "threads", "backpressure", "request_timeout",
    "limit_request_fields", "limit_request_field_size", "limit_request_body", "limit_concurrency",
    "limit_connections", "server_header", "date_header", "header", "static", "http2", "pathsend", "ws_max_size",
    "ws_max_queue",
    "ws_ping_interval", "ws_ping_timeout", "ws_per_message_deflate", "certfile", "keyfile", "keyfile_password",
    "ca_certs", "cert_reqs", "ciphers", "tls_min_version", "proxy_headers", "forwarded_allow_ips",
    "proxy_protocol", "loglevel", "log_format", "errorlog", "accesslog", "access_log_format",
    "access_log_exclude", "capture_output", "log_config", "pidfile", "user", "group", "umask", "chdir", "env",
    "env_file", "proc_name", "notify_fd", "daemon", "control", "admin", "health_check", "reload", "keep_serving",
    "live",
    "reload_dir", "reload_include", "reload_exclude", "reload_delay", "config",
]  # fmt: skip

DEFAULTS = {
    "bind": ("127.0.0.1:8000",), "backlog": 2048, "workers": 1, "preload": True, "on_fork_hazard": "lazy",
    "min_lifetime": 10.0, "memory_metric": "private", "max_surge": 1, "max_unavailable": 0, "boot_timeout": 60.0,
    "boot_retries": 3, "hang_timeout": 30.0, "slow_callback": 1.0, "graceful_timeout": 30.0, "idle_grace": 1.0,
    "stream_grace": 2.0, "disconnect_grace": 5.0, "threads": 10, "backpressure": 1000, "request_timeout": 0.0,
    "http2": True, "pathsend": False,
    "keep_alive": 65.0, "header_timeout": 10.0, "body_timeout": 60.0, "write_timeout": 60.0,
    "limit_request_line": 8190, "limit_request_fields": 100, "limit_request_field_size": 8190,
    "server_header": False, "date_header": True, "ws_max_size": 16 * 1024 * 1024, "ws_max_queue": 32,
    "forwarded_allow_ips": ("127.0.0.1", "::1", "unix"), "accesslog": "-", "admin": None, "control": "auto",
    "reload_delay": 0.01, "lifespan_shutdown_timeout": 10.0, "tls_min_version": "1.2", "umask": None,
}  # fmt: skip

ALIASES = {
    "pythonpath": ("src", "app_dir", "src"),
    "limit_max_requests": (5, "max_requests", 5),
    "limit_max_requests_jitter": (5, "max_requests_jitter", 5),
    "timeout": (45, "hang_timeout", 45.0),
    "timeout_graceful_shutdown": (7, "graceful_timeout", 7.0),
    "keepalive": (2, "keep_alive", 2.0),
    "timeout_keep_alive": (3, "keep_alive", 3.0),
    "ssl_certfile": ("/c", "certfile", ("/c",)),
    "ssl_keyfile": ("/k", "keyfile", ("/k",)),
    "ssl_keyfile_password": ("pw", "keyfile_password", "pw"),
    "ssl_ca_certs": ("/a", "ca_certs", "/a"),
    "ssl_cert_reqs": (2, "cert_reqs", "required"),
    "ssl_ciphers": ("X", "ciphers", "X"),
    "log_level": ("DEBUG", "loglevel", "debug"),
    "log_file": ("/e", "errorlog", "/e"),
    "error_logfile": ("/e", "errorlog", "/e"),
    "access_logfile": ("/a", "accesslog", "/a"),
    "access_logformat": ("json", "access_log_format", "json"),
    "no_access_log": (True, "accesslog", None),
    "pid": ("/p", "pidfile", "/p"),
    "raw_env": (["A=1", "B=x,y"], "env", ("A=1", "B=x,y")),
    "lazy": (True, "preload", False),
    "preload_app": (False, "preload", False),
    "headers": ({"X-A": "1, 2"}, "header", ("X-A: 1, 2",)),
    "reload_dirs": (["a", "b"], "reload_dir", ("a", "b")),
    "reload_includes": ("*.x,*.y", "reload_include", ("*.x", "*.y")),
    "reload_excludes": ("z", "reload_exclude", ("z",)),
    "wsgi_app": ("m:app", "target", "m:app"),
}

#: Settings without which those of the alias table would be refused.
COMPANY: dict[str, object] = {"certfile": "/c", "keyfile": "/k", "ca_certs": "/a"}


def test_every_published_setting_exists_and_no_other() -> None:
    assert sorted(info.name for info in settings()) == sorted(NAMES)


def test_defaults() -> None:
    config = one()
    assert {name: getattr(config, name) for name in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize("alias", ALIASES)
def test_aliases(alias: str) -> None:
    given, name, expected = ALIASES[alias]
    resolved = build([Layer("test", {alias: given}), Layer("company", COMPANY)])
    assert getattr(resolved.config, name) == expected
    assert resolved.origins[name] == "test"


def test_every_alias_of_the_table_is_tested() -> None:
    table = {alias for info in settings() for alias in (*info.aliases, *(word for word, _ in info.switches))}
    assert table == set(ALIASES)


@pytest.mark.parametrize("info", settings(), ids=lambda info: info.name)
def test_a_default_as_shown_reads_back(info: SettingInfo) -> None:
    if info.default:
        assert getattr(one(**{info.name: info.default}), info.name) == getattr(Config(), info.name)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("factory", "maybe", "on or off"),
        ("factory", 1, "on or off"),
        ("workers", "four", "auto or a whole number, at least 1"),
        ("workers", 0, "at least 1"),
        ("workers", 1001, "at most 1000"),
        ("backlog", 2**31, "at most 2147483647"),
        ("max_requests", 2**63, "the largest number that fits"),
        ("ws_max_size", "8388608T", "the largest number that fits"),
        ("workers", 1.5, "whole number"),
        ("workers", True, "whole number"),
        ("max_requests", -1, "at least 0"),
        ("max_requests", [1], "whole number"),
        ("hang_timeout", "30x", "a duration"),
        ("hang_timeout", -1, "at least 0"),
        ("hang_timeout", float("nan"), "a duration"),
        ("hang_timeout", float("inf"), "a duration"),
        ("hang_timeout", "1e999", "a duration"),
        ("header_timeout", 0, "above 0"),
        ("max_memory", "12Q", "a size"),
        ("max_memory", "1.0001K", "whole number of bytes"),
        ("max_memory", 1.5, "a size"),
        ("uds_mode", "888", "an octal number, 0 to 0777"),
        ("uds_mode", 0o1777, "0 to 0777"),
        ("interface", "rsgi", "one of auto, asgi, wsgi"),
        ("tls_min_version", 1.1, "one of 1.2, 1.3"),
        ("cert_reqs", [], "one of none, optional, required"),
        ("app_dir", 3, "text"),
        ("app_dir", "", "empty"),
        ("user", "a:b", "one name or number"),
        ("bind", "fd:x", "such as fd://3"),
        ("header", "no colon", "Name: value"),
        ("forwarded_allow_ips", "10.0.0.1/8", "host bits"),
        ("forwarded_allow_ips", "proxy", "IPv4 or IPv6"),
        ("access_log_exclude", "health", "begins with /"),
        ("root_path", "api", "begins with /"),
        ("preload_warmup", "warm", "module:function"),
        ("preload_warmup", "GET health", "such as `GET /health`"),
        ("preload_warmup", "POST /orders", "such as `GET /health`"),
        ("admin", "x:y", "port is no number"),
        ("reload_dir", [1], "text"),
        ("accesslog", True, "or off"),
        ("preload", None, "on or off"),
        ("lazy", "perhaps", "on or off"),
    ],
)
def test_a_bad_value_is_refused_by_name_origin_and_value(name: str, value: object, says: str) -> None:
    message = refused(**{name: value})
    assert message.startswith(f"{name} = {value!r} (test): ")
    assert says in message


@pytest.mark.parametrize(
    ("name", "values", "wrong"),
    [
        ("header", ["A: b\r\nC: d"], "A: b\r\nC: d"),
        ("bind", ["127.0.0.1:0", "foo:bar"], "foo:bar"),
        ("bind", ("127.0.0.1:0", "fd:x"), "fd:x"),
        ("forwarded_allow_ips", "127.0.0.1,300.1.1.1", "300.1.1.1"),
    ],
)
def test_of_several_values_the_wrong_one_is_named(name: str, values: object, wrong: str) -> None:
    assert refused(**{name: values}).startswith(f"{name} = {wrong!r} (test): ")


def test_the_largest_numbers_go_from_process_to_process() -> None:
    """Fails with a LARGEST of 2**65: the message cannot be made, and the master dies of it."""
    config = one(max_requests=LARGEST, limit_request_body=LARGEST, ws_max_size=LARGEST)
    assert Config.from_wire(msgspec.msgpack.decode(msgspec.msgpack.encode(config.to_wire()))) == config


def test_secrets_stay_out_of_errors() -> None:
    assert "hunter2" not in refused(keyfile_password=["hunter2"])
    assert "hunter2" not in refused(env=["A=1", "hunter2"])
    assert refused(env="hunter2") == "env = *** (test): a variable is NAME=VALUE"


def test_good_values_of_odd_types() -> None:
    config = one(
        tls_min_version=1.3, user=1000, umask="022", uds_mode=0o660, lifespan=False, accesslog=False, admin="off",
        control="off", workers="auto", env={"A": "1"}, root_path="/api/", hang_timeout=5, certfile="c", keyfile="k",
    )  # fmt: skip
    assert (config.tls_min_version, config.user, config.umask, config.uds_mode) == ("1.3", "1000", 0o22, 0o660)
    assert (config.lifespan, config.accesslog, config.admin, config.control) == ("off", None, None, None)
    assert (config.workers, config.env, config.root_path) == ("auto", ("A=1",), "/api")
    assert isinstance(config.hang_timeout, float)


def test_repeatable_text_is_split_at_commas_and_newlines_but_headers_at_newlines_only() -> None:
    config = one(bind="a:1, b:2\nunix:/c", header="A: 1, 2\nB: 3", env="X=1,2\nY=3")
    assert config.bind == ("a:1", "b:2", "unix:/c")
    assert config.header == ("A: 1, 2", "B: 3")
    assert config.env == ("X=1,2", "Y=3")
    assert one(env=["X=two\nlines"]).env == ("X=two\nlines",)


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


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"certfile": "c"}, "keyfile is not"),
        ({"keyfile": "k"}, "certfile is not"),
        ({"keyfile_password": "p"}, "keyfile is not"),
        ({"ca_certs": "c"}, "there is no TLS"),
        ({"cert_reqs": "required"}, "there is no TLS"),
        ({"certfile": "c,d", "keyfile": "k"}, "certfile (test): names 2 files, but keyfile 1"),
        ({"bind": "https://a:1"}, "https://a:1 needs a certificate"),
        ({"bind": "h2c://a:1", "http2": False}, "h2c://a:1 is for HTTP/2, but http2 is off"),
        ({"admin": "https://a:1", "certfile": "c", "keyfile": "k"}, "written without a scheme"),
        ({"certfile": "c", "keyfile": "k", "cert_reqs": "required"}, "without ca_certs"),
        ({"max_surge": 0}, "no worker could ever be replaced"),
        ({"bind": []}, "names no address"),
        ({"bind": "a:1,a:1"}, "twice"),
    ],
)
def test_settings_that_exclude_each_other(values: dict[str, object], says: str) -> None:
    assert says in refused(**values)
    assert "max_surge (test)" in refused(max_surge=0)


@pytest.mark.parametrize(
    "values",
    [
        {"max_requests_jitter": 5},
        {"max_lifetime_jitter": 5},
        {"max_lifetime": 5},
        {"max_unavailable": 1},
        {"hang_timeout": 1},
        {"idle_grace": 60},
        {"forwarded_allow_ips": "*"},
        {"uds_mode": "600"},
        {"certfile": "c", "keyfile": "k", "ca_certs": "a"},
        {"ciphers": "X"},
        {"daemon": True, "errorlog": "-"},
        {"preload": False, "preload_warmup": ["a:b"]},
    ],
)
def test_likely_mistakes_are_warned_of(values: dict[str, object]) -> None:
    (message,) = warnings(one(**values))
    assert any(name in message for name in values)


def test_nothing_is_warned_of_by_default_or_where_it_makes_sense() -> None:
    assert warnings(one()) == ()
    assert warnings(one(forwarded_allow_ips="*", bind="unix:/a", uds_mode="600")) == ()
    assert warnings(one(max_requests=9, max_requests_jitter=5, hang_timeout=0)) == ()


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


def test_the_committed_settings_page_is_up_to_date() -> None:
    committed = Path(__file__).parents[3] / "docs" / "settings.md"
    assert committed.read_text() == markdown(), "run: python -m aserver.config > docs/settings.md"

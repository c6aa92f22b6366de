"""The settings table: names, defaults, aliases, and each value that a row takes or refuses."""

import pytest

from aserver.config import Layer, build, settings
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

"""uvicorn 0.54: each option of its command, and its meaning here.

Pure. `tests/peers` compares it with the parameters of `uvicorn.main`. `uvicorn.run()` takes the same names.
"""

from collections.abc import Mapping

from aserver.config.foreign.verdict import (
    WEBSOCKETS,
    Meaning,
    Table,
    converted,
    into,
    is_on,
    renamed,
    same,
    switched,
    unneeded,
)


def _level(value: object) -> object:
    return "debug" if str(value).lower() == "trace" else value


def _interface(value: object, _: Mapping[str, object]) -> Meaning:
    if value == "asgi2":
        return Meaning(
            changes=("asgi2 is not spoken: wrap the application with asgiref.compatibility.guarantee_single_callable",)
        )
    return Meaning() if value is None else Meaning({"interface": str(value).removesuffix("3")})


def _implementation(kind: str, ours: str) -> str:
    return f"the {kind} is {ours}, whichever is asked for"


def _colors(value: object, _: Mapping[str, object]) -> Meaning:
    note = "a terminal has colors" if is_on(value) else "a terminal has colors, unless NO_COLOR=1 is in the environment"
    return Meaning(notes=(note,))


def _websockets(value: object, _: Mapping[str, object]) -> Meaning:
    if str(value).lower() == "none":
        return Meaning(changes=(WEBSOCKETS,))
    note = _implementation("WebSocket implementation", "aserver's own")
    return Meaning() if value is None else Meaning(notes=(note,))


def _concurrency(value: object, _: Mapping[str, object]) -> Meaning:
    return Meaning() if value is None else Meaning({"limit_concurrency": value})


def _environment_file(value: object, _: Mapping[str, object]) -> Meaning:
    return Meaning({"env_file": value}) if value else Meaning()


UVICORN: Table = {
    "app": renamed("target", ""),
    "host": same(),
    "port": same(),
    "uds": same(),
    "fd": same(),
    "reload": same("--reload=on"),
    "reload_dirs": same("--reload-dir"),
    "reload_includes": same("--reload-include"),
    "reload_excludes": same("--reload-exclude"),
    "reload_delay": same(),
    "workers": same(),
    "loop": unneeded(_implementation("loop", "uvloop")),
    "http": unneeded(_implementation("parser", "llhttp (httptools)")),
    "http2": same("--http2=on"),
    "ws": converted("", _websockets, "aserver's own implementation, always on"),
    "ws_max_size": same(),
    "ws_max_queue": same(),
    "ws_ping_interval": same(),
    "ws_ping_timeout": same(),
    "ws_per_message_deflate": same(),
    "lifespan": same(),
    "interface": converted("interface", _interface, "`asgi3` becomes `asgi`; asgi2 is not spoken"),
    "env_file": converted("env_file", _environment_file, "read at each reload"),
    "log_config": same(),
    "log_level": converted("loglevel", into("loglevel", _level), "`trace` becomes `debug`"),
    "access_log": converted(
        "accesslog",
        switched(on={"accesslog": "-"}, off={"accesslog": "off"}),
        "on becomes `-`, off `off`",
        "--access-log=on --no-access-log=off",
    ),
    "use_colors": converted(
        "",
        _colors,
        "colors on a terminal, unless NO_COLOR=1 is in the environment",
        "--use-colors=on --no-use-colors=off",
    ),
    "proxy_headers": same("--proxy-headers=on --no-proxy-headers=off"),
    "server_header": same("--server-header=on --no-server-header=off"),
    "date_header": same("--date-header=on --no-date-header=off"),
    "forwarded_allow_ips": same(),
    "root_path": same(),
    "limit_concurrency": converted(
        "limit_concurrency", _concurrency, "counts requests; limit_connections counts connections"
    ),
    "backlog": same(),
    "limit_max_requests": renamed("max_requests"),
    "limit_max_requests_jitter": renamed("max_requests_jitter"),
    "timeout_keep_alive": renamed("keep_alive"),
    "timeout_graceful_shutdown": renamed("graceful_timeout"),
    "timeout_worker_healthcheck": renamed("hang_timeout"),
    "ssl_keyfile": renamed("keyfile"),
    "ssl_certfile": renamed("certfile"),
    "ssl_keyfile_password": renamed("keyfile_password"),
    "ssl_version": unneeded("TLS 1.2 is the oldest version; tls_min_version = 1.3 refuses it"),
    "ssl_cert_reqs": renamed("cert_reqs"),
    "ssl_ca_certs": renamed("ca_certs"),
    "ssl_ciphers": renamed("ciphers"),
    "headers": renamed("header", "--header"),
    "version": unneeded("aserver --version", "--version=on"),
    "app_dir": same(),
    "h11_max_incomplete_event_size": renamed("limit_request_field_size"),
    "reset_contextvars": unneeded("each request has a fresh context", "--reset-contextvars=on"),
    "factory": same("--factory=on"),
}

#: Settings whose option may be given more than once.
REPEATED = frozenset({"headers", "reload_dirs", "reload_excludes", "reload_includes"})

VARIABLES = {
    "UVICORN_*": "not read: a warning names ours",
    "WEB_CONCURRENCY": "read: workers",
    "FORWARDED_ALLOW_IPS": "read: forwarded_allow_ips",
}

DEFAULTS = (
    ("keep_alive", "5s", "65s"),
    ("graceful_timeout", "no limit", "30s"),
    ("server_header", "on", "off"),
)

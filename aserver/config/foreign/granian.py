"""granian 2.8: each option of its command, and its meaning here.

Pure. `tests/peers` compares it with the parameters of `granian.cli`.
"""

from collections.abc import Mapping

from aserver.config.foreign.verdict import (
    HTTP2,
    WEBSOCKETS,
    Meaning,
    Table,
    converted,
    into,
    renamed,
    same,
    switched,
    unequal,
    unneeded,
    with_unit,
)

_RUST = "there is no Rust runtime whose threads could be counted"
_RESPAWN = "a worker that dies is always replaced, after growing pauses"
_STATIC = "files are served by `static` (--static /PREFIX=DIRECTORY); a path that has no file is 404"
_METRICS = "the admin endpoint (admin) has them, at /metrics"
_RELOAD = "give patterns (reload_include, reload_exclude) and folders (reload_dir)"


def _environment_files(value: object, _: Mapping[str, object]) -> Meaning:
    files = value if isinstance(value, list) else [value] if value else []
    said = (f"env_file is one file: join {' and '.join(map(str, files))}",) if len(files) > 1 else ()
    return Meaning({"env_file": files[0]} if files else {}, said)


def _static(value: object, others: Mapping[str, object]) -> Meaning:
    """Directories, and the routes in the same order; `/static` is that of the first without one."""
    places = value if isinstance(value, list) else [value] if value else []
    routes = others.get("static_path_route") or ["/static"]
    named = list(zip(routes if isinstance(routes, list) else [routes], places, strict=False))
    return Meaning({"static": [f"{route}={place}" for route, place in named]} if named else {})


def _interface(value: object, _: Mapping[str, object]) -> Meaning:
    if value is None:
        return Meaning()
    if value == "rsgi":
        return Meaning(changes=("rsgi is spoken by granian alone: give the application's ASGI or WSGI object",))
    if value == "asginl":
        return Meaning({"interface": "asgi", "lifespan": "off"})
    return Meaning({"interface": value})


def _http(value: object, _: Mapping[str, object]) -> Meaning:
    return Meaning(changes=(HTTP2,)) if str(value) == "2" else Meaning()


def _level(value: object) -> object:
    return {"warn": "warning", "notset": "debug"}.get(str(value).lower(), value)


def _keep_alive(value: object, _: Mapping[str, object]) -> Meaning:
    return Meaning({} if value in {True, "on", "true"} or value is None else {"keep_alive": "0"})


def _websockets(value: object, _: Mapping[str, object]) -> Meaning:
    if value in {False, "off", "false"}:
        return Meaning(changes=(WEBSOCKETS,))
    return Meaning()


def _tls(value: object) -> object:
    return str(value).lower().removeprefix("tls")


GRANIAN: Table = {
    "app": renamed("target", ""),
    "host": same(),
    "port": same(),
    "uds": same(),
    "uds_permissions": renamed("uds_mode"),
    "interface": converted("interface", _interface, "`asginl` becomes `asgi` and `lifespan = off`; no rsgi"),
    "http": converted("", _http, "HTTP/1.1 is always spoken, too"),
    "websockets": converted("", _websockets, "always on", "--ws=on --no-ws=off"),
    "workers": same(),
    "blocking_threads": renamed("threads"),
    "blocking_threads_idle_timeout": unneeded("idle threads cost nothing"),
    "runtime_threads": unneeded(_RUST),
    "runtime_blocking_threads": unneeded(_RUST),
    "runtime_mode": unneeded(_RUST),
    "loop": unneeded("the loop is uvloop, whichever is asked for"),
    "task_impl": unneeded("tasks are asyncio's"),
    "backlog": same(),
    "backpressure": same(),
    "http1_buffer_size": unneeded("buffers grow as they are needed, up to a bound"),
    "http1_header_read_timeout": converted(
        "header_timeout", into("header_timeout", with_unit("ms")), "milliseconds become a duration"
    ),
    "http1_keep_alive": converted(
        "keep_alive", _keep_alive, "off becomes 0", "--http1-keep-alive=on --no-http1-keep-alive=off"
    ),
    "http1_pipeline_flush": unneeded(
        "pipelined answers are always written together", "--http1-pipeline-flush=on --no-http1-pipeline-flush=off"
    ),
    "http2_adaptive_window": unequal(HTTP2, "--http2-adaptive-window=on --no-http2-adaptive-window=off"),
    "http2_initial_connection_window_size": unequal(HTTP2),
    "http2_initial_stream_window_size": unequal(HTTP2),
    "http2_keep_alive_interval": unequal(HTTP2),
    "http2_keep_alive_timeout": unequal(HTTP2),
    "http2_max_concurrent_streams": unequal(HTTP2),
    "http2_max_frame_size": unequal(HTTP2),
    "http2_max_headers_size": unequal(HTTP2),
    "http2_max_send_buffer_size": unequal(HTTP2),
    "log_enabled": converted(
        "loglevel",
        switched(off={"loglevel": "critical"}),
        "off becomes `loglevel = critical`",
        "--log=on --no-log=off",
    ),
    "log_level": converted("loglevel", into("loglevel", _level), "`warn` becomes `warning`, `notset` `debug`"),
    "log_config": same(),
    "log_access_enabled": converted(
        "accesslog",
        switched(on={"accesslog": "-"}, off={"accesslog": "off"}),
        "on becomes `-`, off `off`",
        "--access-log=on --no-access-log=off",
    ),
    "log_access_fmt": unequal(
        "granian's atoms are others: `combined`, `json`, or gunicorn's atoms in access_log_format", "--access-log-fmt"
    ),
    "ssl_certificate": renamed("certfile"),
    "ssl_keyfile": renamed("keyfile"),
    "ssl_keyfile_password": renamed("keyfile_password"),
    "ssl_protocol_min": converted("tls_min_version", into("tls_min_version", _tls), "`tls1.3` becomes `1.3`"),
    "ssl_ca": renamed("ca_certs"),
    "ssl_crl": unequal("revoked certificates are not looked up: let the proxy check them"),
    "ssl_client_verify": converted(
        "cert_reqs",
        switched(on={"cert_reqs": "required"}, off={"cert_reqs": "none"}),
        "on becomes `required`",
        "--ssl-client-verify=on --no-ssl-client-verify=off",
    ),
    "url_path_prefix": renamed("root_path"),
    "respawn_failed_workers": unneeded(_RESPAWN, "--respawn-failed-workers=on --no-respawn-failed-workers=off"),
    "respawn_interval": unneeded(_RESPAWN),
    "rss_sample_interval": unneeded("memory is looked at once a second or less often, at no cost to requests"),
    "rss_samples": unneeded("a worker that is due leaves after its replacement serves, so that one sample will do"),
    "workers_lifetime": renamed("max_lifetime"),
    "workers_max_rss": converted(
        "max_memory",
        lambda value, _: Meaning() if value is None else Meaning({"max_memory": f"{value}M", "memory_metric": "rss"}),
        "MiB; with `memory_metric = rss`",
    ),
    "workers_kill_timeout": renamed("graceful_timeout"),
    "factory": same("--factory=on --no-factory=off"),
    "working_dir": renamed("chdir"),
    "env_files": converted("env_file", _environment_files, "one file"),
    "static_path_route": converted("static", lambda _value, _others: Meaning(), "see static_path_mount"),
    "static_path_mount": converted("static", _static, "`/PREFIX=DIRECTORY`; what is missing there is 404"),
    "static_path_dir_to_file": unequal(_STATIC),
    "static_path_expires": unequal(_STATIC),
    "metrics_enabled": unequal(_METRICS, "--metrics=on --no-metrics=off"),
    "metrics_scrape_interval": unequal(_METRICS),
    "metrics_address": unequal(_METRICS),
    "metrics_port": unequal(_METRICS),
    "reload": same("--reload=on --no-reload=off"),
    "reload_paths": renamed("reload_dir"),
    "reload_ignore_dirs": unequal(_RELOAD),
    "reload_ignore_patterns": unequal(_RELOAD),
    "reload_ignore_paths": unequal(_RELOAD),
    "reload_tick": converted("reload_delay", into("reload_delay", with_unit("ms")), "milliseconds become a duration"),
    "reload_ignore_worker_failure": unneeded(
        "code that cannot be loaded never replaces code that serves",
        "--reload-ignore-worker-failure=on --no-reload-ignore-worker-failure=off",
    ),
    "process_name": renamed("proc_name"),
    "pid_file": renamed("pidfile"),
    "version": unneeded("aserver --version", "--version=on"),
}

#: Settings whose option may be given more than once.
REPEATED = frozenset(
    {
        "env_files",
        "reload_ignore_dirs",
        "reload_ignore_paths",
        "reload_ignore_patterns",
        "reload_paths",
        "ssl_crl",
        "static_path_mount",
        "static_path_route",
    }
)

VARIABLES = {"GRANIAN_*": "not read: a warning names ours"}

DEFAULTS = (
    ("accesslog", "off", "-"),
    ("backlog", "1024", "2048"),
    ("header_timeout", "30s", "10s"),
    ("interface", "rsgi", "auto"),
    ("tls_min_version", "1.3", "1.2"),
)

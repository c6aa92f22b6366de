"""gunicorn 27: each setting of its configuration file, with its flags, and its meaning here.

Pure. `tests/peers` compares it with `gunicorn.config.KNOWN_SETTINGS`.
"""

import json
import re
from collections.abc import Mapping

from aserver.config.foreign.verdict import (
    HTTP2,
    Meaning,
    Table,
    absolute_socket,
    asks_nothing,
    converted,
    count_is,
    hook,
    into,
    renamed,
    same,
    switched,
    target_of,
    unequal,
    unneeded,
)

#: An atom of `access_log_format` that gunicorn does not know, for which it writes a hyphen.
_NO_ATOM = re.compile(r"%\((?![hlutrmUqHsBbfaTMDLp]\)|\{[^}]+\}[ioe]\))[^)]*\)s")
#: No line and no field is longer than this in a request that a browser or a proxy sends.
LONGEST = 65536
_DIRTY = "there are no dirty workers here: give long work to a task queue, or to a server of its own"
_LENIENT = "requests that the standard forbids are refused, as they smuggle others past a proxy; mend the client"
_SYSLOG = "log to standard error and let journald or the container forward it, or name a SysLogHandler in log_config"


_SCHEME = "X-Forwarded-Proto and Forwarded of trusted peers say the scheme; let the proxy set one of them"


def _scheme_headers(value: object, _: Mapping[str, object]) -> Meaning:
    """The header that is read here too, with the value that it has, loses nothing."""
    if asks_nothing(value):
        return Meaning()
    named = {str(key).upper(): str(each) for key, each in value.items()} if isinstance(value, dict) else {}
    if named == {"X-FORWARDED-PROTO": "https"}:
        return Meaning(notes=("X-Forwarded-Proto of trusted peers says the scheme here, too",))
    return Meaning(changes=(_SCHEME,))


def _several_threads(others: Mapping[str, object]) -> bool:
    return str(others.get("threads") or 1) != "1"


def _worker_class(value: object, others: Mapping[str, object]) -> Meaning:
    name = value if isinstance(value, str) else getattr(value, "__name__", str(value))
    short = name.rpartition(".")[2]
    if value is None:
        return Meaning()
    if name == "sync" and not _several_threads(others):
        return Meaning({"threads": 1}, notes=("a sync worker runs one request at a time: threads = 1",))
    if name in {"sync", "gthread", "asgi"} or short in {"UvicornWorker", "UvicornH11Worker", "ThreadWorker"}:
        return Meaning(notes=(f"{name} is not needed: the application's own interface, ASGI or WSGI, decides",))
    if short in {"SyncWorker", "ASGIWorker"}:
        return _worker_class(short.removesuffix("Worker").lower(), others)
    if "gevent" in name.lower() or "eventlet" in name.lower():
        return Meaning(
            changes=(
                (
                    f"{name} has no equal: WSGI requests run in threads and nothing is monkey-patched; an application "
                    "that needs that calls gevent.monkey.patch_all() itself, or becomes an ASGI application"
                ),
            )
        )
    return Meaning(
        changes=(f"{name} has no equal and is not loaded: ASGI and WSGI applications are served as they are",)
    )


def _timeout(value: object, others: Mapping[str, object]) -> Meaning:
    """The timeout of a sync worker limits each request, too.

    gunicorn's default class is sync. Where no class is named, a note says how the timeout is understood.
    """
    if value is None:
        return Meaning()
    settings = {"hang_timeout": value}
    known = others.get("worker_class")
    if asks_nothing(value) or known not in {None, "sync"} or _several_threads(others):
        return Meaning(settings)
    settings["request_timeout"] = value
    text = (
        f"timeout = {value} ends requests, too (request_timeout), as in a sync worker; an ASGI application that may be "
        "silent for longer wants --request-timeout 0"
    )
    return Meaning(settings, notes=() if known == "sync" else (text,))


def _connections(value: object, others: Mapping[str, object]) -> Meaning:
    if value is None:
        return Meaning()
    if str(others.get("worker_class") or "sync") == "sync" and not _several_threads(others):
        return Meaning(notes=(f"worker_connections = {value} is not used, as by gunicorn's sync worker",))
    return Meaning({"limit_connections": value})


def _environment(value: object, _: Mapping[str, object]) -> Meaning:
    if asks_nothing(value):
        return Meaning()
    items = value.split(",") if isinstance(value, str) else value
    return Meaning({"env": items})


def _path(value: object, _: Mapping[str, object]) -> Meaning:
    return Meaning({"app_dir": f"{value},."}) if value else Meaning()


def _accesslog(value: object, _: Mapping[str, object]) -> Meaning:
    return Meaning({"accesslog": "off" if value is None else value})


def _access_format(value: object, _: Mapping[str, object]) -> Meaning:
    if value is None:
        return Meaning()
    text = str(value)
    unknown = " ".join(dict.fromkeys(_NO_ATOM.findall(text)))
    said = (f"there is no atom {unknown}: a hyphen is written, as by gunicorn",) if unknown else ()
    return Meaning({"access_log_format": _NO_ATOM.sub("-", text)}, said)


def _level(value: object) -> object:
    return {"warn": "warning", "trace": "debug", "notset": "debug", "fatal": "critical"}.get(str(value).lower(), value)


def _proxy_protocol(value: object) -> object:
    return ("auto" if value else "off") if isinstance(value, bool) or value in {"true", "True"} else value


def _log_dict(value: object, _: Mapping[str, object]) -> Meaning:
    if asks_nothing(value):
        return Meaning()
    return Meaning({"log_config": json.dumps(_LOG_DEFAULTS | value) if isinstance(value, dict) else value})


#: gunicorn's own logging (gunicorn.glogging.CONFIG_DEFAULTS). A `logconfig_dict` is laid over it, so it may use these
#: handlers and this formatter by their names. Loggers do not propagate, as they would write each line twice.
_LOG_DEFAULTS: dict[str, object] = {
    "version": 1,
    "disable_existing_loggers": False,
    "root": {"level": "INFO", "handlers": ["console"]},
    "loggers": {
        "gunicorn.error": {"level": "INFO", "handlers": ["error_console"], "propagate": False},
        "gunicorn.access": {"level": "INFO", "handlers": ["console"], "propagate": False},
    },
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "generic", "stream": "ext://sys.stdout"},
        "error_console": {"class": "logging.StreamHandler", "formatter": "generic", "stream": "ext://sys.stderr"},
    },
    "formatters": {
        "generic": {
            "format": "%(asctime)s [%(process)d] [%(levelname)s] %(message)s",
            "datefmt": "[%Y-%m-%d %H:%M:%S %z]",
            "class": "logging.Formatter",
        }
    },
}


def _header_map(value: object, _: Mapping[str, object]) -> Meaning:
    if value in {None, "drop"}:
        return Meaning()
    return Meaning(changes=("header names with an underscore are always kept from WSGI applications (`drop`)",))


def _protocol(value: object, _: Mapping[str, object]) -> Meaning:
    if value in {None, "http"}:
        return Meaning()
    return Meaning(changes=(f"{value} is not spoken: let the proxy speak HTTP (nginx: proxy_pass for uwsgi_pass)",))


def _protocols(value: object, _: Mapping[str, object]) -> Meaning:
    return Meaning() if value is None else Meaning({"http2": "h2" in str(value)})


def _log_file(value: object, _: Mapping[str, object]) -> Meaning:
    return Meaning({"log_config": str(value).removeprefix("json:").removeprefix("toml:")}) if value else Meaning()


GUNICORN: Table = {
    "config": same("-c --config"),
    "wsgi_app": converted("target", target_of, "`module:make_app()` becomes `factory`", ""),
    "bind": converted("bind", into("bind", absolute_socket), "a relative socket path gets `./`", "-b --bind"),
    "backlog": same(),
    "workers": same("-w --workers"),
    "worker_class": converted(
        "",
        _worker_class,
        "the application's interface decides; `sync` is `threads = 1`; gevent and eventlet have no equal",
        "-k --worker-class",
    ),
    "threads": same(),
    "worker_connections": converted("limit_connections", _connections, "not for sync workers, where it does nothing"),
    "max_requests": same(),
    "max_requests_jitter": same(),
    "timeout": converted(
        "hang_timeout",
        _timeout,
        "watches the event loop; of a sync worker it is `request_timeout`, too",
        "-t --timeout",
    ),
    "graceful_timeout": same(),
    "keepalive": renamed("keep_alive", "--keep-alive"),
    "limit_request_line": converted(
        "limit_request_line", count_is(1, "limit_request_line", LONGEST), "0 (no limit) becomes 65536"
    ),
    "limit_request_fields": same(),
    "limit_request_field_size": converted(
        "limit_request_field_size",
        count_is(1, "limit_request_field_size", LONGEST),
        "0 (no limit) becomes 65536",
        "--limit-request-field_size",
    ),
    "reload": same("--reload=on"),
    "reload_engine": unneeded("how files are watched is not to be chosen"),
    "reload_extra_files": unequal(
        "give patterns of file names (reload_include) and folders (reload_dir)", "--reload-extra-file"
    ),
    "spew": unequal("use `python -m trace`, or py-spy on a worker", "--spew=on"),
    "check_config": unequal("a command of its own: aserver check", "--check-config=on"),
    "print_config": unequal("a command of its own: aserver config", "--print-config=on"),
    "preload_app": renamed("preload", "--preload=on"),
    "sendfile": unneeded(
        "files go out by `http.response.pathsend` (setting pathsend), or are read", "--no-sendfile=off"
    ),
    "reuse_port": same("--reuse-port=on"),
    "chdir": same(),
    "daemon": same("-D=on --daemon=on"),
    "raw_env": converted("env", _environment, "text is split at commas", "-e --env"),
    "pidfile": same("-p --pid"),
    "worker_tmp_dir": unneeded("workers' heartbeats are in memory, not in files"),
    "user": same("-u --user"),
    "group": same("-g --group"),
    "umask": same("-m --umask"),
    "initgroups": unneeded("the user's other groups are always set", "--initgroups=on"),
    "tmp_upload_dir": unneeded("bodies are not kept in files by the server", ""),
    "secure_scheme_headers": converted("", _scheme_headers, _SCHEME, ""),
    "forwarded_allow_ips": same(),
    "accesslog": converted("accesslog", _accesslog, "None becomes `off`", "--access-logfile"),
    "disable_redirect_access_to_syslog": unneeded(_SYSLOG, "--disable-redirect-access-to-syslog=on"),
    "access_log_format": converted(
        "access_log_format", _access_format, "an unknown atom becomes a hyphen, as there", "--access-logformat"
    ),
    "errorlog": same("--error-logfile --log-file"),
    "loglevel": converted("loglevel", into("loglevel", _level), "`warn` becomes `warning`", "--log-level"),
    "capture_output": same("--capture-output=on"),
    "logger_class": unequal("records are Python's own: use log_format, access_log_format or log_config"),
    "logconfig": converted("log_config", _log_file, "`json:` and `toml:` go; the suffix says it", "--log-config"),
    "logconfig_dict": converted(
        "log_config", _log_dict, "as JSON text, over gunicorn's own defaults; its loggers stand for aserver's", ""
    ),
    "logconfig_json": renamed("log_config", "--log-config-json"),
    "syslog_addr": unequal(_SYSLOG, "--log-syslog-to"),
    "syslog": unequal(_SYSLOG, "--log-syslog=on"),
    "syslog_prefix": unequal(_SYSLOG, "--log-syslog-prefix"),
    "syslog_facility": unequal(_SYSLOG, "--log-syslog-facility"),
    "enable_stdio_inheritance": unneeded(
        "the application's output goes to the server's, or with capture_output to the error log",
        "-R=on --enable-stdio-inheritance=on",
    ),
    "statsd_host": same(text="the metrics have other names"),
    "dogstatsd_tags": same(),
    "statsd_prefix": same(),
    "enable_backlog_metric": unneeded("the metrics have `aserver.listener.queue`", "--enable-backlog-metric=on"),
    "proc_name": same("-n --name"),
    "default_proc_name": renamed("proc_name", ""),
    "pythonpath": converted("app_dir", _path, "the working directory stays on the path behind it"),
    "paste": unequal(
        "write a module with `app = paste.deploy.loadapp('config:/path')` and name it", "--paste --paster"
    ),
    "on_starting": hook(),
    "on_reload": hook(),
    "when_ready": hook(),
    "pre_fork": hook(),
    "post_fork": hook(),
    "post_worker_init": hook(),
    "worker_int": hook("never called: INT goes to the master, which tells the workers to leave"),
    "worker_abort": hook(),
    "pre_exec": hook(),
    "pre_request": hook("never called: use middleware of the application"),
    "post_request": hook("never called: use middleware of the application"),
    "child_exit": hook(),
    "worker_exit": hook(),
    "nworkers_changed": hook(),
    "on_exit": hook(),
    "ssl_context": hook("never called: certfile, keyfile, ca_certs, cert_reqs, ciphers and tls_min_version say it"),
    "proxy_protocol": converted("proxy_protocol", into("proxy_protocol", _proxy_protocol), "true becomes `auto`"),
    "proxy_allow_ips": unequal(
        "forwarded_allow_ips trusts peers for both, PROXY protocol and headers", "--proxy-allow-from"
    ),
    "protocol": converted("", _protocol, "HTTP alone is spoken"),
    "uwsgi_allow_ips": unequal("the uwsgi protocol is not spoken", "--uwsgi-allow-from"),
    "keyfile": same(),
    "certfile": same(),
    "ssl_version": unneeded("TLS 1.2 is the oldest version; tls_min_version = 1.3 refuses it"),
    "cert_reqs": same(),
    "ca_certs": same(),
    "suppress_ragged_eofs": unneeded("a TLS connection that is cut is no error", "--suppress-ragged-eofs=on"),
    "do_handshake_on_connect": unneeded("handshakes never block a worker", "--do-handshake-on-connect=on"),
    "ciphers": same(),
    "http_protocols": converted("http2", _protocols, "on if h2 is among them"),
    "http2_cleartext": unequal(HTTP2),
    "http2_max_concurrent_streams": unequal(HTTP2),
    "http2_initial_window_size": unequal(HTTP2),
    "http2_max_frame_size": unequal(HTTP2),
    "http2_max_header_list_size": unequal(HTTP2),
    "raw_paste_global_conf": unequal("see paste", "--paste-global"),
    "permit_obsolete_folding": unequal(_LENIENT, "--permit-obsolete-folding=on"),
    "strip_header_spaces": unequal(_LENIENT, "--strip-header-spaces=on"),
    "permit_unconventional_http_method": unequal(_LENIENT, "--permit-unconventional-http-method=on"),
    "permit_unconventional_http_version": unequal(_LENIENT, "--permit-unconventional-http-version=on"),
    "casefold_http_method": unequal(_LENIENT, "--casefold-http-method=on"),
    "forwarder_headers": unequal("a prefix that the proxy takes off the path is root_path, or X-Forwarded-Prefix"),
    "header_map": converted("", _header_map, "always `drop`"),
    "asgi_loop": unneeded("the loop is uvloop"),
    "asgi_lifespan": renamed("lifespan"),
    "asgi_disconnect_grace_period": renamed("disconnect_grace"),
    "websocket_max_message_size": renamed("ws_max_size"),
    "http_parser": unneeded("the parser is llhttp (httptools)"),
    "root_path": same(),
    "dirty_apps": unequal(_DIRTY, "--dirty-app"),
    "dirty_workers": unequal(_DIRTY),
    "dirty_timeout": unequal(_DIRTY),
    "dirty_threads": unequal(_DIRTY),
    "dirty_graceful_timeout": unequal(_DIRTY),
    "on_dirty_starting": hook("never called: " + _DIRTY),
    "dirty_post_fork": hook("never called: " + _DIRTY),
    "dirty_worker_init": hook("never called: " + _DIRTY),
    "dirty_worker_exit": hook("never called: " + _DIRTY),
    "control_socket": renamed("control"),
    "control_socket_mode": unneeded("the control socket is its owner's alone (0700)"),
    "control_socket_disable": converted(
        "control", switched(on={"control": "off"}), "becomes `control = off`", "--no-control-socket=on"
    ),
}

#: Settings whose option may be given more than once.
REPEATED = frozenset({"bind", "dirty_apps", "raw_env", "raw_paste_global_conf", "reload_extra_files"})

#: Read from the environment, beside GUNICORN_CMD_ARGS.
VARIABLES = {
    "GUNICORN_CMD_ARGS": "read as flags, below ASERVER_* and above the file",
    "WEB_CONCURRENCY": "read: workers",
    "PORT": "read: bind = 0.0.0.0:$PORT where no bind is set",
    "FORWARDED_ALLOW_IPS": "read: forwarded_allow_ips",
    "SENDFILE": "not needed",
    "GUNICORN_FD": "gunicorn's own, between two masters",
    "GUNICORN_PID": "gunicorn's own, between two masters",
    "LISTEN_FDS": "read: systemd's sockets",
}

#: Where a setting that is not set means another thing here: setting, gunicorn's default, ours.
DEFAULTS = (
    ("accesslog", "off", "-"),
    ("preload", "off", "on"),
    ("keep_alive", "2s", "65s"),
    ("limit_request_line", "4094", "8190"),
    ("threads", "1", "10"),
)


def hooks() -> frozenset[str]:
    """Names of functions that are hooks."""
    return frozenset(name for name, verdict in GUNICORN.items() if verdict.hook)


def uncalled_hooks() -> dict[str, str]:
    """Hooks that nothing calls here, and why."""
    return {name: verdict.text for name, verdict in GUNICORN.items() if verdict.hook and verdict.text}

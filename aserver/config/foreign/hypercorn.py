"""Hypercorn 0.18: each attribute of its `Config` and each flag, and its meaning here.

Pure. `tests/peers` compares it with `hypercorn.config.Config` and the parser of its command.
"""

from collections.abc import Mapping

from aserver.config.foreign.gunicorn import GUNICORN, LONGEST
from aserver.config.foreign.verdict import (
    HTTP2,
    Meaning,
    Table,
    absolute_socket,
    converted,
    count_is,
    into,
    renamed,
    same,
    unequal,
    unneeded,
)

_QUIC = "HTTP/3 is not spoken: let the proxy in front speak it"


def _worker_class(value: object, _: Mapping[str, object]) -> Meaning:
    if value == "trio":
        return Meaning(changes=("trio's loop cannot be had: the application runs under asyncio (uvloop)",))
    return Meaning() if value is None else Meaning(notes=("the loop is uvloop, whichever is asked for",))


def _insecure(value: object, others: Mapping[str, object]) -> Meaning:
    """Addresses without TLS beside those of `bind`. Without a certificate Hypercorn does not listen there."""
    if not value or not others.get("certfile"):
        return Meaning()
    places = absolute_socket(value)
    addresses = [str(each) for each in (places if isinstance(places, list) else [places])]
    if any(each.startswith(("unix:", "fd:")) for each in addresses):
        return Meaning(changes=("TLS is spoken on all unix sockets and descriptors of `bind`: name a TCP address",))
    default = [] if others.get("bind") else ["127.0.0.1:8000"]
    return Meaning({"bind": [*default, *(f"http://{each}" for each in addresses)]})


def _verify(value: object) -> object:
    text = str(value).lower().removeprefix("verifymode.").removeprefix("cert_")
    return {"0": "none", "1": "optional", "2": "required"}.get(text, text)


def _ping(value: object, _: Mapping[str, object]) -> Meaning:
    return Meaning() if value is None else Meaning({"ws_ping_interval": value})


HYPERCORN: Table = {
    "application": renamed("target", ""),
    "application_path": renamed("target", ""),
    "config": same("-c --config"),
    "bind": converted("bind", into("bind", absolute_socket), "a relative socket path gets `./`", "-b --bind"),
    "insecure_bind": converted("bind", _insecure, "`http://` before each; not used without a certificate, as there"),
    "quic_bind": unequal(_QUIC),
    "quic_addresses": unequal(_QUIC, ""),
    "log": unneeded("made by hypercorn itself", ""),
    "root_path": same(),
    "access_log_format": same("--access-logformat"),
    "accesslog": converted(
        "accesslog",
        lambda value, _: Meaning({"accesslog": "off" if value is None else value}),
        "None becomes `off`",
        "--access-logfile --access-log",
    ),
    "alpn_protocols": unequal(HTTP2, ""),
    "alt_svc_headers": unequal("a `header` adds it", ""),
    "backlog": same(),
    "ca_certs": same(),
    "certfile": same(),
    "ciphers": same(),
    "daemon": same("-D=on --daemon=on"),
    "debug": unequal("PYTHONASYNCIODEBUG=1 in `env`, and loglevel = debug", "--debug=on"),
    "dogstatsd_tags": same(""),
    "errorlog": same("--error-logfile --log-file --error-log"),
    "graceful_timeout": same(),
    "read_timeout": renamed("body_timeout"),
    "group": renamed("uds_group", "-g --group"),
    "h11_max_incomplete_size": converted(
        "limit_request_field_size",
        count_is(1, "limit_request_field_size", LONGEST),
        "a bound of one field, not of the whole head",
        "",
    ),
    "h11_pass_raw_headers": unneeded("header names reach the application in lower case, as ASGI asks", ""),
    "h2_max_concurrent_streams": unequal(HTTP2, ""),
    "h2_max_header_list_size": unequal(HTTP2, ""),
    "h2_max_inbound_frame_size": unequal(HTTP2, ""),
    "include_date_header": renamed("date_header", ""),
    "include_server_header": renamed("server_header", ""),
    "keep_alive_timeout": renamed("keep_alive", "--keep-alive"),
    "keep_alive_max_requests": unneeded("a connection may have any number of requests; max_requests is a worker's", ""),
    "keyfile": same(),
    "keyfile_password": same(),
    "logconfig": GUNICORN["logconfig"],
    "logconfig_dict": GUNICORN["logconfig_dict"],
    "logger_class": unequal("records are Python's own: use log_format, access_log_format or log_config", ""),
    "loglevel": GUNICORN["loglevel"],
    "max_app_queue_size": unneeded("what the application does not take is not read from the client", ""),
    "max_requests": same(),
    "max_requests_jitter": same(),
    "pid_path": renamed("pidfile", "-p --pid"),
    "server_names": unequal("let the proxy, or Starlette's TrustedHostMiddleware, look at Host", "--server-name"),
    "shutdown_timeout": renamed("lifespan_shutdown_timeout", ""),
    "ssl_handshake_timeout": unneeded("a handshake has header_timeout", ""),
    "startup_timeout": renamed("boot_timeout", ""),
    "statsd_host": same(text="the metrics have other names"),
    "statsd_prefix": same(),
    "umask": same("-m --umask", "the application's files have it too; uds_mode is the socket's alone"),
    "use_reloader": renamed("reload", "--reload=on"),
    "user": renamed("uds_owner", "-u --user"),
    "verify_flags": unequal("OpenSSL's own flags are used", ""),
    "verify_mode": converted("cert_reqs", into("cert_reqs", _verify), "`CERT_REQUIRED` becomes `required`"),
    "cert_reqs": same(),
    "websocket_max_message_size": renamed("ws_max_size", ""),
    "websocket_ping_interval": converted("ws_ping_interval", _ping, "seconds"),
    "worker_class": converted("", _worker_class, "asyncio on uvloop; no trio", "-k --worker-class"),
    "workers": same("-w --workers"),
    "wsgi_max_body_size": renamed("limit_request_body", ""),
    "ssl_enabled": unneeded("a certfile says so", ""),
}

#: Settings whose option may be given more than once.
REPEATED = frozenset({"bind", "insecure_bind", "quic_bind", "server_names"})

VARIABLES: dict[str, str] = {}

DEFAULTS = (
    ("accesslog", "off", "-"),
    ("backlog", "100", "2048"),
    ("graceful_timeout", "3s", "30s"),
    ("keep_alive", "5s", "65s"),
    ("server_header", "on", "off"),
)

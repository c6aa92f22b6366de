"""uWSGI 2: each process option, and its meaning here. `uwsgi_families` has the options of its subsystems.

Pure. `tests/peers` runs `uwsgi --help` and asks for a verdict on each option.
"""

from collections.abc import Mapping

from aserver.config.foreign.uwsgi_families import UWSGI_PROTOCOL
from aserver.config.foreign.verdict import (
    Convert,
    Meaning,
    Table,
    asks_nothing,
    converted,
    into,
    is_on,
    renamed,
    same,
    switched,
    unequal,
    unneeded,
    with_unit,
)

_ALWAYS = "always so here"
_PATHS = ("pythonpath", "python-path", "pp")


def _items(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _address(said: str = "") -> Convert:
    def convert(value: object, _: Mapping[str, object]) -> Meaning:
        addresses: list[str] = []
        for each in _items(value):
            text = str(each).strip().partition(",")[0]
            path = "/" in text or text.endswith((".sock", ".socket")) or text.startswith("@")
            relative = path and not text.startswith(("/", "@", "unix:"))
            addresses.append(f"unix:{'./' * relative}{text}" if path and not text.startswith("unix:") else text)
        return Meaning({"bind": addresses}, (said,) if said else ())

    return convert


def _https(value: object, _: Mapping[str, object]) -> Meaning:
    parts = [[*str(each).split(","), "", ""][:3] for each in _items(value)]
    pairs = dict.fromkeys((certificate, key) for _, certificate, key in parts)
    return Meaning(
        {
            "bind": [address for address, *_ in parts],
            "certfile": [a for a, _ in pairs],
            "keyfile": [b for _, b in pairs],
        }
    )


def _file(value: object, others: Mapping[str, object]) -> Meaning:
    path, slash, name = str(value).rpartition("/")
    module, attribute = name.removesuffix(".py").removesuffix(".wsgi"), others.get("callable")
    settings: dict[str, object] = {"target": f"{module}:{attribute}" if attribute else module}
    if slash:
        settings["app_dir"] = path
    return Meaning(settings)


def _path(_value: object, others: Mapping[str, object]) -> Meaning:
    """The folders of all three names together, whichever of the names is asked for."""
    folders = [str(each) for name in _PATHS if name in others for each in _items(others[name])]
    return Meaning({"app_dir": ",".join([*folders, "."])})


def _module(value: object, others: Mapping[str, object]) -> Meaning:
    text, name = str(value).removesuffix(".py"), others.get("callable")
    if ":" not in text and name:
        text = f"{text}:{name}"
    if text.endswith("()"):
        return Meaning({"target": text[:-2], "factory": True})
    return Meaning({"target": text})


def _callable(_value: object, _: Mapping[str, object]) -> Meaning:
    return Meaning()  # `_module` and `_file` take it


def _lifetime(value: object, _: Mapping[str, object]) -> Meaning:
    return Meaning({"max_lifetime": value})


def _megabytes(metric: str) -> Convert:
    return lambda value, _: Meaning({"max_memory": f"{value}M", "memory_metric": metric})


def _cheaper(value: object, others: Mapping[str, object]) -> Meaning:
    workers = others.get("workers") or others.get("processes")
    return Meaning(
        changes=(
            f"cheaper = {value} has no equal: all {workers or ''} workers run all the time; TTIN and TTOU change that",
        )
    )


def _environment(value: object, _: Mapping[str, object]) -> Meaning:
    return Meaning({"env": _items(value)})


def _no_logging(value: object, _: Mapping[str, object]) -> Meaning:
    return Meaning({"accesslog": "off"} if is_on(value) else {})


def _log_some(value: object, others: Mapping[str, object]) -> Meaning:
    if asks_nothing(value):
        return Meaning()
    if is_on(others.get("disable-logging")):
        return Meaning(changes=("no request is logged with disable-logging; without it each is, whatever its status",))
    return Meaning(notes=("the access log has each request",))


def _home(value: object, _: Mapping[str, object]) -> Meaning:
    return Meaning(changes=(f"the virtual environment is that of the aserver command: {value}/bin/aserver",))


def _daemonize(value: object, _: Mapping[str, object]) -> Meaning:
    return Meaning({"daemon": True, "errorlog": value}) if not asks_nothing(value) else Meaning()


def _header(value: object, _: Mapping[str, object]) -> Meaning:
    return Meaning({"header": _items(value)})


def _static_map(value: object, _: Mapping[str, object]) -> Meaning:
    """`/prefix=directory`; a single file (`/favicon.ico=/srv/favicon.ico`) is no directory."""
    maps, changes = [], []
    for each in map(str, _items(value)):
        prefix, _equals, place = each.partition("=")
        if len(prefix) > 1 and prefix.startswith("/") and place and "." not in place.rpartition("/")[2].lstrip("."):
            maps.append(each)
        else:
            changes.append(f"{each} has no equal: static takes /PREFIX=DIRECTORY alone; let the proxy serve it")
    if maps:
        changes.append("a file that is missing there is 404; uWSGI would ask the application")
    return Meaning({"static": maps} if maps else {}, tuple(changes))


_socket = converted(
    "bind", _address(UWSGI_PROTOCOL), "the address, which speaks HTTP and not the uwsgi protocol", "-s --socket"
)
_http = converted("bind", _address(), "the address")
_folders = converted("app_dir", _path, "the working directory stays on the path behind it")
_no_wait = unneeded("a worker that leaves waits for its threads within graceful_timeout")

UWSGI: Table = {
    "socket": _socket,
    "uwsgi-socket": _socket,
    "http-socket": _http,
    "http11-socket": _http,
    "http": converted("bind", _address(), "the address; there is no router process"),
    "httprouter": converted("bind", _address(), "the address; there is no router process"),
    "https": converted("bind", _https, "`address,cert,key` becomes bind, certfile and keyfile"),
    "https-socket": converted("bind", _https, "`address,cert,key` becomes bind, certfile and keyfile"),
    "protocol": unneeded("HTTP is spoken on each address"),
    "socket-protocol": unneeded("HTTP is spoken on each address"),
    "processes": renamed("workers", "-p --processes"),
    "workers": same("--workers"),
    "threads": same(),
    "harakiri": renamed("request_timeout", "-t --harakiri"),
    "listen": renamed("backlog", "-l --listen"),
    "chmod-socket": converted(
        "uds_mode",
        lambda value, _: Meaning({"uds_mode": "666" if str(value) in {"true", "1"} else value}),
        "alone it is 666",
        "-C --chmod-socket",
    ),
    "chmod": renamed("uds_mode"),
    "chown-socket": converted(
        "uds_owner",
        lambda value, _: Meaning(
            {"uds_owner": str(value).partition(":")[0]}
            | ({"uds_group": str(value).partition(":")[2]} if ":" in str(value) else {})
        ),
        "`user:group` becomes uds_owner and uds_group",
    ),
    "umask": same(),
    "buffer-size": converted(
        "limit_request_field_size",
        into("limit_request_field_size", lambda value: value),
        "of one field, not of all together",
        "-b --buffer-size",
    ),
    "limit-post": renamed("limit_request_body"),
    "max-requests": same("-R --max-requests"),
    "max-requests-delta": renamed(
        "max_requests_jitter", text="max_requests_jitter is random, not a step for each worker"
    ),
    "min-worker-lifetime": renamed("min_lifetime"),
    "max-worker-lifetime": converted("max_lifetime", _lifetime, "seconds"),
    "max-worker-lifetime-delta": renamed(
        "max_lifetime_jitter", text="max_lifetime_jitter is random, not a step for each worker"
    ),
    "worker-reload-mercy": renamed("graceful_timeout"),
    "reload-mercy": unneeded("graceful_timeout bounds a worker's time"),
    "reload-on-rss": converted("max_memory", _megabytes("rss"), "MiB; with `memory_metric = rss`"),
    "evil-reload-on-rss": converted("max_memory", _megabytes("rss"), "MiB; with `memory_metric = rss`"),
    "reload-on-as": unequal("max_memory bounds a worker's memory; its address space says little"),
    "evil-reload-on-as": unequal("max_memory bounds a worker's memory; its address space says little"),
    "socket-timeout": converted("body_timeout", into("body_timeout", with_unit("s")), "seconds", "-z --socket-timeout"),
    "http-timeout": converted("body_timeout", into("body_timeout", with_unit("s")), "seconds"),
    "http-headers-timeout": converted("header_timeout", into("header_timeout", with_unit("s")), "seconds"),
    "http-keepalive": unneeded("connections are kept for keep_alive"),
    "http-websockets": unneeded(_ALWAYS),
    "http-auto-chunked": unneeded(_ALWAYS),
    "http-enable-proxy-protocol": converted(
        "proxy_protocol", switched(on={"proxy_protocol": "auto"}), "on becomes `auto`, from trusted peers"
    ),
    "enable-proxy-protocol": converted(
        "proxy_protocol", switched(on={"proxy_protocol": "auto"}), "on becomes `auto`, from trusted peers"
    ),
    "websockets-max-size": converted("ws_max_size", into("ws_max_size", with_unit("K")), "KiB"),
    "websocket-max-size": converted("ws_max_size", into("ws_max_size", with_unit("K")), "KiB"),
    "websockets-ping-freq": renamed("ws_ping_interval"),
    "websocket-ping-freq": renamed("ws_ping_interval"),
    "websockets-pong-tolerance": renamed("ws_ping_timeout"),
    "websocket-pong-tolerance": renamed("ws_ping_timeout"),
    "reuse-port": same("--reuse-port=on"),
    "module": converted("target", _module, "with `callable` as `module:callable`", "-w --module"),
    "wsgi": converted("target", _module, "with `callable` as `module:callable`"),
    "wsgi-file": converted("target", _file, "the module of that file; its folder becomes app_dir"),
    "file": converted("target", _file, "the module of that file; its folder becomes app_dir"),
    "callable": converted("target", _callable, "part of the target"),
    "pythonpath": _folders,
    "python-path": _folders,
    "pp": _folders,
    "chdir": same(),
    "chdir2": renamed("chdir"),
    "env": converted("env", _environment, "NAME=VALUE"),
    "virtualenv": converted("", _home, "start the aserver of that environment", "-H --virtualenv"),
    "venv": converted("", _home, "start the aserver of that environment"),
    "home": converted("", _home, "start the aserver of that environment"),
    "pyhome": converted("", _home, "start the aserver of that environment"),
    "lazy-apps": renamed("lazy"),
    "lazy": renamed("lazy"),
    "master": unneeded("there is always a master", "-M=on --master=on"),
    "enable-threads": unneeded("threads are always there", "-T=on --enable-threads=on"),
    "single-interpreter": unneeded("each worker has one interpreter", "-i=on --single-interpreter=on"),
    "thunder-lock": unneeded("no lock: the kernel wakes one worker, and busy ones stand back", "--thunder-lock=on"),
    "need-app": unneeded("a worker without its application never serves", "--need-app=on"),
    "vacuum": unneeded("socket paths and the pidfile are removed by the master that made them", "--vacuum=on"),
    "die-on-term": unneeded("TERM stops", "--die-on-term=on"),
    "no-orphans": unneeded("no worker outlives its master", "--no-orphans=on"),
    "strict": unneeded("unknown settings are always refused", "--strict=on"),
    "close-on-exec": unneeded(_ALWAYS, "--close-on-exec=on"),
    "close-on-exec2": unneeded(_ALWAYS),
    "no-defer-accept": unneeded(_ALWAYS),
    "tcp-nodelay": unneeded(_ALWAYS, "--tcp-nodelay=on"),
    "wsgi-env-behaviour": unneeded("each request has an environ of its own"),
    "wsgi-env-behavior": unneeded("each request has an environ of its own"),
    "py-call-osafterfork": unneeded(_ALWAYS, "--py-call-osafterfork=on"),
    "py-call-uwsgi-fork-hooks": unneeded(_ALWAYS),
    "no-threads-wait": _no_wait,
    "post-buffering": unneeded("a body comes to the application as it comes from the client"),
    "post-buffering-bufsize": unneeded("a body comes to the application as it comes from the client"),
    "ignore-sigpipe": unneeded(_ALWAYS, "--ignore-sigpipe=on"),
    "ignore-write-errors": unneeded("a client that leaves is no error here", "--ignore-write-errors=on"),
    "disable-write-exception": unneeded("a client that leaves is no error here", "--disable-write-exception=on"),
    "write-errors-tolerance": unneeded("a client that leaves is no error here"),
    "write-errors-exception-only": unneeded("a client that leaves is no error here"),
    "memory-report": unneeded(
        "max_memory looks at each worker's memory; `%(M)s` of the access log has the time", "-m=on --memory-report=on"
    ),
    "auto-procname": unneeded("processes have their names", "--auto-procname=on"),
    "procname": renamed("proc_name"),
    "procname-master": renamed("proc_name"),
    "procname-prefix": renamed("proc_name"),
    "procname-prefix-spaced": renamed("proc_name"),
    "procname-append": unneeded("processes have their names"),
    "pidfile": same(),
    "pidfile2": renamed("pidfile"),
    "safe-pidfile": renamed("pidfile"),
    "safe-pidfile2": renamed("pidfile"),
    "uid": renamed("user"),
    "immediate-uid": renamed("user"),
    "gid": renamed("group"),
    "immediate-gid": renamed("group"),
    "add-gid": unneeded("the user's other groups are always set"),
    "no-initgroups": unequal("the user's other groups are always set"),
    "daemonize": converted("daemon", _daemonize, "its file becomes errorlog", "-d --daemonize"),
    "daemonize2": converted("daemon", _daemonize, "its file becomes errorlog"),
    "logto": renamed("errorlog"),
    "logto2": renamed("errorlog"),
    "disable-logging": converted("accesslog", _no_logging, "becomes `accesslog = off`", "-L=on --disable-logging=on"),
    "log-format": unequal("the format has other names: `combined`, `json`, or gunicorn's atoms in access_log_format"),
    "logformat": unequal("the format has other names: `combined`, `json`, or gunicorn's atoms in access_log_format"),
    "log-x-forwarded-for": unneeded("the address that a trusted proxy gives is logged (forwarded_allow_ips)"),
    "log-reopen": unneeded("SIGUSR1 opens the logs again"),
    "log-date": unneeded("lines have their time"),
    "logdate": unneeded("lines have their time"),
    "log-4xx": converted("", _log_some, "the access log has each request, unless logging is disabled"),
    "log-5xx": converted("", _log_some, "the access log has each request, unless logging is disabled"),
    "log-master": unneeded("each process writes its own lines, whole", "--log-master=on"),
    "threaded-logger": unneeded("each process writes its own lines, whole", "--threaded-logger=on"),
    "add-header": converted("header", _header, "`Name: value`"),
    "static-map": converted("static", _static_map, "`/PREFIX=DIRECTORY`; what is missing there is 404"),
    "stats": unequal("the admin endpoint (admin) has them: /status, /metrics and a dashboard"),
    "stats-server": unequal("the admin endpoint (admin) has them: /status, /metrics and a dashboard"),
    "stats-http": unequal("the admin endpoint (admin) has them: /status, /metrics and a dashboard"),
    "enable-metrics": unequal("the admin endpoint (admin) has them: /status, /metrics and a dashboard"),
    "cheaper": converted("", _cheaper, "all workers run all the time"),
    "py-autoreload": converted("reload", switched(on={"reload": True}), "any interval becomes `reload`"),
    "py-auto-reload": converted("reload", switched(on={"reload": True}), "any interval becomes `reload`"),
    "python-autoreload": converted("reload", switched(on={"reload": True}), "any interval becomes `reload`"),
    "python-auto-reload": converted("reload", switched(on={"reload": True}), "any interval becomes `reload`"),
    "mount": unequal(
        "mount by the proxy with root_path, or in one application (Starlette's Mount, DispatcherMiddleware)"
    ),
    "manage-script-name": unneeded(
        "a prefix that the proxy takes off the path is root_path", "--manage-script-name=on"
    ),
    "gevent": unequal("WSGI requests run in threads, and nothing is monkey-patched"),
    "async": unequal("WSGI requests run in threads; many waiting requests want an ASGI application"),
    "plugins": unneeded("Python is what it serves; there are no plugins"),
    "plugin": unneeded("Python is what it serves; there are no plugins"),
    "http-to-https": unequal("let the proxy redirect"),
    "freebind": unequal("`net.ipv4.ip_nonlocal_bind`, or bind 0.0.0.0"),
    "master-fifo": unequal("signals do the same (docs/signals.md)"),
    "notify-socket": unneeded("signals do the same (docs/signals.md)"),
    "catch-exceptions": unequal("an exception is a 500 and a traceback in the log; let the application show it"),
    "version": unneeded("aserver --version", "--version=on"),
    "ini": same("--ini"),
}

#: Settings whose option may be given more than once.
REPEATED = frozenset(
    {
        "add-header",
        "env",
        "http",
        "http-socket",
        "http11-socket",
        "httprouter",
        "https",
        "https-socket",
        "pp",
        "python-path",
        "pythonpath",
        "static-map",
        "socket",
        "uwsgi-socket",
    }
)

VARIABLES = {"UWSGI_*": "its options: not read, and a warning names each that is set"}

DEFAULTS = (
    ("accesslog", "in the log", "-"),
    ("backlog", "100", "2048"),
    ("graceful_timeout", "60s", "30s"),
    ("threads", "1", "10"),
)

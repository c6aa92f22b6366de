"""The table of settings: name, type, default, bounds, help and aliases of each.

Pure, and imported by every process. The command line, the environment's names, the files' schema and
docs/settings.md are all made from the body of `Table`; nothing else may spell a setting.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

import msgspec

from aserver.config.values import (
    ADDRESS,
    ASSIGNMENT,
    HEADER,
    PEER,
    PREFIX,
    ROOT,
    STATIC,
    STATSD,
    TEXT,
    WARMUP,
    WORKERS,
    Account,
    Backlog,
    Bytes,
    Count,
    Mode,
    PassedFd,
    Seconds,
    SomeBytes,
    SomeCount,
    SomeSeconds,
    Workers,
)


class Group(StrEnum):
    """Headings of `--help` and docs/settings.md, in this order."""

    APP = "Application"
    LISTEN = "Listening"
    WORKERS = "Workers and threads"
    RECYCLE = "Recycling and reload"
    LIFE = "Starting and stopping"
    TIMEOUTS = "Clients' timeouts"
    LIMITS = "Limits"
    HTTP = "HTTP"
    WEBSOCKET = "WebSocket"
    TLS = "TLS"
    PROXY = "Behind a proxy"
    LOGGING = "Logging"
    PROCESS = "Process"
    CONTROL = "Control and metrics"
    DEVELOPMENT = "Development"


@dataclass(frozen=True, slots=True)
class Setting:
    """The facts about a field that its type cannot hold.

    `aliases` are whole other names; `short` is a letter for the command line.

    `switches` are flags that stand for a value: `{"lazy": False}` makes `lazy = true` mean `preload = false`.
    The text of a repeatable setting is split at newlines, and at commas unless `commas` is false.
    `off` says that `off` (or false) is the same as None. `secret` values are never shown.
    """

    group: Group
    help: str
    aliases: tuple[str, ...] = ()
    short: str = ""
    switches: tuple[tuple[str, object], ...] = ()
    off: bool = False
    secret: bool = False
    commas: bool = True


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A field for every setting. `aserver.config.Config` is this with methods."""

    target: Annotated[str | None, Setting(Group.APP, "the application: `module:attribute`", ("wsgi_app",))] = None
    factory: Annotated[bool, Setting(Group.APP, "the target is a function that returns the application")] = False
    app_dir: Annotated[str, Setting(Group.APP, "put first on sys.path", ("pythonpath",))] = "."
    interface: Annotated[
        Literal["auto", "asgi", "wsgi"], Setting(Group.APP, "what kind of application the target is")
    ] = "auto"
    root_path: Annotated[str, ROOT, Setting(Group.APP, "ASGI root_path: where a proxy has mounted the app")] = ""
    lifespan: Annotated[Literal["auto", "on", "off"], Setting(Group.APP, "run the ASGI lifespan protocol")] = "auto"
    lifespan_shutdown_timeout: Annotated[
        SomeSeconds, Setting(Group.APP, "lifespan shutdown's share of a stop, which connections cannot eat")
    ] = 10.0

    bind: Annotated[
        tuple[str, ...],
        ADDRESS,
        Setting(
            Group.LISTEN,
            "`host:port`, `[v6]:port`, `unix:/path`, `unix:@abstract`, `fd://3`, or `fd://name` for a socket that "
            "systemd passes; `:8000` is 0.0.0.0:8000; "
            "`http://host:port` is plain though there is a certfile, `https://host:port` insists on one; "
            "`h2c://host:port` is plain and takes HTTP/2 too (prior knowledge)",
            short="b",
        ),
    ] = ("127.0.0.1:8000",)
    backlog: Annotated[Backlog, Setting(Group.LISTEN, "listen queue")] = 2048
    uds_mode: Annotated[Mode | None, Setting(Group.LISTEN, "mode of a unix socket (unset: 0777 less `umask`)")] = None
    uds_owner: Annotated[Account | None, Setting(Group.LISTEN, "owner of a unix socket (unset: `user`)")] = None
    uds_group: Annotated[Account | None, Setting(Group.LISTEN, "group of a unix socket (unset: `group`)")] = None
    reuse_port: Annotated[bool, Setting(Group.LISTEN, "SO_REUSEPORT, for several servers on one port")] = False

    workers: Annotated[
        Workers | Literal["auto"],
        WORKERS,
        Setting(Group.WORKERS, "worker processes; auto: usable CPUs by affinity and cgroup", short="w"),
    ] = 1
    threads: Annotated[
        SomeCount,
        Setting(
            Group.WORKERS,
            "requests that a worker with a WSGI application works on at once, each in a thread; 1: one after the "
            "other, as gunicorn's sync worker; of no use to ASGI applications",
        ),
    ] = 10
    preload: Annotated[
        bool,
        Setting(
            Group.WORKERS,
            "load the app once per generation, before forking; `lazy` loads it in each worker",
            ("preload_app",),
            switches=(("lazy", False),),
        ),
    ] = True
    preload_warmup: Annotated[
        tuple[str, ...],
        WARMUP,
        Setting(Group.WORKERS, "`GET /path` or `module:function`, run before forking"),
    ] = ()
    on_fork_hazard: Annotated[
        Literal["lazy", "warn", "refuse"],
        Setting(Group.WORKERS, "what to do when preloading leaves threads or the like, which do not survive a fork"),
    ] = "lazy"

    max_requests: Annotated[
        Count, Setting(Group.RECYCLE, "recycle a worker after so many requests; 0: never", ("limit_max_requests",))
    ] = 0
    max_requests_jitter: Annotated[
        Count, Setting(Group.RECYCLE, "plus a random 0 to so many", ("limit_max_requests_jitter",))
    ] = 0
    max_lifetime: Annotated[Seconds, Setting(Group.RECYCLE, "recycle a worker after this time; 0: never")] = 0.0
    max_lifetime_jitter: Annotated[Seconds, Setting(Group.RECYCLE, "plus a random 0 to this time")] = 0.0
    min_lifetime: Annotated[Seconds, Setting(Group.RECYCLE, "no recycle earlier than this")] = 10.0
    max_memory: Annotated[Bytes, Setting(Group.RECYCLE, "recycle a worker above this much memory; 0: never")] = 0
    memory_metric: Annotated[
        Literal["private", "rss", "pss"],
        Setting(Group.RECYCLE, "what max_memory counts; private is honest under preload"),
    ] = "private"
    max_surge: Annotated[Count, Setting(Group.RECYCLE, "workers above `workers` while some are replaced")] = 1
    max_unavailable: Annotated[Count, Setting(Group.RECYCLE, "workers below `workers` while some are replaced")] = 0
    canary_time: Annotated[
        Seconds, Setting(Group.RECYCLE, "a reload's first worker must live this long before the rest follow")
    ] = 0.0

    boot_timeout: Annotated[SomeSeconds, Setting(Group.LIFE, "from fork to ready")] = 60.0
    boot_retries: Annotated[Count, Setting(Group.LIFE, "failed first boots before the server gives up")] = 3
    hang_timeout: Annotated[
        Seconds,
        Setting(Group.LIFE, "a worker's loop silent this long: dump its stacks, kill; 0: never", ("timeout",)),
    ] = 30.0
    slow_callback: Annotated[
        Seconds, Setting(Group.LIFE, "the loop blocked this long: log what blocks it, once per incident; 0: never")
    ] = 1.0
    request_timeout: Annotated[
        Seconds,
        Setting(
            Group.LIFE,
            "a request for which its application has done nothing this long (no answer begun, no next piece) is logged "
            "with the stack, answered 504 or cut off, and cancelled; a worker with a stuck WSGI thread is replaced; 0: "
            "never",
        ),
    ] = 0.0
    graceful_timeout: Annotated[
        Seconds,
        Setting(Group.LIFE, "for requests in flight at recycling or stop", ("timeout_graceful_shutdown",)),
    ] = 30.0
    idle_grace: Annotated[
        Seconds, Setting(Group.LIFE, "on a final stop, idle connections may still send one request this long")
    ] = 1.0
    stream_grace: Annotated[
        Seconds,
        Setting(
            Group.LIFE,
            "on a final stop, streams (answers without a length) and WebSockets that ignore `draining` are ended after "
            "this; other requests have `graceful_timeout`",
        ),
    ] = 2.0
    drain_delay: Annotated[
        Seconds, Setting(Group.LIFE, "on SIGTERM: not ready any more, but go on accepting this long")
    ] = 0.0

    keep_alive: Annotated[
        Seconds,
        Setting(
            Group.TIMEOUTS,
            "idle connections; above the usual proxies' 60 s; 0: close after each response",
            ("keepalive", "timeout_keep_alive"),
        ),
    ] = 65.0
    header_timeout: Annotated[
        SomeSeconds, Setting(Group.TIMEOUTS, "from the request's first chance to the end of its head")
    ] = 10.0
    body_timeout: Annotated[SomeSeconds, Setting(Group.TIMEOUTS, "between two pieces of a request body")] = 60.0
    write_timeout: Annotated[SomeSeconds, Setting(Group.TIMEOUTS, "for a client that does not read")] = 60.0
    disconnect_grace: Annotated[
        Seconds,
        Setting(
            Group.TIMEOUTS,
            "an answer that goes on after its client has left, and takes no notice by `receive()` or `send()`, is "
            "cancelled after this; what has not begun to answer never is",
        ),
    ] = 5.0

    limit_request_line: Annotated[SomeBytes, Setting(Group.LIMITS, "of the request line; above it 414")] = 8190
    limit_request_fields: Annotated[SomeCount, Setting(Group.LIMITS, "header fields; above it 431")] = 100
    limit_request_field_size: Annotated[SomeBytes, Setting(Group.LIMITS, "of one header field; above it 431")] = 8190
    limit_request_body: Annotated[Bytes, Setting(Group.LIMITS, "of a request body; above it 413; 0: no limit")] = 0
    limit_concurrency: Annotated[
        Count, Setting(Group.LIMITS, "requests under way per worker; above it 503 with Retry-After; 0: no limit")
    ] = 0
    backpressure: Annotated[
        SomeCount,
        Setting(
            Group.LIMITS,
            "requests that a worker with a WSGI application takes at once, those that wait for a thread included; "
            "above it 503 with Retry-After",
        ),
    ] = 1000
    limit_connections: Annotated[
        Count, Setting(Group.LIMITS, "open connections per worker; above it the worker stops accepting; 0: no limit")
    ] = 0

    server_header: Annotated[bool, Setting(Group.HTTP, "send a Server header")] = False
    date_header: Annotated[bool, Setting(Group.HTTP, "send a Date header")] = True
    header: Annotated[
        tuple[str, ...],
        HEADER,
        Setting(Group.HTTP, "`Name: value`, added where the application set none", ("headers",), commas=False),
    ] = ()
    static: Annotated[
        tuple[str, ...],
        STATIC,
        Setting(Group.HTTP, "`PREFIX=DIRECTORY`: below that path files are served, and the application is not asked"),
    ] = ()
    health_check: Annotated[
        str | None, PREFIX, Setting(Group.HTTP, "path where the worker answers as /readyz of `admin`", off=True)
    ] = None
    http2: Annotated[bool, Setting(Group.HTTP, "HTTP/2: offered to TLS clients, and spoken on `h2c://` binds")] = True
    pathsend: Annotated[
        bool,
        Setting(Group.HTTP, "offer `http.response.pathsend`: frameworks then send files by name, past all middleware"),
    ] = False

    ws_max_size: Annotated[SomeBytes, Setting(Group.WEBSOCKET, "of a message; above it close 1009")] = 16 << 20
    ws_max_queue: Annotated[SomeCount, Setting(Group.WEBSOCKET, "messages the application has not taken")] = 32
    ws_ping_interval: Annotated[Seconds, Setting(Group.WEBSOCKET, "between two pings; 0: no pings")] = 20.0
    ws_ping_timeout: Annotated[Seconds, Setting(Group.WEBSOCKET, "for a pong; 0: wait for ever")] = 20.0
    ws_per_message_deflate: Annotated[bool, Setting(Group.WEBSOCKET, "offer compression")] = True

    certfile: Annotated[
        tuple[str, ...],
        TEXT,
        Setting(Group.TLS, "certificate chain, PEM; of several the client's SNI chooses", ("ssl_certfile",)),
    ] = ()
    keyfile: Annotated[
        tuple[str, ...],
        TEXT,
        Setting(Group.TLS, "private key, PEM, one for each certfile in the same order", ("ssl_keyfile",)),
    ] = ()
    keyfile_password: Annotated[
        str | None, Setting(Group.TLS, "of the private key", ("ssl_keyfile_password",), secret=True)
    ] = None
    ca_certs: Annotated[str | None, Setting(Group.TLS, "clients' authorities, PEM", ("ssl_ca_certs",))] = None
    cert_reqs: Annotated[
        Literal["none", "optional", "required"], Setting(Group.TLS, "clients' certificates", ("ssl_cert_reqs",))
    ] = "none"
    ciphers: Annotated[str | None, Setting(Group.TLS, "OpenSSL's cipher list; unset: its own", ("ssl_ciphers",))] = None
    tls_min_version: Annotated[Literal["1.2", "1.3"], Setting(Group.TLS, "oldest version accepted")] = "1.2"

    proxy_headers: Annotated[bool, Setting(Group.PROXY, "use X-Forwarded-* and Forwarded, from trusted peers")] = True
    forwarded_allow_ips: Annotated[
        tuple[str, ...], PEER, Setting(Group.PROXY, "trusted peers: addresses, networks, `unix`, or `*` for all")
    ] = ("127.0.0.1", "::1", "unix")
    proxy_protocol: Annotated[
        Literal["off", "v1", "v2", "auto"], Setting(Group.PROXY, "read the PROXY protocol, from trusted peers only")
    ] = "off"

    loglevel: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        Setting(Group.LOGGING, "least level logged", ("log_level",)),
    ] = "info"
    log_format: Annotated[Literal["text", "json"], Setting(Group.LOGGING, "of the error log")] = "text"
    errorlog: Annotated[str, Setting(Group.LOGGING, "path, or `-` for stderr", ("log_file", "error_logfile"))] = "-"
    accesslog: Annotated[
        str | None,
        Setting(
            Group.LOGGING,
            "path, `-` for stdout, or `off`",
            ("access_logfile",),
            switches=(("no_access_log", "off"),),
            off=True,
        ),
    ] = "-"
    access_log_format: Annotated[
        str,
        Setting(Group.LOGGING, "combined, common, short, json, or a format of gunicorn's atoms", ("access_logformat",)),
    ] = "combined"
    access_log_exclude: Annotated[
        tuple[str, ...], PREFIX, Setting(Group.LOGGING, "path prefix that is not logged, such as health checks")
    ] = ()
    capture_output: Annotated[bool, Setting(Group.LOGGING, "the app's stdout and stderr go to the error log")] = False
    log_config: Annotated[
        str | None, Setting(Group.LOGGING, "logging.config.dictConfig in a JSON, TOML or YAML file, or an INI file")
    ] = None

    pidfile: Annotated[str | None, Setting(Group.PROCESS, "where to write the master's pid", ("pid",), "p")] = None
    user: Annotated[Account | None, Setting(Group.PROCESS, "to drop to after binding", short="u")] = None
    group: Annotated[Account | None, Setting(Group.PROCESS, "to drop to after binding", short="g")] = None
    umask: Annotated[
        Mode | None, Setting(Group.PROCESS, "file mode mask of the application and of unix sockets", short="m")
    ] = None
    chdir: Annotated[str | None, Setting(Group.PROCESS, "directory to change to before loading the app")] = None
    env: Annotated[
        tuple[str, ...],
        ASSIGNMENT,
        Setting(
            Group.PROCESS, "NAME=VALUE, set before the app is imported", ("raw_env",), "e", secret=True, commas=False
        ),
    ] = ()
    env_file: Annotated[str | None, Setting(Group.PROCESS, "file of NAME=VALUE lines; `env` wins over it")] = None
    proc_name: Annotated[str, Setting(Group.PROCESS, "process titles", short="n")] = "aserver"
    notify_fd: Annotated[PassedFd | None, Setting(Group.PROCESS, "gets a line when all workers are ready (s6)")] = None
    daemon: Annotated[bool, Setting(Group.PROCESS, "detach from the terminal", short="D")] = False

    control: Annotated[
        str | None,
        Setting(
            Group.CONTROL,
            "control socket; auto: `$XDG_RUNTIME_DIR/aserver-PID.sock`, else under the temporary directory; or `off`",
            off=True,
        ),
    ] = "auto"
    admin: Annotated[
        str | None,
        ADDRESS,
        Setting(Group.CONTROL, "address of /livez, /readyz, /metrics, /status and the dashboard; or `off`", off=True),
    ] = None
    metrics: Annotated[bool, Setting(Group.CONTROL, "count requests, and how long they take")] = True
    statsd_host: Annotated[str | None, STATSD, Setting(Group.CONTROL, "statsd server that metrics are sent to")] = None
    statsd_prefix: Annotated[str | None, Setting(Group.CONTROL, "before the names of metrics that are sent")] = None
    dogstatsd_tags: Annotated[tuple[str, ...], TEXT, Setting(Group.CONTROL, "NAME:VALUE, for Datadog's agent")] = ()

    reload: Annotated[
        bool, Setting(Group.DEVELOPMENT, "develop: one worker, new code at each save, errors in the browser")
    ] = False
    keep_serving: Annotated[
        bool, Setting(Group.DEVELOPMENT, "while the saved code is broken, the code before it serves on")
    ] = False
    live: Annotated[bool, Setting(Group.DEVELOPMENT, "pages in the browser load again at each save")] = False
    reload_dir: Annotated[
        tuple[str, ...], Setting(Group.DEVELOPMENT, "directory to watch; unset: the current one", ("reload_dirs",))
    ] = ()
    reload_include: Annotated[
        tuple[str, ...],
        Setting(
            Group.DEVELOPMENT,
            "pattern of file names to watch besides code, templates, CSS and scripts",
            ("reload_includes",),
        ),
    ] = ()
    reload_exclude: Annotated[
        tuple[str, ...],
        Setting(
            Group.DEVELOPMENT,
            "pattern of file names, or a directory, to ignore besides hidden ones",
            ("reload_excludes",),
        ),
    ] = ()
    reload_delay: Annotated[Seconds, Setting(Group.DEVELOPMENT, "files must be quiet this long before a reload")] = 0.01

    config: Annotated[
        str | None,
        Setting(
            Group.PROCESS,
            "settings file, .toml or .py; unset: aserver.toml, else [tool.aserver] in pyproject.toml",
            short="c",
        ),
    ] = None

"""The one table of settings: type, default, bounds, help and aliases of each.

Pure, and imported by every process. The command line, the environment's names, the files' schema and
docs/settings.md (`python -m aserver.config`) are all made from the body of `Config`; nothing else may
spell a setting. It must never touch the system: reading files and the environment is `aserver.sources`,
resolving what depends on this machine (`workers = "auto"`, `control = "auto"`) is the master's business.

Values as text are the same everywhere: durations `30`, `1.5`, `500ms`, `30s`, `5m`, `1h` (a bare number is
seconds), sizes `8190`, `512M`, `1GiB` (K, KB and KiB are all 1024 bytes, as nginx has it), booleans
`on/off/true/false/yes/no/1/0`, modes and masks in octal. The text of a repeatable setting is split at newlines
and at commas; `header` and `env` at newlines only, because their values may hold commas.
"""

import dataclasses
import difflib
import ipaddress
import math
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from aserver.errors import ConfigError

# ── values as text ───────────────────────────────────────────────────────────────────────────

_DURATION = re.compile(r"(\d+(?:\.\d*)?(?:e[+-]?\d+)?)\s*(ms|s|m|h)?", re.ASCII | re.IGNORECASE)
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(?:i?B)?|B)?", re.ASCII | re.IGNORECASE)
_UNITS = {"T": 1 << 40, "G": 1 << 30, "M": 1 << 20, "K": 1 << 10}
_TRUE = frozenset({"on", "true", "yes", "1"})
_FALSE = frozenset({"off", "false", "no", "0"})
#: RFC 9110 section 5.6.2 `token`; the value is section 5.5, without obs-fold.
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*:[ \t]*([\x20-\x7e\x80-\xff\t]*)")
_DEFAULT_HOST, _DEFAULT_PORT = "127.0.0.1", 8000


def parse_duration(text: str) -> float:
    """Seconds from `30`, `1.5`, `500ms`, `30s`, `5m`, `1h`; ValueError for anything else."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError
    number, unit = float(match[1]), (match[2] or "s").lower()
    return number / 1000 if unit == "ms" else number * _SECONDS[unit]


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` turns back into exactly `seconds`."""
    if 0 < seconds < 1 and round(seconds * 1000) / 1000 == seconds:
        return f"{round(seconds * 1000)}ms"
    if seconds != int(seconds):
        return f"{seconds!r}s"
    whole = int(seconds)
    for unit, length in (("h", 3600), ("m", 60)):
        if whole and whole % length == 0 and whole // length > 1 and float(whole // length) * length == seconds:
            return f"{whole // length}{unit}"
    return f"{whole}s" if whole else "0"


def parse_size(text: str) -> int:
    """Bytes from `8190`, `64K`, `512MB`, `1.5GiB` (1024-based all); ValueError for anything else."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError
    size = Decimal(match[1]) * (_UNITS[match[2].upper()] if match[2] else 1)
    if size != int(size):
        raise ValueError(f"{text!r} is no whole number of bytes")
    return int(size)


def format_size(size: int) -> str:
    """The shortest text that `parse_size` turns back into exactly `size`."""
    for unit, length in _UNITS.items():
        if size and size % length == 0:
            return f"{size // length}{unit}iB"
    return str(size)


def _parse_switch(text: str) -> bool:
    if (word := text.strip().lower()) in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError


def _parse_octal(text: str) -> int:
    return int(text.strip(), 8)


def _parse_workers(text: str) -> int | str:
    return "auto" if text.strip().lower() == "auto" else int(text)


def _parse_text(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("it is empty or holds control characters")
    return text


def _parse_account(text: str) -> str:
    if not re.fullmatch(r"[^\s:/,]+", text):
        raise ValueError("a user or group is one name or number; each has a setting of its own")
    return text


def parse_address(text: str) -> str:
    """An address in its one canonical spelling: `host:port`, `[v6]:port`, `unix:/path`, `unix:@name`, `fd://3`.

    As in gunicorn `:8000` is every IPv4 interface and a bare host gets port 8000; a bare number is a port on
    127.0.0.1. ValueError says what is wrong.
    """
    text = text.strip().removeprefix("tcp://")
    if text.startswith("unix:"):
        path = text.removeprefix("unix:").removeprefix("//")
        if not path.startswith(("/", "@", "./", "../")) or path in {"/", "@"}:
            raise ValueError("a unix address is unix:/path or unix:@name")
        return f"unix:{path}"
    if match := re.fullmatch(r"fd:(?://)?(\d+)", text, re.ASCII):
        return f"fd://{int(match[1])}"
    if "/" in text:
        raise ValueError(f"did you mean unix:{text}?" if text[0] in "/." else "an address has no slash")
    if text.isascii() and text.isdigit():
        host, port = _DEFAULT_HOST, text
    elif match := re.fullmatch(r"\[([^\]]+)\](?::(\d+))?", text, re.ASCII):
        host, port = f"[{ipaddress.IPv6Address(match[1])}]", match[2] or str(_DEFAULT_PORT)
    elif match := re.fullmatch(r"([^\s:\[\]]*)(?::(\d+))?", text, re.ASCII):
        host, port = match[1] or "0.0.0.0", match[2] or str(_DEFAULT_PORT)  # noqa: S104 - gunicorn's `:8000`
    else:
        raise ValueError("an IPv6 address is written [::1]:8000" if text.count(":") > 1 else "the port is no number")
    if not text or int(port) > 65535:
        raise ValueError("a port is 0 to 65535" if text else "it is empty")
    return f"{host}:{int(port)}"


def _parse_header(text: str) -> str:
    match = _FIELD.fullmatch(text.strip())
    if match is None:
        raise ValueError("a header is `Name: value` on one line")
    return f"{match[1]}: {match[2]}"


def _parse_assignment(text: str) -> str:
    name, equals, _ = text.partition("=")
    if not equals or not name.strip() or "\0" in text:
        raise ValueError("a variable is NAME=VALUE")
    return f"{name.strip()}={text.partition('=')[2]}"


def _parse_peer(text: str) -> str:
    if (peer := text.strip()) in {"*", "unix"}:
        return peer
    return str(ipaddress.ip_network(peer) if "/" in peer else ipaddress.ip_address(peer))


def _parse_prefix(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("a path begins with /")
    return text


def _parse_root(text: str) -> str:
    return _parse_prefix(text).rstrip("/") if text else ""


def _parse_hook(text: str) -> str:
    if not re.fullmatch(r"[\w.]+:[\w.]+", text):
        raise ValueError("a hook is module:function")
    return text


@dataclass(frozen=True, slots=True)
class Kind:
    """How a value is read from text and shown as text; `parse` raises ValueError, with a reason or without."""

    name: str
    parse: Callable[[str], object]
    show: Callable[[Any], str] = str
    numbers: bool = False  # a bare number in a file or an argument is taken as its text


SWITCH = Kind("on or off", _parse_switch, lambda value: "on" if value else "off")
NUMBER = Kind("whole number", int)
TEXT = Kind("text", _parse_text)
CHOICE = Kind("one of", lambda text: text.strip().lower(), numbers=True)
DURATION = Kind("duration", parse_duration, format_duration)
SIZE = Kind("size", parse_size, format_size)
OCTAL = Kind("octal number", _parse_octal, lambda value: f"{value:#05o}".replace("o", ""))
WORKERS = Kind("whole number or auto", _parse_workers)
ACCOUNT = Kind("name or number", _parse_account, numbers=True)
ADDRESS = Kind("address", parse_address)
HEADER = Kind("Name: value", _parse_header)
ASSIGNMENT = Kind("NAME=VALUE", _parse_assignment)
PEER = Kind("address or network", _parse_peer)
PREFIX = Kind("path prefix", _parse_prefix)
ROOT = Kind("path prefix", _parse_root)
HOOK = Kind("module:function", _parse_hook)

Seconds = Annotated[float, Meta(ge=0), DURATION]
SomeSeconds = Annotated[float, Meta(gt=0), DURATION]
Bytes = Annotated[int, Meta(ge=0), SIZE]
SomeBytes = Annotated[int, Meta(ge=1), SIZE]
Count = Annotated[int, Meta(ge=0), NUMBER]
SomeCount = Annotated[int, Meta(ge=1), NUMBER]
Mode = Annotated[int, Meta(ge=0, le=0o777), OCTAL]
Account = Annotated[str, ACCOUNT]

# ── the table ────────────────────────────────────────────────────────────────────────────────


class Group(StrEnum):
    """Headings of `--help` and docs/settings.md, in this order."""

    APP = "Application"
    LISTEN = "Listening"
    WORKERS = "Workers"
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
    CONTROL = "Control"
    DEVELOPMENT = "Development"


@dataclass(frozen=True, slots=True)
class Setting:
    """What the type of a field cannot say. `aliases` are whole other names; `short` is a letter for the command line.

    `switches` are flags that stand for a value: `{"lazy": False}` makes `lazy = true` mean `preload = false`.
    `off` says that `off` (or false) is the same as None. `secret` values are never shown.
    """

    group: Group
    help: str
    aliases: tuple[str, ...] = ()
    short: str = ""
    switches: tuple[tuple[str, object], ...] = ()
    off: bool = False
    secret: bool = False
    separators: str = "\n,"


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting, checked: durations are seconds, sizes bytes, repeatable settings tuples, unset None.

    Instances come from `build` (or `aserver.sources.load`); the constructor itself checks nothing.
    """

    target: Annotated[str | None, Setting(Group.APP, "the application: `module:attribute`", ("wsgi_app",))] = None
    factory: Annotated[bool, Setting(Group.APP, "the target is a function that returns the application")] = False
    app_dir: Annotated[str, Setting(Group.APP, "put first on sys.path", ("pythonpath",))] = "."
    interface: Annotated[
        Literal["auto", "asgi", "wsgi"], Setting(Group.APP, "what kind of application the target is")
    ] = "auto"
    root_path: Annotated[str, ROOT, Setting(Group.APP, "ASGI root_path: where a proxy has mounted the application")] = (
        ""
    )
    lifespan: Annotated[Literal["auto", "on", "off"], Setting(Group.APP, "run the ASGI lifespan protocol")] = "auto"
    lifespan_shutdown_timeout: Annotated[
        SomeSeconds, Setting(Group.APP, "lifespan shutdown's share of a stop, which connections cannot eat")
    ] = 10.0

    bind: Annotated[
        tuple[str, ...],
        ADDRESS,
        Setting(
            Group.LISTEN,
            "`host:port`, `[v6]:port`, `unix:/path`, `unix:@abstract` or `fd://3`; `:8000` is 0.0.0.0:8000",
            short="b",
        ),
    ] = ("127.0.0.1:8000",)
    backlog: Annotated[SomeCount, Setting(Group.LISTEN, "listen queue")] = 2048
    uds_mode: Annotated[Mode | None, Setting(Group.LISTEN, "mode of a unix socket, from its first instant")] = None
    uds_owner: Annotated[Account | None, Setting(Group.LISTEN, "owner of a unix socket")] = None
    uds_group: Annotated[Account | None, Setting(Group.LISTEN, "group of a unix socket")] = None
    reuse_port: Annotated[bool, Setting(Group.LISTEN, "SO_REUSEPORT, for several servers on one port")] = False

    workers: Annotated[
        SomeCount | Literal["auto"],
        WORKERS,
        Setting(Group.WORKERS, "worker processes; auto: usable CPUs by affinity and cgroup", short="w"),
    ] = 1
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
        str | None, HOOK, Setting(Group.WORKERS, "`module:function`, sync or async, called before forking")
    ] = None
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
    graceful_timeout: Annotated[
        Seconds,
        Setting(Group.LIFE, "for requests in flight at retirement or stop", ("timeout_graceful_shutdown",)),
    ] = 30.0
    idle_grace: Annotated[
        Seconds, Setting(Group.LIFE, "on a final stop, idle connections may still send one request this long")
    ] = 1.0
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

    limit_request_line: Annotated[SomeBytes, Setting(Group.LIMITS, "of the request line; above it 414")] = 8190
    limit_request_fields: Annotated[SomeCount, Setting(Group.LIMITS, "header fields; above it 431")] = 100
    limit_request_field_size: Annotated[SomeBytes, Setting(Group.LIMITS, "of one header field; above it 431")] = 8190
    limit_request_body: Annotated[Bytes, Setting(Group.LIMITS, "of a request body; above it 413; 0: no limit")] = 0
    limit_concurrency: Annotated[
        Count, Setting(Group.LIMITS, "requests under way per worker; above it 503 with Retry-After; 0: no limit")
    ] = 0
    limit_connections: Annotated[
        Count, Setting(Group.LIMITS, "open connections per worker; above it the worker stops accepting; 0: no limit")
    ] = 0

    server_header: Annotated[bool, Setting(Group.HTTP, "send a Server header")] = False
    date_header: Annotated[bool, Setting(Group.HTTP, "send a Date header")] = True
    header: Annotated[
        tuple[str, ...],
        HEADER,
        Setting(Group.HTTP, "`Name: value`, added where the application set none", ("headers",), separators="\n"),
    ] = ()

    ws_max_size: Annotated[SomeBytes, Setting(Group.WEBSOCKET, "of a message; above it close 1009")] = 16 << 20
    ws_max_queue: Annotated[SomeCount, Setting(Group.WEBSOCKET, "messages the application has not taken")] = 32
    ws_ping_interval: Annotated[Seconds, Setting(Group.WEBSOCKET, "between two pings; 0: no pings")] = 20.0
    ws_ping_timeout: Annotated[Seconds, Setting(Group.WEBSOCKET, "for a pong; 0: wait for ever")] = 20.0
    ws_per_message_deflate: Annotated[bool, Setting(Group.WEBSOCKET, "offer compression")] = True

    certfile: Annotated[str | None, Setting(Group.TLS, "certificate chain, PEM", ("ssl_certfile",))] = None
    keyfile: Annotated[str | None, Setting(Group.TLS, "private key, PEM", ("ssl_keyfile",))] = None
    keyfile_password: Annotated[
        str | None, Setting(Group.TLS, "of the private key", ("ssl_keyfile_password",), secret=True)
    ] = None
    ca_certs: Annotated[
        str | None, Setting(Group.TLS, "authorities that sign clients' certificates, PEM", ("ssl_ca_certs",))
    ] = None
    cert_reqs: Annotated[
        Literal["none", "optional", "required"], Setting(Group.TLS, "clients' certificates", ("ssl_cert_reqs",))
    ] = "none"
    ciphers: Annotated[
        str | None, Setting(Group.TLS, "OpenSSL cipher list; unset: OpenSSL's own", ("ssl_ciphers",))
    ] = None
    tls_min_version: Annotated[Literal["1.2", "1.3"], Setting(Group.TLS, "oldest version accepted")] = "1.2"

    proxy_headers: Annotated[
        bool, Setting(Group.PROXY, "use X-Forwarded-* and RFC 7239 Forwarded, from trusted peers")
    ] = True
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
        Setting(Group.LOGGING, "combined, common, json, or a format of gunicorn's atoms", ("access_logformat",)),
    ] = "combined"
    access_log_exclude: Annotated[
        tuple[str, ...], PREFIX, Setting(Group.LOGGING, "path prefix that is not logged, such as health checks")
    ] = ()
    capture_output: Annotated[bool, Setting(Group.LOGGING, "the app's stdout and stderr go to the error log")] = False
    log_config: Annotated[str | None, Setting(Group.LOGGING, "logging.config.dictConfig in a JSON or TOML file")] = None

    pidfile: Annotated[str | None, Setting(Group.PROCESS, "where to write the master's pid", ("pid",), "p")] = None
    user: Annotated[Account | None, Setting(Group.PROCESS, "to drop to after binding", short="u")] = None
    group: Annotated[Account | None, Setting(Group.PROCESS, "to drop to after binding", short="g")] = None
    umask: Annotated[Mode | None, Setting(Group.PROCESS, "file mode mask", short="m")] = None
    chdir: Annotated[str | None, Setting(Group.PROCESS, "directory to change to before loading the app")] = None
    env: Annotated[
        tuple[str, ...],
        ASSIGNMENT,
        Setting(
            Group.PROCESS,
            "NAME=VALUE, set before the app is imported",
            ("raw_env",),
            "e",
            secret=True,
            separators="\n",
        ),
    ] = ()
    env_file: Annotated[str | None, Setting(Group.PROCESS, "file of NAME=VALUE lines; `env` wins over it")] = None
    proc_name: Annotated[str, Setting(Group.PROCESS, "process titles", short="n")] = "aserver"
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

    reload: Annotated[bool, Setting(Group.DEVELOPMENT, "reload when files change")] = False
    reload_dir: Annotated[
        tuple[str, ...], Setting(Group.DEVELOPMENT, "directory to watch; unset: the current one", ("reload_dirs",))
    ] = ()
    reload_include: Annotated[
        tuple[str, ...], Setting(Group.DEVELOPMENT, "pattern of file names to watch", ("reload_includes",))
    ] = ("*.py",)
    reload_exclude: Annotated[
        tuple[str, ...], Setting(Group.DEVELOPMENT, "pattern of file names to ignore", ("reload_excludes",))
    ] = (".*",)
    reload_delay: Annotated[Seconds, Setting(Group.DEVELOPMENT, "files must be quiet this long before a reload")] = 0.25

    config: Annotated[
        str | None,
        Setting(
            Group.PROCESS,
            "settings file, .toml or .py; unset: aserver.toml, else [tool.aserver] in pyproject.toml",
            short="c",
        ),
    ] = None

    def to_wire(self) -> dict[str, object]:
        """Plain builtins, for a message to another aserver process."""
        wire: dict[str, object] = msgspec.to_builtins(self)
        return wire

    @classmethod
    def from_wire(cls, wire: Mapping[str, object]) -> Self:
        """What `to_wire` gave, also after a trip through msgpack or JSON. Raises ConfigError."""
        try:
            return msgspec.convert(wire, cls)
        except msgspec.ValidationError as error:
            raise ConfigError(f"settings from another process do not fit this aserver: {error}") from None

    def replace(self, **values: object) -> "Config":
        """A checked copy with other values, in any form that `build` takes. Raises ConfigError."""
        return build([Layer("replace()", values), Layer("before", self.to_wire())]).config


# ── what the table says about itself ─────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class SettingInfo:
    """One row of the table, for whoever makes an interface of it. `default` is text as `show` makes it."""

    name: str
    kind: Kind
    default: str
    group: Group
    help: str
    aliases: tuple[str, ...]
    short: str
    switches: tuple[tuple[str, object], ...]
    choices: tuple[str, ...]
    bounds: str
    repeatable: bool
    optional: bool
    off: bool
    secret: bool
    separators: str
    hint: Any

    @property
    def option(self) -> str:
        """The name on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The name in the environment."""
        return "ASERVER_" + self.name.upper()

    def expects(self) -> str:
        """What a value has to be, in words."""
        words = "one of " + ", ".join(self.choices) if self.kind is CHOICE else f"a {self.kind.name}"
        words = re.sub(r"^a (?=[aeio])", "an " if self.kind is not SWITCH else "", words)
        examples = {DURATION: " (30, 500ms, 5m, 1h)", SIZE: " (8190, 64K, 512M, 1GiB)"}.get(self.kind, "")
        return words + examples + (f", {self.bounds}" if self.bounds else "") + (", or off" if self.off else "")

    def show(self, value: object) -> str:
        """A value as text that reads back as the same value; secrets are masked."""
        if value is None:
            return "off" if self.off else "-"
        if isinstance(value, tuple):
            texts = [self._mask(str(item)) if self.secret else self.kind.show(item) for item in value]
            return (", " if "," in self.separators else "; ").join(texts) or "-"
        return self._mask(str(value)) if self.secret else self.kind.show(value)

    def _mask(self, text: str) -> str:
        name, equals, _ = text.partition("=")
        return f"{name}=***" if equals and self.kind is ASSIGNMENT else "***"


def _metadata(hint: Any) -> Iterator[Any]:
    """Everything that stands in the `Annotated`s of a type, through unions and tuples, outermost last."""
    origin = get_origin(hint)
    if origin is Annotated:
        yield from _metadata(get_args(hint)[0])
        yield from hint.__metadata__
    elif origin in {Union, types.UnionType, tuple}:
        for part in get_args(hint):
            yield from _metadata(part)


def _members(hint: Any) -> tuple[Any, ...]:
    """The bare types of a union; of any other type itself."""
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in {Union, types.UnionType}:
        return tuple(bare for part in get_args(hint) for bare in _members(part))
    return (hint,)


def _bounds(metas: Sequence[Meta]) -> str:
    words = {"ge": "at least", "gt": "above", "le": "at most"}
    shown = [f"{word} {getattr(meta, end)}" for meta in metas for end, word in words.items()]
    return " and ".join(text for text in shown if not text.endswith("None"))


def _describe(name: str, hint: Any, default: object) -> SettingInfo:
    marks = list(_metadata(hint))
    setting = next(mark for mark in marks if isinstance(mark, Setting))
    members = _members(hint)
    choices = next((get_args(member) for member in members if get_origin(member) is Literal), ())
    usual = SWITCH if bool in members else NUMBER if int in members else CHOICE if choices else TEXT
    kind = next((mark for mark in marks if isinstance(mark, Kind)), usual)
    metas = [mark for mark in marks if isinstance(mark, Meta)]
    octal = kind is OCTAL
    info = SettingInfo(
        name=name,
        kind=kind,
        default="",
        group=setting.group,
        help=setting.help,
        aliases=setting.aliases,
        short=setting.short,
        switches=setting.switches,
        choices=choices,
        bounds="0 to 0777" if octal else _bounds(metas),
        repeatable=any(get_origin(member) is tuple for member in members),
        optional=type(None) in members,
        off=setting.off,
        secret=setting.secret,
        separators=setting.separators,
        hint=hint,
    )
    return dataclasses.replace(info, default=info.show(default))


def _describe_all() -> Mapping[str, SettingInfo]:
    hints = get_type_hints(Config, include_extras=True)
    pristine = Config()
    return {name: _describe(name, hints[name], getattr(pristine, name)) for name in Config.__struct_fields__}


_SETTINGS = _describe_all()
#: Every name that may stand for a setting, and the one it stands for; parts of `bind` stand for themselves.
_NAMES = {name: name for name in _SETTINGS} | {
    alias: info.name for info in _SETTINGS.values() for alias in (*info.aliases, *(word for word, _ in info.switches))
}
#: uvicorn's spellings of one address; `_bind` makes a `bind` of them.
BIND_PARTS = {
    "host": "host to listen on, with --port",
    "port": "port to listen on, with --host",
    "uds": "path of a unix socket to listen on",
    "fd": "number of a descriptor to listen on",
}


def settings() -> tuple[SettingInfo, ...]:
    """Every setting in the order of the table."""
    return tuple(_SETTINGS.values())


# ── from values to a Config ──────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Layer:
    """Settings from one place. `origin` is for people; `spell` makes the name that was written there of a setting's."""

    origin: str
    values: Mapping[str, object]
    spell: Callable[[str], str] = str

    def where(self, key: str) -> str:
        """Where a value came from, as `aserver config` and errors say it."""
        spelled = self.spell(key)
        return self.origin if spelled == key else f"{self.origin}, {spelled}"


@dataclass(frozen=True, slots=True)
class Resolved:
    """A checked configuration and where each value came from ("default" for most).

    `hooks` are the names of the functions that a `.py` settings file, `hooks_file`, defines.
    """

    config: Config
    origins: Mapping[str, str]
    hooks: tuple[str, ...] = ()
    hooks_file: str | None = None


def unknown(key: str, layer: Layer) -> ConfigError:
    """The error for a name that is no setting's, with the nearest that is."""
    near = difflib.get_close_matches(key.lower().replace("-", "_"), (*_NAMES, *BIND_PARTS), n=1, cutoff=0.5)
    hint = f"; did you mean {layer.spell(near[0])}?" if near else ""
    return ConfigError(f"there is no setting {layer.spell(key)} ({layer.origin}){hint}")


def convert(name: str, value: object, origin: str) -> object:
    """The checked value of the setting `name`, from text or from a value of a file. ConfigError names all three."""
    info = _SETTINGS[name]
    try:
        return _convert(info, value)
    except (ValueError, ArithmeticError, msgspec.ValidationError) as error:
        reason = "" if isinstance(error, msgspec.ValidationError) else str(error)
        shown = "***" if info.secret else repr(value)
        own = reason if reason and not reason.startswith(("invalid literal", "[<class")) else ""
        raise ConfigError(f"{name} = {shown} ({origin}): {own or 'expected ' + info.expects()}") from None


def _convert(info: SettingInfo, value: object) -> object:
    if info.off and (value is False or (isinstance(value, str) and value.lower() == "off")):
        return None
    if value is None and info.optional:
        return None
    if info.repeatable:
        return msgspec.convert([_read(info, item) for item in _split(info, value)], info.hint)
    read = _read(info, value)
    if isinstance(read, float) and not math.isfinite(read):
        raise ValueError
    return msgspec.convert(read, info.hint)


def _read(info: SettingInfo, value: object) -> object:
    """Text through the kind's parser; anything else as it is, for msgspec to judge."""
    if info.kind is CHOICE and isinstance(value, bool):
        value = "on" if value else "off"
    if info.name == "cert_reqs" and value in {0, 1, 2, "0", "1", "2"}:
        value = info.choices[int(str(value))]  # ssl.CERT_NONE, CERT_OPTIONAL, CERT_REQUIRED, as gunicorn has it
    if info.kind.numbers and isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    return info.kind.parse(value) if isinstance(value, str) else value


def _split(info: SettingInfo, value: object) -> Iterator[object]:
    if isinstance(value, Mapping) and info.kind in {HEADER, ASSIGNMENT}:
        joint = "=" if info.kind is ASSIGNMENT else ": "
        value = [f"{key}{joint}{text}" for key, text in value.items()]
    for item in value if isinstance(value, list | tuple) else (value,):
        if isinstance(item, str):
            yield from filter(None, (part.strip() for part in re.split(f"[{info.separators}]", item)))
        else:
            yield item


def _own(layer: Layer) -> dict[str, tuple[str, object]]:
    """The settings of one layer under their own names: name -> (as written, value). Raises ConfigError."""
    found: dict[str, tuple[str, object]] = {}
    for key, written in layer.values.items():
        if key in BIND_PARTS:
            continue
        if (name := _NAMES.get(key)) is None:
            raise unknown(key, layer)
        if name in found:
            both = f"{layer.spell(found[name][0])} and {layer.spell(key)}"
            raise ConfigError(f"{name} is set twice ({layer.origin}): as {both}; keep one")
        value = written
        for word, meaning in _SETTINGS[name].switches:
            if word == key:
                on = _convert(_SETTINGS["reload"], written)
                value = meaning if on else not meaning if isinstance(meaning, bool) else _SETTINGS[name].default
        found[name] = (key, value)
    return found


def _bind(layers: Sequence[Layer]) -> tuple[str, str] | None:
    """The address that `host`, `port`, `uds` or `fd` of the uppermost layer that has any of them make.

    `host` and `port` may come from different layers, down to the first that says `bind`. None if a `bind`
    stands above them all, or there are none.
    """
    parts: dict[str, tuple[str, str]] = {}
    for layer in layers:
        here = {key: (str(layer.values[key]), layer.where(key)) for key in BIND_PARTS if key in layer.values}
        names = [key for key in ("bind", *BIND_PARTS) if key in layer.values]
        if len(names) > 1 and names != ["host", "port"]:
            raise ConfigError(f"bind is set twice ({layer.origin}): as {' and '.join(map(layer.spell, names))}")
        parts = here | parts
        if "bind" in names or "uds" in here or "fd" in here:
            break
    if "uds" in parts and len(parts) == 1:
        return f"unix:{parts['uds'][0]}", parts["uds"][1]
    if "fd" in parts and len(parts) == 1:
        return f"fd://{parts['fd'][0]}", parts["fd"][1]
    if not ("host" in parts or "port" in parts):
        return None
    host = parts.get("host", (_DEFAULT_HOST, ""))[0]
    port = parts.get("port", (str(_DEFAULT_PORT), ""))[0]
    where = next(parts[part][1] for part in ("port", "host") if part in parts)
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}", where


def build(layers: Sequence[Layer]) -> Resolved:
    """The first layer that has a setting wins; every layer is checked. Raises ConfigError."""
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    address = _bind(layers)
    for layer in layers:
        if address and "bind" not in values and not BIND_PARTS.keys().isdisjoint(layer.values):
            values["bind"], origins["bind"] = convert("bind", *address), address[1]
        for name, (key, value) in _own(layer).items():
            converted = convert(name, value, layer.where(key))
            if name not in values:
                values[name], origins[name] = converted, layer.where(key)
    config = msgspec.convert(values, Config)
    _check(config, origins)
    return Resolved(config, {name: origins.get(name, "default") for name in _SETTINGS})


def _check(config: Config, origins: Mapping[str, str]) -> None:
    """What settings must not say together. Raises ConfigError."""

    def refuse(wrong: bool, name: str, why: str) -> None:  # noqa: FBT001 - reads as a table
        if wrong:
            raise ConfigError(f"{name} ({origins.get(name, 'default')}): {why}")

    both = "; if one file holds both, name it twice"
    tls = config.certfile is not None
    refuse(tls and config.keyfile is None, "certfile", "is set, but keyfile is not" + both)
    refuse(not tls and config.keyfile is not None, "keyfile", "is set, but certfile is not" + both)
    refuse(config.keyfile_password is not None and not tls, "keyfile_password", "is set, but keyfile is not")
    refuse(not tls and config.ca_certs is not None, "ca_certs", "is set, but certfile is not: there is no TLS")
    refuse(not tls and config.cert_reqs != "none", "cert_reqs", "is set, but certfile is not: there is no TLS")
    refuse(
        config.cert_reqs != "none" and config.ca_certs is None,
        "cert_reqs",
        f"is {config.cert_reqs}, but without ca_certs no client's certificate can be checked",
    )
    refuse(
        config.max_surge == 0 and config.max_unavailable == 0,
        "max_surge",
        "is 0 and max_unavailable is 0 too: no worker could ever be replaced; make one of them at least 1",
    )
    refuse(not config.bind, "bind", "names no address; there would be nothing to serve")
    refuse(not config.forwarded_allow_ips and config.proxy_protocol != "off", "proxy_protocol", "nobody is trusted")
    refuse(
        len(set(config.bind)) < len(config.bind),
        "bind",
        f"names one address twice: {', '.join(config.bind)}",
    )


def warnings(config: Config) -> tuple[str, ...]:
    """Likely mistakes that can be seen without looking at the system; one sentence each."""
    unix = any(address.startswith("unix:") for address in config.bind)
    inet = any(not address.startswith("unix:") for address in config.bind)
    unlimited = config.min_lifetime > config.max_lifetime > 0
    replaced = config.max_unavailable
    likely = (
        (config.max_requests_jitter and not config.max_requests, "max_requests_jitter does nothing: max_requests is 0"),
        (config.max_lifetime_jitter and not config.max_lifetime, "max_lifetime_jitter does nothing: max_lifetime is 0"),
        (
            unlimited,
            f"max_lifetime {config.max_lifetime:g} s is below min_lifetime {config.min_lifetime:g} s, which wins",
        ),
        (
            isinstance(config.workers, int) and replaced >= config.workers,
            f"max_unavailable {replaced} with {config.workers} workers lets a reload leave nobody to serve",
        ),
        (
            0 < config.hang_timeout <= config.slow_callback,
            f"hang_timeout {config.hang_timeout:g} s kills before slow_callback {config.slow_callback:g} s can explain",
        ),
        (
            config.idle_grace > config.graceful_timeout,
            f"idle_grace {config.idle_grace:g} s is cut short by graceful_timeout {config.graceful_timeout:g} s",
        ),
        (
            (config.proxy_headers or config.proxy_protocol != "off") and "*" in config.forwarded_allow_ips and inet,
            "forwarded_allow_ips trusts everybody: any client that can connect can forge its address",
        ),
        (
            not unix and (config.uds_mode, config.uds_owner, config.uds_group) != (None, None, None),
            "uds_mode, uds_owner and uds_group do nothing: no unix socket is bound",
        ),
        (config.ca_certs is not None and config.cert_reqs == "none", "ca_certs does nothing: cert_reqs is none"),
        (config.ciphers is not None and config.certfile is None, "ciphers does nothing: there is no TLS"),
        (config.daemon and config.errorlog == "-", "daemon with errorlog `-`: after detaching nobody sees the log"),
        (config.preload_warmup is not None and not config.preload, "preload_warmup does nothing: preload is off"),
        (config.env_file is None and config.daemon and config.reload, "reload is for development, daemon is not"),
    )
    return tuple(message for wrong, message in likely if wrong)


# ── docs/settings.md ─────────────────────────────────────────────────────────────────────────


def markdown() -> str:
    """The whole text of docs/settings.md."""
    lines = [_PREFACE]
    for group in Group:
        lines += [f"\n## {group}\n", "| setting | default | value | meaning |", "|---|---|---|---|"]
        lines += [_row(info) for info in settings() if info.group is group]
    return "\n".join(lines) + "\n"


def _row(info: SettingInfo) -> str:
    others = [f"`-{info.short}`"] if info.short else []
    others += [f"`{alias}`" for alias in info.aliases] + [f"`{word}`" for word, _ in info.switches]
    if info.name == "bind":
        others += [f"`{part}`" for part in BIND_PARTS]
    meaning = info.help + (f" (also {', '.join(others)})" if others else "")
    value = ("repeatable: " if info.repeatable else "") + info.expects()
    default = "–" if info.default == "-" and info.optional and not info.off else f"`{info.default}`"
    if info.name == "workers":
        default += " (`$WEB_CONCURRENCY`)"
    return f"| `{info.name}` | {default} | {value} | {meaning} |".replace("``", '`""`')


_PREFACE = """\
# Settings

*Generated by `python -m aserver.config`; edit the table in `aserver/config.py` instead.*

On the command line `max_requests` is `--max-requests`, in the environment `ASERVER_MAX_REQUESTS`, in TOML and
Python files `max_requests`; aliases work in all of them. The first that has a setting wins: the command line (or
`run()`'s arguments), the environment, the file, the default. An unknown or badly typed setting is an error that names it, where it
came from and the nearest known name. `aserver config` prints every value with where it came from.

* **Durations** `30`, `1.5`, `500ms`, `30s`, `5m`, `1h`; a bare number is seconds.
* **Sizes** `8190`, `64K`, `512M`, `1GiB`; K, KB and KiB are all 1024 bytes, as nginx has it.
* **On or off** `on`, `true`, `yes`, `1` and their opposites; on the command line `--x` and `--no-x`.
* **Repeatable** settings are repeated on the command line, lists in files, and separated by commas or newlines in
  the environment (`header` and `env` by newlines only: their values may hold commas). In TOML `header` and `env`
  may be tables. A setting from one place replaces the same setting from another; they are never merged.
* **Modes and masks** are octal text, `"022"`; a TOML or Python integer is taken as it is, so write `0o022`.
* **An empty variable** in the environment counts as unset. Variables that Kubernetes makes for a service named
  `aserver` (`ASERVER_PORT=tcp://…`, `ASERVER_SERVICE_HOST`) are not settings and are ignored.
* **The file** is `-c FILE` or `ASERVER_CONFIG`, else `aserver.toml`, else `[tool.aserver]` in `pyproject.toml`, both in the
  current directory. A `.py` file runs in a process of its own, never in the master; functions in it with
  gunicorn's hook names are hooks."""

if __name__ == "__main__":
    sys.stdout.write(markdown())

"""From the `bind` setting and systemd's environment to bound listeners, all or none.

Runs in the master and in the embedding program, before privileges are dropped. It must never set
SO_REUSEPORT unasked (a second server would silently share the port) nor unlink anything it did not make.

    host:port     every address that the name has; port 0 is chosen by the system, the same for all of them
    [v6]:port     IPv6 only (IPV6_V6ONLY), as nginx does: `[::]:80` and `0.0.0.0:80` are two sockets
    :port         all IPv4 addresses, as in gunicorn
    unix:/path    a socket file, which path.py makes, keeps and removes
    unix:@name    Linux's abstract names (unix(7)); no file, so no mode and no owner
    fd://3        a socket that another process bound; it may listen already
    fd://name     each socket that systemd passed under that name (FileDescriptorName=)
    http://...    host and port in the clear, though there is a certificate
    https://...   host and port with TLS, or not at all
    h2c://...     host and port in the clear, where HTTP/2 may be spoken as well

Once there is a certificate, every TCP address that does not say `http://` or `h2c://` is TLS. Unix sockets never are.

Sockets passed by systemd (LISTEN_FDS, sd_listen_fds(3)) replace `bind`, as in gunicorn: a `bind` may be just the
default. Only if a `bind` has an `fd://`, it counts, as the exact list of the addresses.
"""

import contextlib
import errno
import os
import re
import socket
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from aserver.config import Config
from aserver.errors import BindError, ConfigError
from aserver.privileges import identity
from aserver.sockets import passed, port_owner
from aserver.sockets.listener import Listener
from aserver.sockets.passed import Kept
from aserver.sockets.path import SUN_PATH_BYTES, PathListener, peer_pid

_SAME_PORT_TRIES = 16  # a port free on an address is nearly always free on the next
_TCP_SPEC = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]/]*)):(?P<port>\d{1,5})")
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class _Wanted(NamedTuple):
    """The properties of the sockets that are made here, not adopted."""

    uds_mode: int | None
    uds_owner: str | None
    uds_group: str | None
    reuse_port: bool
    tls: bool
    kept: Kept
    passed: Sequence[tuple[int, str]]


def bind_for(
    config: Config, specs: Sequence[str], environ: Mapping[str, str], kept: Kept | None = None
) -> list[Listener]:
    """`bind_all` of `specs`, for this process and with its settings.

    Unless `uds_*` say otherwise, a unix socket belongs to `user` and `group`, and has the mode that `umask` leaves of
    0777, as in gunicorn: proxies run as a user of their own. Raises as `bind_all`.
    """
    owner, group = config.uds_owner, config.uds_group
    if config.user is not None or config.group is not None:
        uid, gid, _ = identity(config.user, config.group)
        owner, group = owner or str(uid), group or str(gid)
    return bind_all(
        specs,
        uds_mode=socket_mode(config),
        uds_owner=owner,
        uds_group=group,
        reuse_port=config.reuse_port,
        environ=environ,
        pid=os.getpid(),
        tls=bool(config.certfile),
        kept=kept,
        admin=config.admin,
    )


def socket_mode(config: Config) -> int:
    """The mode of a unix socket's file."""
    return 0o777 & ~(config.umask or 0) if config.uds_mode is None else config.uds_mode


def bind_all(
    config_bind: Sequence[str],
    *,
    uds_mode: int | None,
    uds_owner: str | None,
    uds_group: str | None,
    reuse_port: bool,
    environ: Mapping[str, str],
    pid: int,
    tls: bool = False,
    kept: Kept | None = None,
    admin: str | None = None,
) -> list[Listener]:
    """Bind everything, or nothing. The caller calls `listen` on each, when it can serve.

    LISTEN_PID must be `pid`. `environ` is only read: the caller keeps LISTEN_* from its children. `tls`: there is a
    certificate. A socket that is `kept` for an address is taken instead of a new one. Passed sockets that `admin` names
    replace no `bind`.
    Raises ConfigError for an address that cannot be understood, BindError if it cannot be bound or adopted. Then
    all sockets bound so far are closed, adopted descriptors included.
    """
    every, own = passed.by_manager(environ, pid), passed.by_manager(environ, pid, admin)
    wanted = _Wanted(uds_mode, uds_owner, uds_group, reuse_port, tls, kept or Kept(), every)
    listeners: list[Listener] = []
    with contextlib.ExitStack() as undo:
        undo.callback(_close_all, listeners)
        if own and not any(spec.startswith("fd://") for spec in config_bind):
            for number, label in own:
                listeners.append(_adopt(number, label, tls=tls))
        elif not config_bind:
            raise ConfigError("bind is empty; the server would listen nowhere")
        else:
            for index, spec in enumerate(config_bind):
                if spec in config_bind[:index]:
                    raise ConfigError(f"bind: {spec!r} is given twice")
                _bind_one(spec, wanted, listeners)
        undo.pop_all()
    return listeners


def _close_all(listeners: Sequence[Listener]) -> None:
    for listener in listeners:
        listener.close()


def _bind_one(spec: str, wanted: _Wanted, listeners: list[Listener]) -> None:
    """Append the listeners of `spec` to `listeners`, each at once, so that the caller can undo them."""
    kind, separator, rest = spec.partition("://" if spec.startswith("fd://") else ":")
    if kind == "fd" and separator == "://":
        if not rest:
            raise ConfigError(f"bind: {spec!r} needs the number or the name of a descriptor after fd://")
        numbered = rest.isascii() and rest.isdecimal()
        for number, label in [(int(rest), "")] if numbered else _named(rest, wanted.passed):
            listeners.append(_adopt(number, label, tls=wanted.tls))
    elif kind == "unix" and rest.startswith("@"):
        listeners.append(_bind_abstract(rest, wanted.kept))
    elif kind == "unix":
        path = path_of(spec)
        listeners.append(
            wanted.kept.take_path(path)
            or PathListener(path, mode=wanted.uds_mode, owner=wanted.uds_owner, group=wanted.uds_group),
        )
    else:
        scheme, _, address = spec.rpartition("://")
        if scheme not in ("", "http", "https", "h2c") or (scheme == "https" and not wanted.tls):
            raise ConfigError(
                f"bind: {spec!r}: " + ("there is no certificate" if scheme == "https" else "no such scheme")
            )
        tls = wanted.tls and scheme not in ("http", "h2c")
        name = "https" if tls else scheme if scheme == "h2c" else "http"
        listeners.extend(_bind_tcp(*_parse_tcp(address), wanted, name))


def path_of(spec: str) -> str:
    """The absolute path in `unix:path`. Raises ConfigError if it cannot be a file's."""
    path = spec.removeprefix("unix:")
    if path.strip("/") in ("", ".", "..") or path.endswith("/") or "\0" in path:
        raise ConfigError(f"bind: {spec!r} needs the path of a file, or @name, after unix:")
    return str(Path(path).absolute())


def _parse_tcp(spec: str) -> tuple[str, int]:
    match = _TCP_SPEC.fullmatch(spec)
    if match is None:
        raise ConfigError(
            f"bind: {spec!r} is no address; write host:port, [IPv6]:port, unix:/path, unix:@name, fd://number or fd://name"
        )
    port = int(match["port"])
    if port > 65535:
        raise ConfigError(f"bind: {spec!r} has port {port}; the highest is 65535")
    return match["v6"] or match["host"] or "0.0.0.0", port  # noqa: S104  # `:port` asks for it


# ── TCP ──────────────────────────────────────────────────────────────────────────────────────


def _bind_tcp(host: str, port: int, wanted: _Wanted, scheme: str) -> list[Listener]:
    """Make a listener for each address of `host`; with port 0 all get the same port."""
    addresses = _resolve(host, port)
    for _ in range(_SAME_PORT_TRIES):
        try:
            sockets = _bind_addresses(addresses, port, wanted)
        except BindError as error:
            if port == 0 and is_taken(error):
                continue
            raise
        return [_tcp_listener(sock, scheme) for sock in sockets]
    raise BindError(f"cannot bind {host}:0: no port was free on all of its {len(addresses)} addresses at once")


def is_taken(error: BindError) -> bool:
    """Whether the address is in use already, and nothing else is wrong with it."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE


def _resolve(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    """Each (family, address) of `host` once, in the resolver's order. Blocks for as long as the resolver does.

    Raises BindError, or ConfigError where the process may not open a file more.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):  # a name needs a codec, a file
            text = f"cannot bind {host}:{port}: {error.strerror}; raise the limit of open files (ulimit -n)"
            raise ConfigError(text) from error
        raise BindError(f"cannot bind {host}:{port}: the name cannot be resolved ({error})") from error
    # The text of an IPv6 address keeps its scope (`fe80::1%eth0`), from which bind(2) takes it.
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _bind_addresses(
    addresses: Sequence[tuple[socket.AddressFamily, str]], port: int, wanted: _Wanted
) -> list[socket.socket]:
    """Bind all addresses of a name. Raises BindError, with the OSError as its cause; closes all then.

    An address that this machine does not have is passed over if another can be bound: in the hosts file of many
    containers `localhost` is also ::1, though they have no IPv6.
    """
    sockets: list[socket.socket] = []
    missing: BindError | None = None
    with contextlib.ExitStack() as undo:
        for family, address in addresses:
            number = sockets[0].getsockname()[1] if port == 0 and sockets else port
            try:
                sock = wanted.kept.take(family, (address, number)) or _bind_address(
                    family, address, number, reuse_port=wanted.reuse_port
                )
            except OSError as error:
                failure = BindError(_why_not(family, address, number, error))
                failure.__cause__ = error
                if error.errno not in _NOT_HERE:
                    raise failure from error
                missing = missing or failure
            else:
                sockets.append(undo.enter_context(sock))
        if missing is not None and not sockets:
            raise missing
        undo.pop_all()
    return sockets


def _bind_address(family: socket.AddressFamily, address: str, port: int, *, reuse_port: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else TIME_WAIT keeps a restart from binding
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _tcp_listener(sock: socket.socket, scheme: str) -> Listener:
    host, port = sock.getsockname()[:2]
    return Listener(sock, _url(sock.family, host, port, scheme), (host, port), tls=scheme == "https")


def _url(family: int, host: str, port: int, scheme: str = "http") -> str:
    return f"{scheme}://{f'[{host}]' if family == socket.AF_INET6 else host}:{port}"


def _why_not(family: int, address: str, port: int, error: OSError) -> str:
    """The sentence for a failed bind(2): the address, the reason, and the process or the rule in the way."""
    where = f"cannot bind {_url(family, address, port)}"
    if error.errno == errno.EADDRINUSE:
        owner = port_owner.of_port(family, address, port) or "another process that cannot be seen from here"
        return f"{where}: port {port} on {address} is in use by {owner}"
    if error.errno == errno.EACCES:
        return (
            f"{where}: uid {os.geteuid()} may not use port {port}, which is below {_first_free_port()}; start as root "
            "with `user` set, give CAP_NET_BIND_SERVICE, let systemd pass the socket, or take a higher port"
        )
    if error.errno in _NOT_HERE:
        return f"{where}: this machine has no address {address}"
    return f"{where}: {error.strerror}"


def _first_free_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text("utf-8"))
    except (OSError, ValueError):
        return 1024  # IPPORT_RESERVED, <netinet/in.h>


# ── abstract names ───────────────────────────────────────────────────────────────────────────


def _bind_abstract(name: str, kept: Kept) -> Listener:
    """Bind `@name`. The kernel frees the name with the last descriptor, so it cannot be stale."""
    if not sys.platform.startswith("linux"):
        raise BindError(f"cannot bind unix:{name}: only Linux has abstract socket names")
    encoded = os.fsencode(name[1:])
    if not 0 < len(encoded) <= SUN_PATH_BYTES:
        raise BindError(f"cannot bind unix:{name}: the name has {len(encoded)} bytes; it needs 1 to {SUN_PATH_BYTES}")
    if (found := kept.take(socket.AF_UNIX, b"\0" + encoded)) is not None:
        return Listener(found, f"unix:{name}", name)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(b"\0" + encoded)
    except OSError as error:
        sock.close()
        owner = port_owner.of_unix({name}, _abstract_peer(encoded)) if error.errno == errno.EADDRINUSE else None
        reason = f"it is in use by {owner or 'another process'}" if error.errno == errno.EADDRINUSE else error.strerror
        raise BindError(f"cannot bind unix:{name}: {reason}") from error
    return Listener(sock, f"unix:{name}", name)


def _abstract_peer(encoded: bytes) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        return peer_pid(client) if client.connect_ex(b"\0" + encoded) == 0 else 0


# ── adopted descriptors ──────────────────────────────────────────────────────────────────────


def _named(name: str, every: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """The passed sockets of that name: a socket unit gives it to each of its sockets. Raises BindError for none."""
    found = [each for each in every if each[1] == name]
    if not found:
        names = ", ".join(dict.fromkeys(label or "unnamed" for _, label in every))
        given = f"LISTEN_FDNAMES has {names}" if names else "systemd passes sockets at a start alone, and passed none"
        raise BindError(f"cannot adopt fd://{name}: no socket of that name was passed; {given}")
    return found


def _adopt(number: int, label: str, *, tls: bool) -> Listener:
    """Take over a bound stream socket. Raises BindError for a descriptor that is none, which then is left as it was."""
    try:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            raise BindError(f"cannot adopt fd://{number}: it is open, but no socket")
        sock = socket.socket(fileno=number)
    except OSError as error:
        raise BindError(f"cannot adopt fd://{number}: {error.strerror}; nobody passed a socket there") from error
    try:
        tls = tls and sock.family != socket.AF_UNIX
        where, address = _where(sock, number, tls=tls)
    except BindError:
        sock.detach()
        raise
    sock.set_inheritable(False)
    return Listener(sock, f"fd://{number}{f' {label}' if label else ''} ({where})", address, tls=tls)


def _where(sock: socket.socket, number: int, *, tls: bool) -> tuple[str, tuple[str, int] | str]:
    """The address of an adopted socket, as text and as address. Raises BindError if it cannot be listened on."""
    if sock.type != socket.SOCK_STREAM or sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        raise BindError(f"cannot adopt fd://{number}: it is no TCP or unix stream socket")
    try:
        sock.getpeername()
    except OSError:
        pass
    else:
        raise BindError(f"cannot adopt fd://{number}: it is a connection, not a socket to accept on")
    bound_to = sock.getsockname()
    if sock.family != socket.AF_UNIX:
        if bound_to[1] == 0:
            raise BindError(f"cannot adopt fd://{number}: it is a socket, but bound to no port")
        return _url(sock.family, bound_to[0], bound_to[1], "https" if tls else "http"), (bound_to[0], bound_to[1])
    path = "@" + os.fsdecode(bound_to[1:]) if isinstance(bound_to, bytes) and bound_to else os.fsdecode(bound_to)
    if not path:
        raise BindError(f"cannot adopt fd://{number}: it is a unix socket, but bound to no path")
    return f"unix:{path}", path

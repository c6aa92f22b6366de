"""Settings that are likely a mistake on this very machine, a sentence each, for the master's log at the start.

Runs once, in the master of the command or of `run()`. Mistakes that can be found without a look at the system are
`Resolved.warnings`. It must stay silent for a plain start on a developer's machine, and must never raise.
"""

import contextlib
import ipaddress
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from aserver import cgroups, unix
from aserver.config import Config
from aserver.sockets.bind import socket_mode

#: systemd's TimeoutStopSec unless the unit or the distribution says otherwise (systemd-system.conf(5)).
SYSTEMD_STOP = 90.0
#: With more workers than this for each usable CPU, they mostly wait for each other. An app that waits for a database
#: needs several.
WORKERS_PER_CPU = 4
#: Descriptors besides the connections: logs, channels, listeners, and files that an app usually has open.
OTHER_FDS = 100
#: Below this, a burst of browsers runs out of descriptors.
FEW_FDS = 1024


def advise(config: Config, workers: int, *, environ: Mapping[str, str], fd_limit: int) -> Iterator[str]:
    """Yield the warnings. `fd_limit` is the soft limit of open descriptors that is in force."""
    stop = config.graceful_timeout + config.lifespan_shutdown_timeout + config.drain_delay
    # INVOCATION_ID is set for every unit (systemd.exec(5)). A process cannot ask for its unit's own timeout,
    # but master/notify extends it if the unit has Type=notify.
    if "INVOCATION_ID" in environ and "NOTIFY_SOCKET" not in environ and stop > SYSTEMD_STOP:
        yield (
            f"graceful_timeout, lifespan_shutdown_timeout and drain_delay make {stop:g} s, "
            f"but systemd kills after {SYSTEMD_STOP:g} s unless the unit has a longer TimeoutStopSec"
        )
    if "SCRIPT_NAME" in environ:
        yield "SCRIPT_NAME in the environment is not read; a prefix that a proxy takes off the path is `root_path`"
    cpus = unix.usable_cpus()
    if workers > WORKERS_PER_CPU * cpus:
        yield f"{workers} workers share {cpus} usable CPUs (affinity and cgroup); more than that only adds memory"
    memory = cgroups.memory_limit()
    if memory is not None and 0 < memory < config.max_memory * workers:
        yield (
            f"max_memory {config.max_memory} times {workers} workers is above the cgroup's limit of {memory} bytes: "
            "the kernel will kill before a worker is recycled"
        )
    if config.limit_request_body == 0 and any(map(_is_public, config.bind)):
        yield "limit_request_body is 0: anybody who can connect can send a body of any size to the application"
    yield from _closed_socket(config)
    wanted = max(FEW_FDS, config.limit_connections + OTHER_FDS)
    if fd_limit < wanted:
        yield f"the limit of open descriptors is {fd_limit}, below {wanted}: connections will be refused (ulimit -n)"


def _closed_socket(config: Config) -> Iterator[str]:
    """A sentence if a unix socket lets in a single user, which a proxy usually is not."""
    paths = [spec for spec in config.bind if spec.startswith("unix:") and not spec.startswith("unix:@")]
    mode = socket_mode(config)
    group = config.uds_group or config.group or str(os.getegid())
    by_group = mode & stat.S_IWGRP and group not in ("0", "root")
    if paths and config.uds_owner is None and not mode & stat.S_IWOTH and not by_group:
        user = config.user or f"uid {os.geteuid()}"
        yield (
            f"{paths[0]} has mode {mode:04o}, so only {user} may connect: a proxy of another user answers 502; "
            "let uds_group name its group, or change uds_mode or umask"
        )
    for spec in paths if config.uds_owner is None else ():
        for directory in Path(spec.removeprefix("unix:")).absolute().parents:
            with contextlib.suppress(OSError):
                found = directory.stat()
                mode = stat.S_IMODE(found.st_mode)
                by_group = bool(mode & stat.S_IXGRP and found.st_gid)
                if not (by_group or mode & stat.S_IXOTH):
                    yield f"{directory} has mode {mode:04o}: a proxy of another user cannot reach {spec}: 502"


def _is_public(address: str) -> bool:
    """Can other machines connect? False for unix sockets and inherited descriptors, of which that is not known."""
    if address.startswith(("unix:", "fd://")):
        return False
    host = address.rpartition("://")[2].rpartition(":")[0].strip("[]")
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host not in ("localhost", "")

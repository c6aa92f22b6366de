"""`aserver check`: would these settings, with this app, serve?

Runs in the operator's command, which becomes `user` before it imports the app and runs its lifespan. It listens
nowhere, forks no worker, and makes no file, because the file would be the operator's and not the service's.
"""

import asyncio
import errno
import os

import click
import uvloop

from aserver import privileges, rights, unix
from aserver.asgi import ASGIApp
from aserver.config import Config, Resolved
from aserver.errors import AppLoadError, BindError, BootError, ConfigError, ExitCode
from aserver.log.access.format import compile_format
from aserver.log.setup import read_log_config
from aserver.master.pidfile import refuse_other_files
from aserver.sockets.bind import bind_for, is_taken, path_of
from aserver.sockets.path import check_length, group_id, user_id
from aserver.tls import Certificates
from aserver.worker.lifespan import Lifespan
from aserver.zygote.preload import preload


def check(resolved: Resolved) -> ExitCode:
    """Load the app, take the census, run lifespan up and down; print the results on standard output.

    Returns OK; raises ConfigError, BindError, AppLoadError or BootError where `aserver run` would not have served.
    """
    config = resolved.config
    assert config.target is not None
    _look_around(config)
    unix.enter_environment(config.env, config.chdir, config.umask)
    privileges.drop_privileges(config.user, config.group)  # as the zygote does, before the application's code
    say = click.echo
    for note in resolved.notes:
        say(f"note       {note}")
    for warning in resolved.warnings:
        say(f"warning    {warning}")
    loaded = preload(config)
    say(f"app        {config.target}: {loaded.app.interface} app loaded")
    for remark in loaded.remarks:
        say(f"warning    {remark}")
    for hazard in loaded.hazards:
        say(f"hazard     {hazard}")
    if not loaded.hazards:
        say("census     nothing that would not survive a fork")
    elif config.preload and config.on_fork_hazard == "refuse":
        raise AppLoadError(f"{len(loaded.hazards)} fork hazards, and on_fork_hazard is refuse")
    elif config.preload:
        then = "each worker will load the app itself" if config.on_fork_hazard == "lazy" else "forked all the same"
        say(f"census     {len(loaded.hazards)} found: {then} (on_fork_hazard={config.on_fork_hazard})")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        supported = runner.run(_try_lifespan(loaded.app.app, config))
    say(f"lifespan   {'up and down' if supported else 'not used'}")
    say("ok")
    return ExitCode.OK


def _look_around(config: Config) -> None:
    """Look at certificates, accounts, files and addresses in the settings. Raises ConfigError or BindError."""
    if config.certfile:
        Certificates(config)
    privileges.identity(config.user, config.group)
    if config.log_config is not None:
        read_log_config(config.log_config)
    if config.accesslog is not None:
        compile_format(config.access_log_format)
    for name, path in (("errorlog", config.errorlog), ("accesslog", config.accesslog)):
        if path not in (None, "-") and (reason := _why_unwritable(path)) is not None:
            raise ConfigError(f"{name} {path} cannot be opened: {reason}")
    # A pidfile that a server has locked is no error: that server may be reloaded with these settings.
    if config.pidfile:
        if (reason := _why_unwritable(config.pidfile)) is not None:
            raise ConfigError(f"pidfile {config.pidfile} cannot be written: {reason}")
        if os.path.exists(config.pidfile):
            refuse_other_files(config.pidfile)
    for spec in config.bind:
        if spec.startswith("unix:") and not spec.startswith("unix:@"):
            _look_at_socket_path(path_of(spec), config)
        elif not spec.startswith("fd:"):  # the service manager passes it to the service, not to this command
            _look_at_address(spec, config)


def _why_unwritable(path: str) -> str | None:
    """The reason for which the file cannot be written, or made if it is not there; None if it can."""
    if os.path.isdir(path):
        return "it is a directory"
    if os.path.exists(path):
        if not os.access(path, os.W_OK):
            return f"uid {os.geteuid()} may not write it"
        try:
            os.close(rights.open_file(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY))
        except OSError as error:  # ENXIO: a FIFO that is not read yet
            return None if error.errno == errno.ENXIO else error.strerror
        return None
    return _why_unusable(os.path.dirname(path) or ".")


def _why_unusable(directory: str) -> str | None:
    if not os.path.isdir(directory):
        return f"the directory {directory} does not exist"
    if not os.access(directory, os.W_OK | os.X_OK):
        return f"uid {os.geteuid()} may not write in the directory {directory}"
    return None


def _look_at_address(spec: str, config: Config) -> None:
    """Bind the address for a moment. An address in use is no error: most likely the server that runs has it."""
    try:
        listeners = bind_for(config, (spec,), {})
    except BindError as error:
        if not is_taken(error):
            raise
    else:
        for listener in listeners:
            listener.close()


def _look_at_socket_path(path: str, config: Config) -> None:
    """Look at the path of a unix socket, its directory, owner and group. A socket that is there is no error."""
    check_length(path)
    if (reason := _why_unusable(os.path.dirname(path))) is not None:
        raise BindError(f"cannot bind unix:{path}: {reason}")
    user_id(config.uds_owner, path)
    group_id(config.uds_group, path)


async def _try_lifespan(app: ASGIApp, config: Config) -> bool:
    lifespan = Lifespan(app, config.lifespan)
    try:
        async with asyncio.timeout(config.boot_timeout):
            await lifespan.startup(config.boot_timeout)
    except TimeoutError:
        raise BootError(f"lifespan startup did not end within {config.boot_timeout:g} s (boot_timeout)") from None
    supported = lifespan.supported
    await lifespan.shutdown(config.lifespan_shutdown_timeout)
    return supported

"""`aserver check`: would this configuration, with this app, serve?

Runs in the operator's command, which imports the app and runs its lifespan; it binds nothing, forks nothing, and makes
no file, which would be the operator's and not the service's.
"""

import asyncio
import os

import click
import uvloop

from aserver import unix
from aserver.asgi import ASGIApp
from aserver.config import Config, Resolved
from aserver.errors import AppLoadError, BootError, ConfigError, ExitCode
from aserver.log.access import compile_format
from aserver.log.setup import read_log_config
from aserver.tls import Certificates
from aserver.worker.lifespan import Lifespan
from aserver.zygote.preload import preload


def check(resolved: Resolved) -> ExitCode:
    """Load the app, take the census, run lifespan up and down; say what was found on standard output.

    Returns OK; raises ConfigError, AppLoadError or BootError where `aserver run` would not have served.
    """
    config = resolved.config
    assert config.target is not None
    _look_around(config)
    unix.enter_environment(config.env, config.chdir, config.umask)
    say = click.echo
    for warning in resolved.warnings:
        say(f"warning    {warning}")
    loaded = preload(config)
    say(f"app        {config.target}: {loaded.app.interface} app loaded")
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
    """What the settings name outside the app: certificates, accounts, logs. Raises ConfigError."""
    if config.certfile:
        Certificates(config)
    unix.identity(config.user, config.group)
    if config.log_config is not None:
        read_log_config(config.log_config)
    if config.accesslog is not None:
        compile_format(config.access_log_format)
    for name, path in (("errorlog", config.errorlog), ("accesslog", config.accesslog)):
        if path in (None, "-"):
            continue
        place = path if os.path.exists(path) else os.path.dirname(path) or "."
        if not os.access(place, os.W_OK):
            raise ConfigError(f"{name} {path} cannot be opened: {place} is not there, or not for us to write")


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

"""`aserver check`: would this configuration, with this app, serve?

Runs in the operator's command, which imports the app and runs its lifespan; it binds nothing and forks nothing.
"""

import asyncio

import click
import uvloop

from aserver import unix
from aserver.asgi import ASGIApp
from aserver.config import Config, Resolved, warnings
from aserver.errors import AppLoadError, BootError, ExitCode
from aserver.tls import Certificates
from aserver.worker.lifespan import Lifespan
from aserver.zygote.preload import preload


def check(resolved: Resolved) -> ExitCode:
    """Load the app, take the census, run lifespan up and down; say what was found on standard output.

    Returns OK; raises AppLoadError or BootError where `aserver run` would not have served, or would have refused.
    """
    config = resolved.config
    assert config.target is not None
    if config.certfile:
        Certificates(config)
    unix.enter_environment(config.env, config.chdir, config.umask)
    say = click.echo
    for warning in warnings(config):
        say(f"warning    {warning}")
    loaded = preload(config)
    say(f"app        {config.target}: {loaded.app.interface} app loaded")
    for hazard in loaded.hazards:
        say(f"hazard     {hazard}")
    if not loaded.hazards:
        say("census     nothing that would not survive a fork")
    elif config.preload and config.on_fork_hazard == "refuse":
        raise AppLoadError(f"{len(loaded.hazards)} fork hazards, and on_fork_hazard is refuse")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        supported = runner.run(_try_lifespan(loaded.app.app, config))
    say(f"lifespan   {'up and down' if supported else 'not used'}")
    say("ok")
    return ExitCode.OK


async def _try_lifespan(app: ASGIApp, config: Config) -> bool:
    lifespan = Lifespan(app, config.lifespan)
    try:
        async with asyncio.timeout(config.boot_timeout):
            await lifespan.startup()
    except TimeoutError:
        raise BootError(f"lifespan startup did not end within {config.boot_timeout:g} s (boot_timeout)") from None
    supported = lifespan.supported
    await lifespan.shutdown(config.lifespan_shutdown_timeout)
    return supported

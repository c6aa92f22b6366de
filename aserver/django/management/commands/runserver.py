"""`manage.py runserver` on aserver: Django's own command and checks, with another server and another reloader in it.

Runs in Django's process. With the reloader that is the master, whose workers import the site; without it, it serves.
"""

import os
import sys
from typing import Any

from django.conf import settings
from django.contrib.staticfiles.management.commands.runserver import Command as RunserverCommand
from django.utils.autoreload import DJANGO_AUTORELOAD_ENV

from aserver import BindError, run
from aserver.django import served


class LiveServer:
    """The part of socketserver's interface that Django's `basehttp.run` uses."""

    def __init__(self, address: tuple[str, int], _handler: type, *, ipv6: bool) -> None:
        host, self.server_port = address
        self._bind = f"[{host}]:{self.server_port}" if ipv6 and ":" in host else f"{host}:{self.server_port}"

    def set_app(self, application: Any) -> None:
        """Take the application, or the name of its factory, which is then imported anew at each save."""
        self._application = application

    def serve_forever(self) -> None:
        """Serve until a signal ends it. Raises OSError for an address that is in use: Django prints its text."""
        try:
            if isinstance(self._application, str):
                # Applications look at Django's mark of the process that serves, such as for a scheduler of their own.
                os.environ[DJANGO_AUTORELOAD_ENV] = "true"
                run(self._application, factory=True, reload=True, bind=self._bind, app_dir=sys.path[0] or ".")
            else:
                run(self._application, bind=self._bind)
        except BindError as error:
            raise OSError(str(error)) from error


class Command(RunserverCommand):  # type: ignore[misc]  # Django brings no types
    """Options as those of Django's command."""

    help = "Starts a development server on aserver: ASGI, WebSockets and static files."
    server_cls = LiveServer

    def run(self, **options: Any) -> None:
        """Serve; `get_handler` says how code is reloaded. Django's reloader would serve in a thread, and start anew."""
        self.inner_run(None, **options)

    def get_handler(self, *_: Any, **options: Any) -> Any:
        """The site, with static files in DEBUG; with the reloader the name of its factory."""
        static = options["use_static_handler"] and (settings.DEBUG or options["insecure_serving"])
        factory = served.with_static_files if static else served.plain
        return f"{factory.__module__}:{factory.__name__}" if options["use_reloader"] else factory()

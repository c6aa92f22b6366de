"""`manage.py runserver` on aserver: Django's own command, checks and autoreload, with another server in it.

Runs in Django's process; with the autoreload in a thread, where no signals are heard: the reloader hears them.
"""

from typing import Any

from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.contrib.staticfiles.management.commands.runserver import Command as RunserverCommand
from django.core.asgi import get_asgi_application
from django.utils.module_loading import import_string

from aserver import BindError, run


class LiveServer:
    """The part of socketserver's interface that Django's `basehttp.run` uses."""

    def __init__(self, address: tuple[str, int], _handler: type, *, ipv6: bool) -> None:
        host, self.server_port = address
        self._bind = f"[{host}]:{self.server_port}" if ipv6 and ":" in host else f"{host}:{self.server_port}"

    def set_app(self, application: Any) -> None:
        """Take the application."""
        self._application = application

    def serve_forever(self) -> None:
        """Serve until a signal ends it. Raises OSError for an address that is in use: Django prints its text."""
        try:
            run(self._application, bind=self._bind)
        except BindError as error:
            raise OSError(str(error)) from error


class Command(RunserverCommand):  # type: ignore[misc]  # Django brings no types
    """Options as those of Django's command."""

    help = "Starts a development server on aserver: ASGI, WebSockets and static files."
    server_cls = LiveServer

    def get_handler(self, *_: Any, **options: Any) -> Any:
        """`ASGI_APPLICATION` or the site's own, with static files in DEBUG."""
        named = getattr(settings, "ASGI_APPLICATION", None)
        application = import_string(named) if named else get_asgi_application()
        if options["use_static_handler"] and (settings.DEBUG or options["insecure_serving"]):
            return ASGIStaticFilesHandler(application)
        return application

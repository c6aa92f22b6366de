"""The site as `runserver` serves it: targets for the processes that aserver starts at each save.

Imported by the worker, where DJANGO_SETTINGS_MODULE is set, and by `runserver` itself. Importing it does nothing.
"""

from typing import Any

from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application
from django.utils.module_loading import import_string


def plain() -> Any:
    """`ASGI_APPLICATION` or the site's own."""
    application = get_asgi_application()
    named = getattr(settings, "ASGI_APPLICATION", None)
    return import_string(named) if named else application


def with_static_files() -> Any:
    """The same with the files of `django.contrib.staticfiles`."""
    return ASGIStaticFilesHandler(plain())

"""Django's ASGI handler, as a project's asgi.py has it."""

from django.core.asgi import get_asgi_application

from tests.apps import django_site

application = get_asgi_application()

__all__ = ["application", "django_site"]

"""Django's WSGI handler, as a project's wsgi.py has it."""

from django.core.wsgi import get_wsgi_application

from tests.apps import django_site

application = get_wsgi_application()

__all__ = ["application", "django_site"]

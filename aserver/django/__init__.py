"""A Django app: with "aserver.django" in INSTALLED_APPS, `manage.py runserver` serves ASGI on aserver.

Imported by Django only. It must come before `django.contrib.staticfiles`, which has a `runserver` that it replaces.
"""

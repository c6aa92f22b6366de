"""The app's configuration, and the check that its `runserver` is the one that Django finds."""

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error, register


class AserverConfig(AppConfig):  # type: ignore[misc]  # Django brings no types
    """Has a label of its own, because Django would take "django" from the name."""

    name = "aserver.django"
    label = "aserver"
    verbose_name = "aserver"

    def ready(self) -> None:
        """Register the check."""
        register(check_order)


def check_order(**_: object) -> list[CheckMessage]:
    """Django takes a command from the first app that has it."""
    names = [each.name for each in apps.get_app_configs()]
    static = "django.contrib.staticfiles"
    if static in names and names.index(static) < names.index("aserver.django"):
        hint = 'put "aserver.django" first in INSTALLED_APPS'
        return [Error(f"runserver is that of {static}, which stands before aserver.django", hint, id="aserver.E001")]
    return []

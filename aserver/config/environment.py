"""The layer of settings from the environment: `ASERVER_MAX_REQUESTS=1000` is `max_requests`.

Pure: it is given the environment. Runs in the command, the embedding program, and the master for a reload.
"""

import re
from collections.abc import Mapping

from aserver.config.build import Layer

PREFIX = "ASERVER_"

# Kubernetes gives every container variables for each service of its namespace. Those of a service named `aserver` or
# `aserver-x` begin like ours ("Environment variables" under Service in its documentation).
_KUBERNETES_NAME = re.compile(
    r"ASERVER_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)"
)
_KUBERNETES_PORT = re.compile(r"(?:tcp|udp|sctp)://")


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """The settings in `environ`. An empty variable counts as unset."""
    values = {
        variable.removeprefix(PREFIX).lower(): text
        for variable, text in environ.items()
        if variable.startswith(PREFIX) and text and not _is_kubernetes(variable, text)
    }
    return Layer("environment", values, lambda key: PREFIX + key.upper())


def _is_kubernetes(variable: str, text: str) -> bool:
    if variable.endswith("_PORT") and _KUBERNETES_PORT.match(text):
        return True
    return _KUBERNETES_NAME.fullmatch(variable) is not None

"""Settings built from one layer, and the errors of those that are refused."""

import pytest

from aserver.config import Config, Layer, build
from aserver.errors import ConfigError


def one(**values: object) -> Config:
    return build([Layer("test", values)]).config


def refused(**values: object) -> str:
    with pytest.raises(ConfigError) as caught:
        one(**values)
    return str(caught.value)

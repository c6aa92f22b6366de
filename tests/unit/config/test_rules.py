"""Settings that exclude each other, and those that are likely mistakes."""

import pytest

from aserver.config import warnings
from tests.unit.config.built import one, refused


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"certfile": "c"}, "keyfile is not"),
        ({"keyfile": "k"}, "certfile is not"),
        ({"keyfile_password": "p"}, "keyfile is not"),
        ({"ca_certs": "c"}, "there is no TLS"),
        ({"cert_reqs": "required"}, "there is no TLS"),
        ({"certfile": "c,d", "keyfile": "k"}, "certfile (test): names 2 files, but keyfile 1"),
        ({"bind": "https://a:1"}, "https://a:1 needs a certificate"),
        ({"bind": "h2c://a:1", "http2": False}, "h2c://a:1 is for HTTP/2, but http2 is off"),
        ({"admin": "https://a:1", "certfile": "c", "keyfile": "k"}, "written without a scheme"),
        ({"certfile": "c", "keyfile": "k", "cert_reqs": "required"}, "without ca_certs"),
        ({"max_surge": 0}, "no worker could ever be replaced"),
        ({"bind": []}, "names no address"),
        ({"bind": "a:1,a:1"}, "twice"),
    ],
)
def test_settings_that_exclude_each_other(values: dict[str, object], says: str) -> None:
    assert says in refused(**values)
    assert "max_surge (test)" in refused(max_surge=0)


@pytest.mark.parametrize(
    "values",
    [
        {"max_requests_jitter": 5},
        {"max_lifetime_jitter": 5},
        {"max_lifetime": 5},
        {"max_unavailable": 1},
        {"hang_timeout": 1},
        {"idle_grace": 60},
        {"forwarded_allow_ips": "*"},
        {"uds_mode": "600"},
        {"env": ["SCRIPT_NAME=/x"]},
        {"certfile": "c", "keyfile": "k", "ca_certs": "a"},
        {"ciphers": "X"},
        {"daemon": True, "errorlog": "-"},
        {"preload": False, "preload_warmup": ["a:b"]},
    ],
)
def test_likely_mistakes_are_warned_of(values: dict[str, object]) -> None:
    (message,) = warnings(one(**values))
    assert any(name in message for name in values)


def test_nothing_is_warned_of_by_default_or_where_it_makes_sense() -> None:
    assert warnings(one()) == ()
    assert warnings(one(forwarded_allow_ips="*", bind="unix:/a", uds_mode="600")) == ()
    assert warnings(one(max_requests=9, max_requests_jitter=5, hang_timeout=0)) == ()

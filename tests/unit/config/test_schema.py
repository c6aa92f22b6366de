"""A single value against its row: lists, secrets, and the value that an error names."""

import pytest

from aserver.config import Config, SettingInfo, settings
from tests.unit.config.built import one, refused


@pytest.mark.parametrize("info", settings(), ids=lambda info: info.name)
def test_a_default_as_shown_reads_back(info: SettingInfo) -> None:
    if info.default:
        assert getattr(one(**{info.name: info.default}), info.name) == getattr(Config(), info.name)


@pytest.mark.parametrize(
    ("name", "values", "wrong"),
    [
        ("header", ["A: b\r\nC: d"], "A: b\r\nC: d"),
        ("bind", ["127.0.0.1:0", "foo:bar"], "foo:bar"),
        ("bind", ("127.0.0.1:0", "fd:x"), "fd:x"),
        ("forwarded_allow_ips", "127.0.0.1,300.1.1.1", "300.1.1.1"),
    ],
)
def test_of_several_values_the_wrong_one_is_named(name: str, values: object, wrong: str) -> None:
    assert refused(**{name: values}).startswith(f"{name} = {wrong!r} (test): ")


def test_secrets_stay_out_of_errors() -> None:
    assert "hunter2" not in refused(keyfile_password=["hunter2"])
    assert "hunter2" not in refused(env=["A=1", "hunter2"])
    assert refused(env="hunter2") == "env = *** (test): a variable is NAME=VALUE"


def test_good_values_of_odd_types() -> None:
    config = one(
        tls_min_version=1.3, user=1000, umask="022", uds_mode=0o660, lifespan=False, accesslog=False, admin="off",
        control="off", workers="auto", env={"A": "1"}, root_path="/api/", hang_timeout=5, certfile="c", keyfile="k",
    )  # fmt: skip
    assert (config.tls_min_version, config.user, config.umask, config.uds_mode) == ("1.3", "1000", 0o22, 0o660)
    assert (config.lifespan, config.accesslog, config.admin, config.control) == ("off", None, None, None)
    assert (config.workers, config.env, config.root_path) == ("auto", ("A=1",), "/api")
    assert isinstance(config.hang_timeout, float)


def test_repeatable_text_is_split_at_commas_and_newlines_but_headers_at_newlines_only() -> None:
    config = one(bind="a:1, b:2\nunix:/c", header="A: 1, 2\nB: 3", env="X=1,2\nY=3")
    assert config.bind == ("a:1", "b:2", "unix:/c")
    assert config.header == ("A: 1, 2", "B: 3")
    assert config.env == ("X=1,2", "Y=3")
    assert one(env=["X=two\nlines"]).env == ("X=two\nlines",)

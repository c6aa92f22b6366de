"""Settings from variables `ASERVER_...`."""

from pathlib import Path

from aserver.config.layers import load


def test_variables_that_are_empty_or_kubernetes_own_are_no_settings(tmp_path: Path) -> None:
    environ = {
        "ASERVER_USER": "",
        "ASERVER_PORT": "tcp://10.0.0.1:80",
        "ASERVER_PORT_80_TCP": "tcp://10.0.0.1:80",
        "ASERVER_PORT_80_TCP_ADDR": "10.0.0.1",
        "ASERVER_SERVICE_HOST": "10.0.0.1",
        "ASERVER_SERVICE_PORT": "80",
        "ASERVER_SERVICE_PORT_HTTP": "80",
        "ASERVER_WEB_PORT": "tcp://10.0.0.1:80",
        "ASERVER_WEB_SERVICE_HOST": "10.0.0.1",
    }
    assert load(environ=environ, cwd=tmp_path).config.bind == ("127.0.0.1:8000",)
    assert load(environ={"ASERVER_PORT": "81"}, cwd=tmp_path).config.bind == ("127.0.0.1:81",)


def test_lists_and_flags_in_the_environment(tmp_path: Path) -> None:
    config = load(
        environ={"ASERVER_BIND": "a:1,unix:/b", "ASERVER_LAZY": "yes", "ASERVER_HEADER": "A: 1, 2"}, cwd=tmp_path
    ).config
    assert (config.bind, config.preload, config.header) == (("a:1", "unix:/b"), False, ("A: 1, 2",))

"""Variables of other servers: which are read, and which are only named. Each docstring says how it was seen to fail."""

from pathlib import Path

from aserver.config.layers import load
from tests.unit.config.starts import write


def test_port_and_other_variables(tmp_path: Path) -> None:
    """$PORT is every address where no bind is set. Fails without `lowest_layers`, or with it above the file."""
    environ = {"PORT": "5000", "FORWARDED_ALLOW_IPS": "*"}
    resolved = load(command_line={}, environ=environ, cwd=tmp_path)
    assert (resolved.config.bind, resolved.origins["bind"]) == (("0.0.0.0:5000",), "$PORT")
    assert resolved.config.forwarded_allow_ips == ("*",)
    assert load(command_line={"port": "6"}, environ=environ, cwd=tmp_path).config.bind == ("127.0.0.1:6",)
    write(tmp_path / "aserver.toml", "bind = ':7'")
    assert load(command_line={}, environ=environ, cwd=tmp_path).config.bind == ("0.0.0.0:7",)
    resolved = load(command_line={}, environ={"UVICORN_TIMEOUT_KEEP_ALIVE": "9"}, cwd=tmp_path)
    assert resolved.warnings == ("UVICORN_TIMEOUT_KEEP_ALIVE is uvicorn's and is not read; say ASERVER_KEEP_ALIVE=9",)


def test_uwsgis_variables_are_not_read_and_told(tmp_path: Path) -> None:
    """Each that is an option of uWSGI's. Fails with uvicorn's and granian's alone."""
    environ = {
        "UWSGI_HTTP_SOCKET": ":80",
        "UWSGI_PROCESSES": "4",
        "UWSGI_CHEAPER": "2",
        "UWSGI_ORIGINAL_PROC_NAME": "x",
    }
    listen, processes, cheaper = load(command_line={}, environ=environ, cwd=tmp_path).warnings
    assert listen == "UWSGI_HTTP_SOCKET is uwsgi's and is not read; say ASERVER_BIND=:80"
    assert processes == "UWSGI_PROCESSES is uwsgi's and is not read; say ASERVER_WORKERS=4"
    assert cheaper.startswith("UWSGI_CHEAPER is uwsgi's and is not read; ")
    assert load(keywords={}, environ=environ, cwd=tmp_path).warnings == ()


def test_a_port_that_is_no_number_keeps_nothing_from_starting(tmp_path: Path) -> None:
    """Fails with an error for a variable that may be meant for another program."""
    resolved = load(command_line={}, environ={"PORT": "tcp://10.0.0.1:80"}, cwd=tmp_path)
    assert resolved.config.bind == ("127.0.0.1:8000",)
    assert resolved.warnings == ("$PORT is no number and is not read",)

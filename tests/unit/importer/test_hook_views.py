"""The objects that hooks get, with gunicorn's attributes. Each docstring says how it was seen to fail."""

import os

import pytest

from aserver.config import Config, Layer, build
from aserver.importer.hook_views import ServerView, SettingsView, WorkerView


def server(**values: object) -> ServerView:
    config = build([Layer("test", values)]).config
    return ServerView(config, 2, 4711, namespace={"mine": "a", "_hidden": "b"})


def test_settings_by_our_names_by_gunicorns_and_the_files_own() -> None:
    """Fails with our names alone; a name that neither has is an error with a sentence."""
    cfg = server(workers=3, hang_timeout=40, keep_alive=5, max_requests=9).cfg
    assert (cfg.workers, cfg.timeout, cfg.keepalive, cfg.max_requests) == (3, 40.0, 5.0, 9)
    assert cfg.mine == "a"
    assert cfg.worker_tmp_dir is None, "gunicorn's alone"
    for name in ("_hidden", "no_such_name"):
        with pytest.raises(AttributeError, match=f"cfg.{name}: neither aserver nor gunicorn has a setting {name}"):
            getattr(cfg, name)


def test_addresses_as_gunicorn_has_them() -> None:
    """A pair, a path, a number or a name. Fails with the text of `bind`."""
    view = server(bind=["127.0.0.1:80", "[::1]:81", "http://h:82", "unix:/a.sock", "fd://3", "fd://web"])
    expected = [("127.0.0.1", 80), ("::1", 81), ("h", 82), "/a.sock", 3, "web"]
    assert view.cfg.address == view.address == expected


def test_variables_of_env() -> None:
    """A value may have the sign itself. Fails where it is split at each."""
    assert server(env=["A=1=2", "B="]).cfg.env == {"A": "1=2", "B": ""}


def test_server_and_worker_as_gunicorn_has_them() -> None:
    """Fails with the zygote's pid for the master's, or the whole timeout."""
    view = server(hang_timeout=40, proc_name="shop", workers="auto")
    assert (view.pid, view.generation, view.num_workers, view.proc_name, view.timeout) == (
        4711,
        2,
        "auto",
        "shop",
        40.0,
    )
    worker = WorkerView(view, age=5, slot=1)
    assert (worker.ppid, worker.generation, worker.timeout, worker.booted, worker.alive) == (
        4711,
        2,
        20.0,
        False,
        False,
    )
    worker.pid = os.getpid()
    assert (worker.booted, worker.alive, str(worker)) == (True, True, f"<Worker {os.getpid()}>")
    assert worker.cfg.workers == "auto"
    worker.log.reopen_files()
    assert worker.log.error_log.name == "aserver.error"
    assert worker.log.access_log.name == "aserver.access"


@pytest.mark.parametrize(
    ("written", "bound", "shown", "address"),
    [
        ("unix:run.sock", "unix:./run.sock", "unix:run.sock", "run.sock"),
        (["unix:run.sock"], "unix:./run.sock", "unix:run.sock", "run.sock"),
        ("unix:./run.sock", "unix:./run.sock", "unix:./run.sock", "./run.sock"),
        (None, "127.0.0.1:8000", "127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("unix:run.sock", "unix:./other.sock", "unix:./other.sock", "./other.sock"),
    ],
)
def test_bind_is_what_the_file_has(written: object, bound: str, shown: str, address: object) -> None:
    """As gunicorn shows it. Fails without `_bind`: a relative path has the `./` that it gets here."""
    view = SettingsView(Config(target="shop:app", bind=(bound,)), {"bind": written})
    assert (view.bind, view.address) == ([shown], [address])

"""What processes tell each other may be longer than a socket takes at once: many modules, and errors of any length."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import PATIENCE, ServerProcess

pytestmark = pytest.mark.process

Start = Callable[..., ServerProcess]

#: litellm has 3,863 (issue: 435 KB of names, and a socket takes 213 KB).
MODULES = 4000
APP = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(LOADED).encode()})
"""


def _many_modules(directory: Path) -> None:
    """An app that imports MODULES modules with names of the usual length."""
    package = directory / "a_package_with_a_name_of_the_usual_length"
    package.mkdir()
    (package / "__init__.py").touch()
    for number in range(MODULES):
        (package / f"a_module_with_a_name_of_the_usual_length_{number}.py").touch()
    (directory / "many.py").write_text(
        "import importlib, sys\n"
        f"name = '{package.name}.a_module_with_a_name_of_the_usual_length_'\n"
        f"for number in range({MODULES}):\n"
        "    importlib.import_module(f'{name}{number}')\n"
        "LOADED = sum(each.startswith(name) for each in sys.modules)\n"
        f"{APP}"
    )


@pytest.mark.parametrize("how", ["--lazy", "--preload", "falls back"])
def test_an_app_of_thousands_of_modules_becomes_ready(server: Start, tmp_path: Path, how: str) -> None:
    """Fails without `flush_by` in the worker (the two lazy ones) and without POLLOUT in the zygote (the preloaded one).

    The worker served, and its READY stayed half written until `boot_timeout` ended it.
    """
    _many_modules(tmp_path)
    options: tuple[str, ...] = (how,)
    if how == "falls back":
        options = ()
        with (tmp_path / "many.py").open("a") as file:
            file.write("import threading, time\n")
            file.write("threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n")
    running = server("many:app", "--workers", "2", *options, cwd=tmp_path, env={"PYTHONDONTWRITEBYTECODE": "1"})
    assert running.fetch().body == str(MODULES).encode()
    if how == "--lazy":  # one waits for the next look at all files; its fingerprint comes in pieces as the others' do
        for number in (0, MODULES - 1):
            next(tmp_path.glob(f"*/*_length_{number}.py")).write_text("changed = True\n")
        running.wait_log(rf"_length_0.py, .*_length_{MODULES - 1}.py changed on disk since the code was loaded")
    assert running.stop() == 0


@pytest.mark.parametrize("mode", ["--lazy", "--preload"])
@pytest.mark.parametrize("when", ["import", "startup"])
def test_an_error_of_any_length_is_told(tmp_path: Path, mode: str, when: str) -> None:
    """Its beginning and its end. Fails without `shorten`: more than 4 MB break the channel, and no reason is told."""
    raising = f"raise ValueError('from here ' + 'x' * {5 << 20} + ' to there')"
    lifespan = f"async def app(scope, receive, send):\n    {raising}\n"
    (tmp_path / "long.py").write_text(f"{raising}\n{APP}" if when == "import" else lifespan)
    with ServerProcess("long:app", mode, "--lifespan", "on", cwd=tmp_path) as running:
        assert running.wait_exit(PATIENCE) == (4 if when == "import" else 3)
        log = running.log
    for said in ("from here xxx", "xxx to there", "characters are left out"):
        assert log.count(said) >= 2, f"{said!r} in the reason and in the traceback, of each attempt"
    assert len(log) < 1 << 20


def test_settings_of_any_length_reach_the_zygote(server: Start) -> None:
    """More than the socket takes at once. Fails without `flush_by` in the master."""
    long = [part for number in range(5) for part in ("--env", f"LONG_{number}={'x' * 100_000}")]
    running = server("tests.apps.raw:app", *long)
    assert running.fetch("/").status == 200
    assert running.stop() == 0

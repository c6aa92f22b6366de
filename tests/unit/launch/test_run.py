"""`aserver.run` and `aserver.serve` as a program sees them, up to where they would serve."""

import asyncio
import pydoc
import re
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

import aserver
from aserver.asgi import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None: ...


def typed_calls() -> int:
    """Never called. `mypy --strict` reads it, and refuses each `ignore` that is not needed (warn_unused_ignores)."""
    code = aserver.run(app, port=8000, log_level="info", timeout_keep_alive=5, header={"X-A": "b"}, accesslog=False)
    aserver.run("main:app", workers="auto", graceful_timeout="30s", max_memory="512M", bind=["unix:/run/app.sock"])
    aserver.run(app, prot=1)  # type: ignore[call-arg]
    aserver.run(app, port="8000")  # type: ignore[arg-type]
    aserver.run(app, interface="asgj")  # type: ignore[arg-type]
    aserver.run(1)  # type: ignore[arg-type]
    asyncio.run(aserver.serve(app, fd=3, install_signal_handlers=True))
    asyncio.run(aserver.serve(app, wrokers=2))  # type: ignore[call-arg]
    try:
        return code
    except aserver.ConfigError as error:
        return error.exit_code


async def test_run_in_a_running_loop_names_serve() -> None:
    """Fails without _refuse_running_loop: the loop says that it cannot be nested, and leaves a coroutine behind."""
    for target in (app, "main:app"):
        with pytest.raises(aserver.AserverError, match=r"running event loop.*await aserver\.serve"):
            aserver.run(target)


def test_under_trio_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails without the looks for asyncio's loop: a RuntimeError from deep below, or a trio loop that stands still."""
    with pytest.raises(aserver.AserverError, match=r"asyncio loop.*trio"):
        aserver.serve(app).send(None)
    monkeypatch.setitem(sys.modules, "trio", SimpleNamespace(lowlevel=SimpleNamespace(in_trio_run=lambda: True)))
    with pytest.raises(aserver.AserverError, match="trio"):
        aserver.run(app)


def test_a_whole_server_in_a_thread_is_refused() -> None:
    """Fails with the ValueError of `signal`, after the address is bound."""
    raised = []

    def start() -> None:
        with pytest.raises(aserver.AserverError, match="main thread") as caught:
            aserver.run("main:app", port=0)
        raised.append(caught.value)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert raised


def test_the_package_shows_its_names_and_stays_cheap() -> None:
    """In `dir()` and `help()`. Fails without __dir__; and with the launcher imported at once."""
    assert set(aserver.__all__) <= set(dir(aserver))
    shown = re.sub(r"\(\s+", "(", pydoc.plain(pydoc.render_doc(aserver)))  # Python 3.13 breaks long signatures
    for words in ("run(app_or_target", "serve(app_or_target", "class ConfigError"):
        assert words in shown
    code = (
        "import sys, aserver; print([name for name in sys.modules if name.startswith('aserver') or name == 'asyncio'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['aserver']"

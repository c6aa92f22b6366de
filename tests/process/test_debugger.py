"""`breakpoint()` in a handler, on a terminal: keys reach it, silence kills nothing, Ctrl-C comes back to its prompt."""

import os
import termios
import threading
import time
from pathlib import Path

import pytest

from aserver.errors import ExitCode
from tests.harness import PATIENCE, ServerProcess, Terminal
from tests.harness.client import RawConnection

pytestmark = pytest.mark.process

APP = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    answer = 40
    if scope["path"] == "/break":
        breakpoint()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(answer).encode()})
"""
#: Seconds of silence after which a worker without a debugger would be killed.
HANG = 0.6


@pytest.mark.parametrize("verb", ["dev", "run"])
def test_a_debugger_is_let_alone(verb: str, tmp_path: Path) -> None:
    """Ctrl-C opens the prompt again, the handler goes on with another `answer`, and then Ctrl-C stops the server.

    At a prompt it is Ctrl-backslash that ends all.

    Fails without `held` in on_beats (the worker is aborted after HANG), without `_prompting` (the server stops, or
    after pdb has let go, Ctrl-C opens the prompt again), and without `modes_kept` (the terminal has no echo).
    """
    (tmp_path / "main.py").write_text(APP)
    command = [*ServerProcess.command("main:app"), "--bind", "127.0.0.1:0", "--lifespan", "off"]
    command[command.index("run")] = verb
    limits = ("--hang-timeout", str(HANG), "--slow-callback", str(HANG / 2), "--log-level", "debug")
    with Terminal() as terminal, ServerProcess(argv=terminal.attach([*command, *limits]), cwd=tmp_path) as server:
        server.wait_ready()
        far = os.open(terminal.name, os.O_RDWR | os.O_NOCTTY)
        modes = termios.tcgetattr(far)
        answers: list[str] = []
        asking = threading.Thread(target=lambda: answers.append(server.fetch("/break").text))
        asking.start()
        server.wait_for(lambda: terminal.screen.count(b"(Pdb) ") == 1, what="the prompt")
        begin = time.monotonic()
        server.wait_for(lambda: time.monotonic() - begin > 3 * HANG, what="the time to hang to pass")
        for count, keys in enumerate((b"\x03", b"answer += 1\n", b"\x03", b"answer += 1\n"), start=2):
            terminal.press(keys)
            server.wait_for(lambda count=count: terminal.screen.count(b"(Pdb) ") == count, what="the prompt")  # type: ignore[misc]
        assert terminal.screen.count(b"--KeyboardInterrupt--") == 2
        terminal.press(b"c\n")
        asking.join(PATIENCE)
        assert answers == ["42"]
        assert "stood still" not in server.log, "nothing is printed over it"
        if verb == "run":
            with RawConnection(server.where) as client:
                client.send(b"GET /break HTTP/1.1\r\nHost: localhost\r\n\r\n")
                server.wait_for(lambda: terminal.screen.count(b"(Pdb) ") == 6, what="the prompt")
                terminal.press(b"\x1c")
                assert server.wait_exit() == ExitCode.KILLED
        else:
            server.wait_log("the debugger has gone")
            terminal.press(b"\x03")
            assert server.wait_exit() == ExitCode.OK
        assert termios.tcgetattr(far) == modes
        os.close(far)

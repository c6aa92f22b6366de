"""A real headless Chromium, by its DevTools protocol (https://chromedevtools.github.io/devtools-protocol/).

No library stands between: `websockets` is there anyway, and the tests need a dozen commands.
"""

import base64
import itertools
import json
import os
import re
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from websockets.sync.client import ClientConnection, connect

from tests.harness.waiting import PATIENCE, wait_for

_LISTENING = re.compile(r"DevTools listening on (ws://\S+)")
#: Programs of Debian and others.
NAMES = ("chromium", "chromium-browser", "google-chrome")


class Browser:
    """One browser with one page. `problems` are errors of scripts and violations of policies."""

    def __init__(self, program: str) -> None:
        self.problems: list[str] = []
        self._profile = tempfile.TemporaryDirectory(prefix="aserver-browser-", ignore_cleanup_errors=True)
        self._log = Path(self._profile.name, "log")
        options = ["--headless=new", "--remote-debugging-port=0", f"--user-data-dir={self._profile.name}"]
        options += ["--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars"]
        options += ["--no-sandbox"] if os.geteuid() == 0 else []
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([program, *options, "about:blank"], stdout=log, stderr=log)
        self._stack = ExitStack()
        self._numbers = itertools.count(1)
        self._socket: ClientConnection | None = None
        self._session: str | None = None

    def __enter__(self) -> Self:
        try:
            self._attach()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _attach(self) -> None:
        found = wait_for(
            lambda: _LISTENING.search(self._log.read_text(errors="replace")),
            what="the browser",
            explain=lambda: self._log.read_text(errors="replace"),
        )
        assert found is not None
        self._socket = self._stack.enter_context(connect(found[1], max_size=1 << 26, proxy=None))
        (page,) = [each for each in self.call("Target.getTargets")["targetInfos"] if each["type"] == "page"]
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._process.kill()
        self._process.wait()
        self._profile.cleanup()

    def call(self, method: str, **parameters: Any) -> Any:
        """The result of a command."""
        assert self._socket is not None
        number = next(self._numbers)
        order = {"id": number, "method": method, "params": parameters}
        self._socket.send(json.dumps(order | ({"sessionId": self._session} if self._session else {})))
        while True:
            told = json.loads(self._socket.recv(PATIENCE))
            if told.get("id") == number:
                assert "error" not in told, f"{method}: {told['error']}"
                return told["result"]
            self._note(told)

    def _note(self, told: dict[str, Any]) -> None:
        more = told.get("params", {})
        match told.get("method"):
            case "Runtime.exceptionThrown":
                self.problems.append(more["exceptionDetails"].get("exception", {}).get("description", str(more)))
            case "Log.entryAdded" if more["entry"]["level"] == "error" and more["entry"]["source"] != "network":
                self.problems.append(f"{more['entry']['text']} {more['entry'].get('url', '')}")
            case _:
                pass

    def show(self, url: str, width: int, height: int, *, dark: bool = False) -> None:
        """Load a page in a window of that size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)

    def ask(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, script: str, what: str) -> Any:
        """Wait until the value of an expression in the page is true."""
        return wait_for(lambda: self.ask(script), what=what, explain=lambda: f"problems: {self.problems}")

    def press(self, key: str) -> None:
        """A key, by the name that `KeyboardEvent.key` has for it."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}
        more = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]} | (
            {"text": "\r"} if key == "Enter" else {}
        )
        self.call("Input.dispatchKeyEvent", type="keyDown", **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", **more)

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Write a PNG of the page."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

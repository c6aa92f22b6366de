"""NiceGUI in a real Chromium: its page, its socket, its button; also after a reload, which its script comes back from.

Part of `make apps`; without a Chromium it is skipped (apt-get install chromium).
"""

import os
import shutil
import signal
from collections.abc import Callable

import pytest

from tests.harness import ServerProcess
from tests.harness.browser import NAMES, Browser

PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)

#: The label, behind a mark; it has another text while the page loads.
TEXT = "(document.body ? '!' + document.querySelector('.nicegui-content')?.firstElementChild?.innerText : '')"

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not os.environ.get("TEST_APPLICATIONS"), reason="`make apps` runs it"),
    pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium here (apt-get install chromium)"),
]


def test_a_page_lives_through_a_reload(server: Callable[..., ServerProcess]) -> None:
    """Fails where the old worker keeps its WebSockets: the page would stay as it is."""
    running = server("tests.apps.real.nicegui_pages:app", "--workers", "1", "--preload", "--graceful-timeout", "2")
    assert PROGRAM is not None
    with Browser(PROGRAM) as page:
        page.show(running.url, 1000, 700)
        for generation in (1, 2):
            page.wait(f"{TEXT}.includes('not clicked')", "a fresh page")
            # Its socket may not be there yet, so the press is repeated, as a person would.
            page.wait(f"document.querySelector('button')?.click(), {TEXT}.endsWith('!clicked')", f"click {generation}")
            if generation == 1:
                running.signal(signal.SIGHUP)
                running.wait_log("reload complete: generation 2 serves", timeout=60)
    assert running.stop() == 0

"""The dashboard in a real browser: it shows what a master tells, at any size, in both schemes, to eyes and to readers.

`make dashboard` runs them: a browser is too heavy for the suite. Without a Chromium they are skipped there, too.
"""

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.dashboard.stage import Stage, status, worker
from tests.harness import ServerProcess
from tests.harness.browser import NAMES, Browser

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not os.environ.get("TEST_DASHBOARD"), reason="`make dashboard` runs these"),
]

PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)
#: The contrast of each text with what is behind it (https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio), if it is poor.
CONTRAST = """(() => {
  const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const part = (value) => ((value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const [r, g, b, alpha] = parse(getComputedStyle(node).backgroundColor);
      if (alpha === undefined) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.getClientRects().length || node.closest(".hidden, noscript")) continue;
    const style = getComputedStyle(node);
    const [a, b] = [light(parse(node.closest("svg") ? style.fill : style.color)), light(behind(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    seen += 1;
    if (ratio < 4.5) poor.push(`${walker.currentNode.data}: ${ratio.toFixed(2)}`);
  }
  return seen > 20 ? poor : [`only ${seen} texts`];
})()"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if PROGRAM is None:
        pytest.skip("there is no Chromium here (apt-get install chromium)")
    with Browser(PROGRAM) as started:
        yield started


@pytest.fixture
def page(browser: Browser) -> Iterator[Browser]:
    browser.problems.clear()
    yield browser
    assert not browser.problems


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage() as made:
        made.serves()
        yield made


def begin(page: Browser, stage: Stage, width: int = 1280, *, dark: bool = False) -> None:
    """Two workers, one of which drains, and one for its slot; requests of two classes; a death."""
    workers = (worker(1), worker(2, phase="draining", waits_for="its clients, for at most 24 s"), worker(2, serial=3))
    stage.happen("worker.died", "worker 1 (generation 1, pid 4711) <img src=/x onerror=alert(1)> crashed with SIGSEGV")
    stage.look(status(*workers, uptime=60.0, workers_wanted=2))
    page.show(stage.url, width, 900, dark=dark)
    page.wait("document.readyState === 'complete' && $('rows').children.length === 3", "three workers")
    stage.count("2xx", 100, 20)
    stage.count("5xx", 0, 0, 5)
    stage.look(status(*workers, uptime=62.0, workers_wanted=2))
    page.wait("$('rate').querySelector('b').textContent === '63'", "the rate")


def test_it_shows_what_the_master_tells(page: Browser, stage: Stage) -> None:
    """Fails with text taken for markup, which a message may hold; with nothing said of what is blocked or not ready."""
    begin(page, stage)
    assert page.ask("document.title") == "2/2 shop.asgi:application"
    assert page.ask("$('state').innerText") == "Ready"
    assert page.ask("[...$('rate').querySelectorAll('.legend li:not([hidden])')].map((li) => li.innerText)") == [
        "2xx\n60", "5xx\n2.5",
    ]  # fmt: skip
    assert page.ask("$('latency').querySelector('b').textContent") == "21 ms"
    assert "draining" in page.ask("$('rows').children[1].innerText")
    assert "waits for its clients" in page.ask("$('rows').children[1].innerText")
    assert "<img src=/x" in page.ask("$('events').innerText")
    assert page.ask("$('strip').querySelectorAll('.kind-death').length") == 1

    stage.happen("reload.ends", "reload complete: generation 2 serves", outcome="complete")
    blocked = worker(1, silent=9.0)
    stage.look(status(blocked, uptime=64.0, ready=False, reason="no worker's event loop has turned for 9 s"))
    page.wait("$('rows').children.length === 1", "workers that have gone to be taken away")
    assert "blocked for 9 s" in page.ask("$('rows').innerText")
    assert page.ask("$('state').innerText") == "Not ready: no worker's event loop has turned for 9 s"
    assert page.ask("$('events').children.length") == 2
    stage.line.close()
    page.wait("$('state').innerText === 'No answer; trying again'", "the end to be told")


def test_keyboard_and_screen_reader(page: Browser, stage: Stage) -> None:
    """Fails with what only a pointer reaches, with a table that is none any more, and with each tick read out."""
    begin(page, stage, 375)
    order = []
    for _ in range(6):
        page.press("Tab")
        order.append(page.ask("document.activeElement.innerText || document.activeElement.getAttribute('aria-label')"))
    assert order[:2] == ["Skip to the workers", "Pause"]
    assert [text.split(" at ")[0] for text in order[2:]] == [
        "Requests per second", "Latency", "Event loop lag", "Memory of all workers",
    ]  # fmt: skip
    page.press("ArrowLeft")
    assert "Memory of all workers at" in page.ask("$('news').textContent")
    page.press("Escape")
    assert page.ask("cursor") is None

    found = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = [each["role"]["value"] for each in found if not each["ignored"]]
    assert (roles.count("row"), roles.count("columnheader"), roles.count("rowheader")) == (4, 10, 3)
    assert roles.count("cell") == 27
    headings = [each["name"]["value"] for each in found if each["role"]["value"] == "heading"]
    assert headings == ["shop.asgi:application", "Traffic", "Workers", "Time line"]
    page.ask("announce('')")
    page.ask("$('pause').focus()")
    page.press("Enter")
    assert page.ask("$('pause').getAttribute('aria-pressed')") == "true"
    stage.look(status(worker(7), uptime=64.0))
    page.wait("data.status.workers.length === 1", "the next tick")
    assert page.ask("$('rows').children.length") == 3, "paused"
    page.press("Enter")
    assert page.ask("$('rows').children.length") == 1
    assert page.ask("$('news').textContent") == "", "an ordinary tick is not read out"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_each_size_in_both_schemes(page: Browser, stage: Stage, dark: bool) -> None:
    """Fails with a page that scrolls sideways, and with a text that is too pale."""
    begin(page, stage, 375, dark=dark)
    assert page.ask("matchMedia('(prefers-color-scheme: dark)').matches") is dark
    for width in (320, 375, 768, 1280, 2560):
        page.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        assert page.ask("document.documentElement.scrollWidth") <= width
        assert page.ask(CONTRAST) == []


def test_it_loads_nothing_from_elsewhere_and_runs_nothing_else(page: Browser, stage: Stage) -> None:
    """Fails without the policy."""
    begin(page, stage)
    loaded = page.ask("performance.getEntriesByType('resource').map((each) => each.name)")
    assert loaded
    assert all(each.startswith((stage.url, "data:")) for each in loaded)
    page.ask("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.evil = 1'}))")
    assert page.ask("window.evil") is None
    assert page.ask("fetch('http://127.0.0.1:1/').then(() => 'sent', (error) => error.name)") == "TypeError"
    assert any("Content Security Policy" in each for each in page.problems)
    page.problems.clear()


def test_a_real_server(page: Browser) -> None:
    """From a master to the screen. Fails with any difference between Stage and a master."""
    with ServerProcess("tests.apps.controlled:app", "--workers", "2", "--admin", "127.0.0.1:0") as running:
        running.wait_ready()
        (found,) = running.wait_log(r"admin endpoint: (http://\S+)")
        page.show(found[1], 1280, 900)
        page.wait("typeof data !== 'undefined' && $('state').innerText === 'Ready'", "a server that is ready")
        assert page.ask("$('rows').children.length") == 2
        first = running.workers()[0]
        first.kill()
        page.wait("$('events').innerText.includes('SIGKILL')", "the death to be shown")
        page.wait("$('state').innerText === 'Ready' && data.samples.length > 1", "the next worker")
        assert running.stop() == 0

"""deploy/Dockerfile, built and run without an engine (container.py); `make image`, as root.

`make image IMAGE=plain` leaves the compiler out, which takes most of the time. `make image ENGINE=podman` has buildah
build it and podman run it (engine.py).
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.tools import lacking
from tests.harness.waiting import wait_for
from tests.image import engine
from tests.image.container import Container, Stage, build

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = REPOSITORY / "deploy" / "Dockerfile"
#: Kubernetes makes such variables of a Service called `aserver`.
LINKS = {"ASERVER_PORT": "tcp://10.0.0.1:80", "ASERVER_SERVICE_HOST": "10.0.0.1", "ASERVER_PORT_80_TCP_PROTO": "tcp"}
#: A slim image has no curl.
FETCH = [
    "python",
    "-c",
    "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/', timeout=20).read().decode())",
]

APP = """\
import os
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": f"{os.getuid()} {os.getppid()}".encode()})
"""

pytestmark = [
    pytest.mark.skipif(not os.environ.get("TEST_IMAGE"), reason="`make image` runs it"),
    pytest.mark.timeout(1000),
]


def base_python() -> str:
    """The system's interpreter, which any user may run, as that of the base image."""
    python = "/usr/bin/python3"
    new_enough = "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"
    if not os.path.exists(python) or subprocess.run([python, "-c", new_enough], check=False).returncode:
        lacking("/usr/bin/python3 of 3.11 or newer, with ensurepip, is not here")
    return python


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Stage | engine.Image:
    place = tmp_path_factory.mktemp("image")
    if os.environ.get("TEST_IMAGE_ENGINE"):
        return engine.Engine(place).build(DOCKERFILE, REPOSITORY)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], check=True)  # with which all is gone
    return build(DOCKERFILE, REPOSITORY, place, base_python())


@pytest.fixture
def container(image: Stage | engine.Image, tmp_path: Path) -> Iterator[Container | engine.Container]:
    with image.start(APP, ["app:app", "--workers", "2"], LINKS, tmp_path / "log") as started:
        wait_for(lambda: "all 2 workers are ready" in started.read(), what="readiness", explain=started.read)
        yield started


def test_the_file_passes_hadolint() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed")
    checked = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "")


def test_a_life_in_a_container(container: Container | engine.Container) -> None:
    """Not root, PID 1, nothing but /tmp is writable, and SIGTERM is a stop. Fails without USER."""
    assert container.image.user.isdecimal(), "Kubernetes' runAsNonRoot takes no name"
    version = container.run("aserver", "--version").stdout
    assert ("protocol compiled" in version) is (os.environ["TEST_IMAGE"] != "plain")
    assert container.run(*FETCH).stdout.split()[0] == container.image.user
    assert container.run("touch", "/srv/file").returncode != 0
    assert container.run("touch", "/opt/aserver/file").returncode != 0
    assert container.run("touch", "/tmp/file").returncode == 0
    assert container.run("cat", "/proc/1/comm").stdout.startswith("aserver")
    container.init.kill(signal.SIGTERM)
    assert container.process.wait(60) == 0
    assert container.read().rstrip().endswith("stopped")


def test_orphans_are_reaped(container: Container | engine.Container) -> None:
    """As PID 1 it becomes their parent. Fails without unix.reap_strangers in the chores."""
    init = container.init
    assert container.run("sh", "-c", "sleep 2 & sleep 2 & true").returncode == 0

    def orphans() -> list[str]:
        return [each.title for each in container.children(init.pid) if "aserver" not in each.title]

    assert [title.strip("()").split()[0] for title in orphans()] == ["sleep", "sleep"], "they run, or wait for a parent"
    wait_for(lambda: not orphans(), what="the orphans to be reaped", explain=lambda: str(orphans()))


def test_the_health_check_says_whether_clients_should_come(container: Container | engine.Container) -> None:
    check = container.image.command["HEALTHCHECK"]
    assert container.run(*check).returncode == 0
    container.init.kill(signal.SIGWINCH)
    wait_for(lambda: container.run(*check).returncode == 1, what="it to be unhealthy", explain=container.read)
    container.init.kill(signal.SIGHUP)
    wait_for(lambda: container.run(*check).returncode == 0, what="it to be healthy again", explain=container.read)

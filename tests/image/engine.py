"""The same image by a real engine: buildah performs deploy/Dockerfile, podman runs it (`make image ENGINE=podman`).

Needs root. No registry is asked for the base image: one of its name is made of Debian's packages. Images and containers
are kept in a folder of the test's.
"""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.harness import processes

#: The Debian that has the Python of the base image, and its packages in place of the image's own build of Python.
SUITE, PACKAGES = "trixie", ("ca-certificates", "python3.13-venv", "libpython3.13-dev")
#: Of the Debian that runs this: what a private index needs, if there is one.
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True)
class Engine:
    """Where buildah and podman keep what they make."""

    place: Path

    def words(self, program: str, *words: str | Path) -> list[str]:
        storage = ("--root", self.place / "store", "--runroot", self.place / "run", "--storage-driver", "vfs")
        return [program, *map(str, storage), *map(str, words)]

    def do(self, program: str, *words: str | Path) -> str:
        """Its output. Raises CalledProcessError."""
        return subprocess.run(self.words(program, *words), stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

    def make_base(self, name: str) -> None:
        """An image called `name` of Debian's Python, which is where that of the real image is: `python` in PATH."""
        root = self.place / "base"
        subprocess.run(["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, root], check=True)
        python = root / "usr/local/bin/python"
        python.write_text('#!/bin/sh\nexec /usr/bin/python3.13 "$@"\n', "utf-8")
        python.chmod(0o755)
        shutil.copy(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
        (root / "etc/pip.conf").write_text(f"[global]\ncert = {CERTIFICATES}\n", "utf-8")
        container = self.do("buildah", "from", "scratch")
        self.do("buildah", "add", "--quiet", container, root, "/")
        self.do("buildah", "commit", "--quiet", container, name)
        self.do("buildah", "rm", container)
        shutil.rmtree(root)

    def build(self, dockerfile: Path, context: Path) -> "Image":
        """The image of the Dockerfile, with its base images made before."""
        # crun refuses a machine that has both versions of cgroups; the mounts are this namespace's own.
        subprocess.run(["umount", "/sys/fs/cgroup/unified"], check=False)
        # It also gives /dev/null to the container's user: to one of this namespace's.
        subprocess.run(["mknod", "-m", "666", self.place / "null", "c", "1", "3"], check=True)
        subprocess.run(["mount", "--bind", self.place / "null", "/dev/null"], check=True)
        for name in {
            line.split()[1] for line in dockerfile.read_text("utf-8").splitlines() if line.startswith("FROM ")
        }:
            self.make_base(f"docker.io/library/{name}")
        options = ("--isolation", "chroot", "--pull=never", "--format", "docker")
        words = ("bud", *options, "-f", dockerfile, "-t", "aserver", context)
        try:
            self.do("buildah", *words)
        except subprocess.CalledProcessError:  # on a busy machine: "sealing memfd copy: Device or resource busy"
            self.do("buildah", *words)
        return Image(self)


@dataclass(frozen=True)
class Image:
    """An image called `aserver`, and what it says of its containers; as `container.Stage`."""

    engine: Engine

    @property
    def user(self) -> str:
        return str(self._config["User"])

    @property
    def command(self) -> dict[str, list[str]]:
        """HEALTHCHECK's, without the word for its form."""
        return {"HEALTHCHECK": self._config["Healthcheck"]["Test"][1:]}

    def start(self, app: str, words: list[str], environ: dict[str, str], log: Path) -> "Container":
        """A container whose /srv/app.py is `app`."""
        source = log.with_name("app.py")
        source.write_text(app, "utf-8")
        return Container(self, source, words, environ, log)

    @property
    def _config(self) -> dict[str, Any]:
        (found,) = json.loads(self.engine.do("buildah", "inspect", "--type", "image", "aserver").join("[]"))
        config: dict[str, Any] = found["Docker"]["config"]
        return config


class Container:
    """A container of an image, as `container.Container`; without a network, where it has a loopback interface."""

    def __init__(self, image: Image, app: Path, words: list[str], environ: dict[str, str], log: Path) -> None:
        self.image, self._engine, self._log = image, image.engine, log
        self._name = f"aserver-{os.getpid()}-{log.parent.name}"
        options = ["--rm", "--name", self._name, "--read-only", "--tmpfs", "/tmp", "--network", "none"]
        options += ["--cgroups", "disabled", "--volume", f"{app}:/srv/app.py:ro"]
        # podman's own limits are higher than the machine's, which not every root may raise.
        options += ["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096"]
        for name, value in environ.items():
            options += ["--env", f"{name}={value}"]
        with log.open("wb") as file:
            command = self._engine.words("podman", "run", *options, "aserver", *words)
            alone = os.environ | {"DISABLE_HC_SYSTEMD": "true"}  # there may be no systemd to run HEALTHCHECK
            self.process = subprocess.Popen(command, stdout=file, stderr=file, env=alone)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(self._engine.words("podman", "rm", "--force", "--time", "1", self._name), check=False)
        self.process.kill()
        self.process.wait()

    @property
    def init(self) -> processes.Process:
        """Its PID 1, as the host sees it."""
        pid = int(self._engine.do("podman", "inspect", "--format", "{{.State.Pid}}", self._name))
        return next(each for each in processes.processes() if each.pid == pid)

    def children(self, pid: int) -> list[processes.Process]:
        return [each for each in processes.processes() if each.parent == pid]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        words = self._engine.words("podman", "exec", self._name, *command)
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)

    def read(self) -> str:
        return self._log.read_text("utf-8", "replace")

"""The steps of a Dockerfile without an engine: stages are overlays of this machine's root, a container is namespaces.

Needs root and a mount namespace of its own (`make image`), with which all mounts go. Knows the instructions that
deploy/Dockerfile has, and refuses others.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.harness import processes
from tests.harness.waiting import wait_for

_WORDS = re.compile(r"(\w+)=(\S+)")


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Each instruction and its argument."""
    text = re.sub(r"\\\n", "", dockerfile.read_text("utf-8"))
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name, argument) for name, _, argument in (line.partition(" ") for line in lines)]


@dataclass
class Stage:
    """A root directory in the making, and what the image says of its containers."""

    root: Path
    environ: dict[str, str]
    folder: str = "/"
    user: str = "0"
    command: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def on(cls, place: Path, python: str) -> Self:
        """Of this machine's root, where `python` is that of the base image."""
        for name in ("upper", "work", "root"):
            (place / name).mkdir(parents=True)
        root = place / "root"
        layers = f"lowerdir=/,upperdir={place}/upper,workdir={place}/work"
        _mount("-t", "overlay", "overlay", "-o", layers, str(root))
        for name in ("proc", "dev"):
            _mount("--rbind", f"/{name}", str(root / name))
        for name in ("tmp", "run"):
            _mount("-t", "tmpfs", "tmpfs", str(root / name))
        found = root / "usr/local/bin/python"
        found.unlink(missing_ok=True)
        found.write_text(f'#!/bin/sh\nexec {python} "$@"\n', "utf-8")  # a link would be taken for the prefix
        found.chmod(0o755)
        return cls(root, {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin"})

    def perform(self, name: str, argument: str, context: Path, stages: dict[str, Self]) -> None:
        """An instruction between two FROM."""
        match name:
            case "RUN":
                if "apt-get" not in argument:  # this machine has the compiler
                    self._run(argument)
            case "WORKDIR":
                self.folder = argument
                (self.root / argument.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "COPY":
                self._copy(argument.split(), context, stages)
            case "ENV":
                for key, value in _WORDS.findall(argument):
                    self.environ[key] = value.replace("$PATH", self.environ["PATH"])
            case "USER":
                self.user = argument
            case "HEALTHCHECK":
                self.command[name] = json.loads(argument.partition(" CMD ")[2])
            case "ENTRYPOINT" | "CMD":
                self.command[name] = json.loads(argument)
            case "EXPOSE":
                pass
            case _:
                raise AssertionError(f"{name} is not known here")

    def start(self, app: str, words: list[str], environ: dict[str, str], log: Path) -> "Container":
        """A container whose /srv/app.py is `app`."""
        (self.root / "srv" / "app.py").write_text(app, "utf-8")
        return Container(self, words, environ, log)

    def _run(self, command: str) -> None:
        environ = {key: value for key, value in os.environ.items() if key.startswith(("PIP_", "SSL_", "HTTP"))}
        environ.pop("PIP_CONSTRAINT", None)  # a file of the repository, which is not there
        if os.environ["TEST_IMAGE"] == "plain":
            command = command.replace("HATCH_BUILD_HOOKS_ENABLE=1 ", "")
        within = f"cd {self.folder} && {command}"
        subprocess.run(["chroot", self.root, "sh", "-c", within], env=environ | self.environ, check=True)

    def _copy(self, words: list[str], context: Path, stages: dict[str, Self]) -> None:
        options = [word for word in words if word.startswith("--")]
        *sources, target = [word for word in words if not word.startswith("--")]
        for source in sources:
            origin = context / source
            if options:
                origin = stages[options[0].removeprefix("--from=")].root / source.lstrip("/")
            place = self.root / os.path.join(self.folder, target).lstrip("/")
            if origin.is_dir():
                shutil.copytree(origin, place, symlinks=True, dirs_exist_ok=True)
            else:
                shutil.copy(origin, place)


def build(dockerfile: Path, context: Path, place: Path, python: str) -> Stage:
    """The last stage of the Dockerfile."""
    stages: dict[str, Stage] = {}
    stage = None
    for name, argument in instructions(dockerfile):
        if name == "FROM":
            alias = argument.partition(" AS ")[2] or f"stage{len(stages)}"
            stage = stages[alias] = Stage.on(place / alias, python)
        else:
            assert stage is not None
            stage.perform(name, argument, context, stages)
    assert stage is not None
    return stage


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


class Container:
    """`docker run --read-only --tmpfs /tmp` of an image: own processes, network and mounts; the command is PID 1."""

    def __init__(self, image: Stage, words: list[str], environ: dict[str, str], log: Path) -> None:
        root, self.image, self.log = image.root, image, log
        self._environ = [f"{key}={value}" for key, value in {**image.environ, **environ}.items()]
        begin = shlex.join([*self._as_user(), *image.command["ENTRYPOINT"], *words])
        script = (
            f"ip link set lo up && mount -t proc proc {root}/proc && mount --rbind {root} {root}"
            f" && mount -o remount,bind,ro {root} && mount -t tmpfs -o mode=1777 tmpfs {root}/tmp"
            f" && exec chroot {root} {begin}"
        )
        spaces = ["unshare", "--pid", "--fork", "--kill-child", "--net", "--mount", "--ipc", "--uts"]
        with log.open("wb") as file:
            self.process = subprocess.Popen([*spaces, "sh", "-c", script], stdout=file, stderr=file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # unshare's --kill-child does not reach PID 1: after a change of user its parent's death is no signal any more.
        if self.process.poll() is None:
            for init in self.children(self.process.pid):
                init.kill(signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    def _as_user(self) -> list[str]:
        user = self.image.user
        drop = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs"]
        return [*drop, "env", "-i", f"--chdir={self.image.folder}", *self._environ]

    @property
    def init(self) -> processes.Process:
        """Its PID 1, as the host sees it."""
        return wait_for(lambda: self.children(self.process.pid), what="PID 1")[0]

    def children(self, pid: int) -> list[processes.Process]:
        return [each for each in processes.processes() if each.parent == pid]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """As `docker exec` does."""
        enter = ["nsenter", f"--target={self.init.pid}", "--pid", "--net", "--mount", "--ipc", "--uts", "--root"]
        words = [*enter, *self._as_user(), *command]
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)

    def read(self) -> str:
        return self.log.read_text("utf-8", "replace")

"""The environment of the servers under test: a virtualenv for each Python version, with peers of fixed versions.

Runs in the harness process. It never touches the harness's own environment.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent
REQUIREMENTS = HERE / "requirements.txt"

_VERSIONS = """
import importlib.metadata, importlib.util, json, sys
found = {}
for module, distribution in json.loads(sys.argv[1]):
    try:
        if importlib.util.find_spec(module) is not None:
            found[module] = importlib.metadata.version(distribution)
    except ImportError:
        pass
print(json.dumps(found))
"""


class InstallError(Exception):
    """pip could not install a package. The message is the line of its output that has the reason."""


@dataclass(frozen=True)
class Environment:
    """A virtualenv with the peers and aserver."""

    path: Path

    @property
    def bin(self) -> Path:
        """The directory of its commands."""
        return self.path / "bin"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.bin / "python"

    def versions(self, wanted: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Return the version of each distribution whose module can be imported, by module."""
        asked = json.dumps(list(wanted))
        done = subprocess.run(
            [self.python, "-c", _VERSIONS, asked], check=True, capture_output=True, text=True, cwd=self.path
        )
        found: dict[str, str] = json.loads(done.stdout)
        return found

    def python_version(self) -> str:
        """Return its interpreter's version, such as `3.11.7`."""
        done = subprocess.run([self.python, "--version"], check=True, capture_output=True, text=True)
        return done.stdout.split()[1]


def locate(python: str) -> Environment:
    """Return the environment that belongs to an interpreter. It need not exist yet."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    version = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    return Environment(HERE / f".env-{version}")


def prepare(python: str = sys.executable) -> tuple[Environment, list[str]]:
    """Make the environment, or bring it up to date if a version has changed; return it and a list of problems.

    Raises InstallError if a peer cannot be installed, because a comparison with fewer peers than promised would be
    dishonest. If aserver cannot be installed, the list has that problem, and the peers are measured without aserver.
    """
    environment = locate(python)
    if _stale(environment, "peers", REQUIREMENTS):
        print(f"bench: installing the peers into {environment.path.name} ...", file=sys.stderr)
        subprocess.run([python, "-m", "venv", environment.path], check=True)
        _pip(environment, "-r", str(REQUIREMENTS))
        _settle(environment, "peers", REQUIREMENTS)
    problems = []
    sources = subject_files()
    if _stale(environment, "aserver", *sources):
        print("bench: compiling and installing aserver ...", file=sys.stderr)
        try:
            _install_subject(environment, compiled=True)
        except InstallError as error:
            problems.append(f"aserver could not be compiled, so its rows are the interpreted one's: {error}")
            try:
                _install_subject(environment, compiled=False)
            except InstallError as worse:
                problems.append(f"aserver could not be installed from the checkout: {worse}")
        else:
            _settle(environment, "aserver", *sources)
    return environment, problems


def subject_files() -> list[Path]:
    """Return the files from which aserver is built."""
    files = [CHECKOUT / name for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE")]
    package = (path for path in (CHECKOUT / "aserver").rglob("*") if path.is_file())
    return files + sorted(path for path in package if path.suffix not in (".pyc", ".so"))


def copy_subject(directory: Path) -> None:
    """Copy the files from which aserver is built."""
    for path in subject_files():
        copy = directory / path.relative_to(CHECKOUT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)


def _install_subject(environment: Environment, *, compiled: bool) -> None:
    """Install aserver, its protocol modules compiled if there is a compiler.

    It is built from a copy, because the build leaves compiled modules beside the source. In the checkout they would
    hide later changes of the source, from which the row `aserver-pure` runs.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        copy_subject(Path(name))
        _pip(environment, name, compiled=compiled)


def _stale(environment: Environment, what: str, *sources: Path) -> bool:
    """Tell whether the environment is incomplete, or was made from other contents of these files."""
    stamp = environment.path / f"bench-{what}"
    return not stamp.exists() or stamp.read_text() != _digest(sources)


def _settle(environment: Environment, what: str, *sources: Path) -> None:
    (environment.path / f"bench-{what}").write_text(_digest(sources))


def _digest(sources: Iterable[Path]) -> str:
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def _pip(environment: Environment, *what: str, compiled: bool = False) -> None:
    command = [str(environment.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what]
    env = {**os.environ, "HATCH_BUILD_HOOKS_ENABLE": "1"} if compiled else None
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env)
    if done.returncode != 0:
        # pip ends with hints; the reason is in the last line that names an error.
        lines = [line.strip() for line in done.stderr.splitlines()]
        telling = [line for line in lines if "Error: " in line or line.startswith("ERROR: ")]
        raise InstallError(telling[-1] if telling else " ".join(done.stderr.split())[-300:])

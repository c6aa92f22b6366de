"""Settings that the application's user could change are not root's to obey."""

import os
import sys
from pathlib import Path

import pytest

from aserver.config import Resolved
from aserver.config.env_file import read_env_file
from aserver.config.layers import load
from aserver.errors import ConfigError

NOBODY = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root has what to lose")


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder of nobody's."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    return folder


def read(cwd: Path, **given: object) -> Resolved:
    return load(keywords=given, environ={}, cwd=cwd)


@pytest.mark.parametrize("name", ["aserver.toml", "pyproject.toml", "named.toml", "named.py"])
@pytest.mark.parametrize("inside", [True, False])
def test_a_file_that_the_user_may_change_is_refused(theirs: Path, name: str, inside: bool) -> None:
    """Named or found; the user named in the file or beside it."""
    user = '[tool.aserver]\nuser = "nobody"' if name == "pyproject.toml" else 'user = "nobody"'
    other = "[tool.aserver]\nworkers = 2" if name == "pyproject.toml" else "workers = 2"
    (theirs / name).write_text(user if inside else other)
    given = {} if inside else {"user": "nobody"}
    named = {"config": name} if name.startswith("named") else {}
    says = rf"config .*{name}: user nobody \(uid {NOBODY}\), .* may change {theirs}; root does not obey"
    with pytest.raises(ConfigError, match=says):
        read(theirs, **given, **named)


def test_a_python_file_is_refused_before_it_runs(theirs: Path, tmp_path: Path) -> None:
    """Where the user is known before. Fails with the look behind the reading alone."""
    ran = tmp_path / "ran"
    (theirs / "settings.py").write_text(f"open({str(ran)!r}, 'w')")
    with pytest.raises(ConfigError, match="root does not obey"):
        read(theirs, config="settings.py", user="nobody")
    assert not ran.exists()


def test_log_config_is_obeyed_too(theirs: Path, tmp_path: Path) -> None:
    """It opens files, and names classes that are called: by the master."""
    (theirs / "logging.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"log_config .*logging.json: user nobody"):
        read(tmp_path, user="nobody", log_config=str(theirs / "logging.json"))


@pytest.mark.parametrize(
    ("owner", "settings"),
    [
        (NOBODY, {}),  # no user: the application is root itself
        (NOBODY, {"user": "root"}),
        (NOBODY, {"group": "daemon"}),
        (1, {"user": "nobody"}),  # another user's, as where a deploy user owns what a service user serves
        (0, {"user": "nobody"}),
    ],
)
def test_what_is_not_refused(theirs: Path, owner: int, settings: dict[str, object]) -> None:
    """Fails where the file's owner alone decides."""
    os.chown(theirs, owner, 0)
    (theirs / "aserver.toml").write_text("workers = 2")
    os.chown(theirs / "aserver.toml", owner, 0)
    assert read(theirs, **settings).config.workers == 2


def test_a_pyproject_that_says_nothing_of_us_is_the_project_s(theirs: Path) -> None:
    (theirs / "pyproject.toml").write_text('[project]\nname = "x"')
    assert read(theirs, user="nobody").file is None


def test_not_as_root_nothing_is_refused(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    (theirs / "aserver.toml").write_text('user = "nobody"')
    assert read(theirs).config.user == "nobody"


def test_env_file_leads_to_nothing_that_its_maker_may_not_read(theirs: Path, tmp_path: Path) -> None:
    """The file may be the user's own: what it says is for the application. Fails with open(): the secret is told."""
    secret = tmp_path / "secret"
    secret.write_text("TOKEN=1\n")
    secret.chmod(0o600)
    (theirs / "env").symlink_to(secret)
    os.lchown(theirs / "env", NOBODY, NOBODY)
    with pytest.raises(ConfigError, match=r"env_file: .* cannot be read: a symbolic link on the way was made by uid"):
        read_env_file(theirs / "env")
    (theirs / "env").unlink()
    (theirs / "env").write_text("A=1\n")
    os.chown(theirs / "env", NOBODY, NOBODY)
    assert read(theirs, user="nobody", env_file="env").config.env == ("A=1",)

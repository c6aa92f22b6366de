"""Where the control socket stands, and how a command finds it."""

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from aserver.config import Config
from aserver.errors import ConfigError
from aserver.master.control import place


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This user's own directory; short, as a socket's path has to be."""
    with tempfile.TemporaryDirectory(prefix="actl") as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        monkeypatch.setattr(tempfile, "tempdir", directory)  # where servers of other tests are not
        yield Path(directory)


def running(runtime: Path) -> list[str]:
    """The sockets that a command finds, without those in other places, where other tests' servers run meanwhile."""
    return [path for path in place.running() if Path(path).parent == runtime]


def test_its_own_place_is_for_its_user_alone(runtime: Path) -> None:
    """Mode 0600 in a directory of mode 0700, and found by a command. Fails without the mode."""
    listener, sentence = place.bind(Config())
    assert listener is not None
    assert not sentence
    path = runtime / f"aserver-{os.getpid()}.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert running(runtime) == [str(path)]
    listener.close()
    assert not path.exists()


def test_without_a_runtime_directory_it_makes_one(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the temporary directory. Fails if a directory that others may enter is taken: the server starts without."""
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(tempfile, "tempdir", str(runtime))
    own = runtime / f"aserver-{os.geteuid()}"
    listener, _ = place.bind(Config())
    assert listener is not None
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    listener.close()
    own.chmod(0o755)
    listener, sentence = place.bind(Config())
    assert listener is None
    assert "there is no control socket" in sentence
    assert str(own) in sentence


def test_what_a_killed_server_left_is_removed(runtime: Path) -> None:
    """Fails without the look for stale sockets: they would be there for ever."""
    listener, _ = place.bind(Config())
    assert listener is not None
    stale = runtime / "aserver-1.sock"
    os.link(runtime / f"aserver-{os.getpid()}.sock", stale)
    os.unlink(runtime / f"aserver-{os.getpid()}.sock")
    listener.socket.close()
    hidden = runtime / ".aserver-1.sock~"
    hidden.touch()
    assert running(runtime) == []
    again, _ = place.bind(Config())
    assert again is not None
    assert not stale.exists()
    assert not hidden.exists()
    again.close()


def test_a_place_that_was_asked_for(runtime: Path) -> None:
    """Its directory is made; one in which others may write is refused. Fails without the look at the mode."""
    path = runtime / "run" / "a.sock"
    listener, _ = place.bind(Config(control=str(path)))
    assert listener is not None
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    listener.close()
    path.parent.chmod(0o777)
    with pytest.raises(ConfigError, match="others may write in its directory"):
        place.bind(Config(control=str(path)))
    assert place.bind(Config(control=None)) == (None, "")

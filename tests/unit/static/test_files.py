"""From a path to an open file inside a directory. Ways out of it, by whole requests, are in test_app.py."""

import os
from pathlib import Path

import pytest

from aserver.static.files import CHUNK, OpenFile, open_file, read

NOTHING: frozenset[str] = frozenset()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "page.css").write_text("page")
    return root


def opened(root: Path, path: str, accepts: frozenset[str] = NOTHING) -> OpenFile:
    found = open_file(str(root), path, accepts)
    assert isinstance(found, OpenFile), found
    return found


@pytest.mark.parametrize(
    ("path", "status"),
    [("", 404), ("sub", 301), ("sub/", 404), ("../secret", 404), ("sub//page.css", 404), ("page.css/", 404)],
)
def test_what_is_no_file_in_it_is_a_status(root: Path, path: str, status: int) -> None:
    """Fails where a directory without an index is redirected to itself for ever."""
    assert open_file(str(root), path, NOTHING) == status


def test_a_link_that_is_put_there_after_the_look_leads_nowhere(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails without O_NOFOLLOW: `realpath` saw the file, and open(2) follows the link that has taken its place."""
    real = os.path.realpath

    def then_replaced(path: str, **how: bool) -> str:
        found = real(path, **how)
        if found.endswith("page.css"):
            (root / "page.css").unlink()
            (root / "page.css").symlink_to(root.parent / "secret")
        return found

    monkeypatch.setattr(os.path, "realpath", then_replaced)
    assert open_file(str(root), "page.css", NOTHING) == 404


def test_a_compressed_file_that_is_older_is_stale(root: Path) -> None:
    """Fails without the look at both times: the version before would be served for ever."""
    (root / "page.css.gz").write_text("old")
    os.utime(root / "page.css.gz", (1, 1))
    plain = opened(root, "page.css", frozenset({"gzip"}))
    assert (plain.file.encoding, plain.file.varies) == ("", False)
    plain.close()
    os.utime(root / "page.css", (1, 1))
    (root / "page.css.br").write_text("newer")
    best = opened(root, "page.css", frozenset({"gzip"}))
    assert (best.file.encoding, best.file.varies, best.file.name) == ("gzip", True, "page.css")
    best.close()
    plain = opened(root, "page.css")
    assert (plain.file.encoding, plain.file.varies) == ("", True)
    plain.close()


def test_a_file_that_nobody_takes_closes_itself(root: Path) -> None:
    """A request may be cancelled while a thread opens it. Fails without `__del__`; and a second close is nothing."""
    found = opened(root, "page.css")
    descriptor = found.descriptor
    del found
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    found = opened(root, "page.css")
    found.close()
    found.close()


def test_reading_goes_by_chunks_and_a_file_that_shrank_is_an_error(root: Path) -> None:
    """Fails with an answer that ends early as if it were whole."""
    (root / "big").write_bytes(b"x" * (CHUNK + 5))
    found = opened(root, "big")
    assert len(read(found.descriptor, 0, CHUNK + 5)) == CHUNK
    assert read(found.descriptor, CHUNK, CHUNK + 5) == b"xxxxx"
    with pytest.raises(OSError, match="a static file ended at"):
        read(found.descriptor, CHUNK + 5, CHUNK + 9)
    found.close()

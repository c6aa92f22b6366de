"""The server that a command speaks to, here the test's own. Each docstring says how it was seen to fail."""

import json
import socket
import threading
from pathlib import Path

import pytest

from aserver.command import instances
from aserver.command.instances import HungUp, Line, Refused, Unreachable, find, until_ended
from aserver.master.control import place

Answers = list[list[object] | None]


class Fake:
    """Gives each client the lines of `answers`, in the order of their connections, then hangs up."""

    def __init__(self, path: Path, answers: Answers) -> None:
        self.path = str(path)
        self.asked: list[object] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.thread = threading.Thread(target=self.serve, args=(answers,), daemon=True)
        self.thread.start()

    def serve(self, answers: Answers) -> None:
        for lines in answers:
            client, _ = self.listener.accept()
            with client, client.makefile("rb") as reader:
                if lines is not None:
                    self.asked.append(json.loads(reader.readline()))
                    client.sendall(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        self.listener.close()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No settings file and no variable names a control socket."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ASERVER_CONTROL", raising=False)
    return tmp_path


def test_a_reply_a_refusal_and_no_reply(tmp_path: Path) -> None:
    """A refusal is the server's own sentence. Fails with a KeyError for a reply that is no status."""
    fake = Fake(tmp_path / "s", [[{"status": {"pid": 7}}], [{"error": "not now"}], [], None])
    with Line(fake.path) as line:
        assert line.ask("status", slot=None, wait=True) == {"status": {"pid": 7}}
    assert fake.asked == [{"command": "status", "wait": True}]
    with Line(fake.path) as line, pytest.raises(Refused, match=r"^not now$"):
        line.ask("reload")
    for _ in range(2):
        with Line(fake.path) as line, pytest.raises(HungUp, match="hung up"):
            line.ask("reload")
    fake.thread.join(10)  # its listener is closed
    with pytest.raises(Unreachable, match=f"no server answers at {fake.path}"):
        Line(fake.path)


def test_a_server_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails with a command that hangs beside a halted master."""
    monkeypatch.setattr(instances, "PATIENCE", 0.05)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with Line(str(tmp_path / "s")) as line, pytest.raises(Unreachable, match=r"has not answered for 0\.05 s"):
            line.ask("status")


def test_status_is_asked_again_after_an_upgrade(tmp_path: Path) -> None:
    """The master hangs up as it re-executes itself. Fails with HungUp."""
    fake = Fake(tmp_path / "s", [[], [{"status": {"pid": 8}}]])
    with Line(fake.path) as line:
        assert line.status() == {"pid": 8}


def test_records_go_on_over_an_upgrade_until_the_order_is_closed(tmp_path: Path) -> None:
    """After the number that was seen last. Fails with a record twice, or an end at the hang-up."""
    records = [{"record": {"number": number, "tickets": [9] if number == 3 else []}} for number in (1, 2, 3)]
    fake = Fake(tmp_path / "s", [[{"after": 0}, *records[:2]], [records[2], {"record": {"number": 4}}]])
    with Line(fake.path) as line:
        line.ask("reload")
        assert [record["number"] for record in until_ended(line, 9, 0)] == [1, 2, 3]
    assert fake.asked[1] == {"command": "events", "after": 2, "follow": True}


def test_the_only_server_is_found_and_of_several_they_are_named(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails where the first of several is taken: an order would be another's."""
    status = {"pid": 7, "target": "shop:app", "phase": "serving"}
    fake = Fake(elsewhere / "aserver-7.sock", [[{"status": status}]])
    paths = [fake.path, str(elsewhere / "aserver-17.sock")]
    monkeypatch.setattr(place, "of_others", list)
    monkeypatch.setattr(place, "running", lambda: paths[:1])
    assert find(None, None) == fake.path
    monkeypatch.setattr(place, "running", lambda: paths)
    assert find(None, 7) == fake.path
    assert find("given", None) == "given"
    with pytest.raises(Unreachable) as caught:
        find(None, None)
    head, first, second = str(caught.value).splitlines()
    assert head == "several servers run, choose one with --pid or --control:"
    assert first == f"  pid 7: shop:app, serving, {fake.path}"
    assert second.startswith(f"  {paths[1]}: no server answers")
    with pytest.raises(Unreachable, match="no server with pid 8 has a control socket"):
        find(None, 8)


def test_the_settings_of_this_directory_name_it(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails with the usual places alone; a mistake in the file is another command's to name."""
    (elsewhere / "aserver.toml").write_text('control = "/run/shop.sock"\n')
    assert find(None, None) == "/run/shop.sock"
    (elsewhere / "aserver.toml").write_text("control = [\n")
    monkeypatch.setenv("ASERVER_CONTROL", "/run/other.sock")
    assert find(None, None) == "/run/other.sock"

"""What the test apps tell of themselves, a line each, in the file that APP_EVENTS names (tests/apps/content.py)."""

from pathlib import Path


class Notes:
    """The notes of one test's apps. `env` is for the server."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "notes"
        directory.chmod(0o777)  # an app that dropped its privileges notes too
        self.path.touch()
        self.path.chmod(0o666)
        self.env = {"APP_EVENTS": str(self.path)}

    @property
    def lines(self) -> list[str]:
        """All notes so far."""
        return self.path.read_text().splitlines()

    def of(self, event: str) -> list[str]:
        """What follows `event` in each note of it."""
        return [line.removeprefix(event).strip() for line in self.lines if line.split()[0] == event]

    def pids(self, event: str) -> list[int]:
        """The pids noted with `event`."""
        return [int(each) for each in self.of(event)]

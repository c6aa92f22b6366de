"""Access lines for tests of sinks."""

from aserver.log.setup import Lines


def add_line(lines: Lines, line: str) -> None:
    """Do as `recorder` does with a record."""
    first = not lines.batch
    lines.batch.append(line)
    if first:
        lines.begin()

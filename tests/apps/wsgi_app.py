"""WSGI without a framework: requests that get stuck, in two ways, and a stream that ends when it is told to."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    path = environ["PATH_INFO"]
    if path == "/stuck":
        wait_for_the_database()
    elif path == "/hog":
        hold_the_interpreter()
    elif path == "/stream":
        start_response("200 OK", [])
        return stream(Path(os.environ["APP_EVENTS"]))
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]


def wait_for_the_database() -> None:
    time.sleep(600)


def hold_the_interpreter() -> None:
    sum(range(1_000_000_000_000))


def stream(end: Path) -> Iterator[bytes]:
    """A piece now and then, until there is a file `end`."""
    while not end.exists():
        yield b"piece\n"
        time.sleep(0.05)
    yield b"end\n"

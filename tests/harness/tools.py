"""Third-party programs and ports."""

import os
import shutil
import socket
from typing import NoReturn

import pytest


def require_tool(name: str) -> str:
    """The path of program `name`. Without it the test is skipped, or fails where TEST_REQUIRE_TOOLS is set (CI)."""
    path = shutil.which(name)
    if path is None:
        lacking(f"{name} is not installed")
    return path


def lacking(text: str) -> NoReturn:
    """Skip the test for what this machine does not have, or fail where TEST_REQUIRE_TOOLS is set (CI)."""
    if os.environ.get("TEST_REQUIRE_TOOLS"):
        pytest.fail(f"{text}, and TEST_REQUIRE_TOOLS is set")
    pytest.skip(text)


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago: only for programs that cannot be given port 0."""
    with socket.create_server((host, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def has_ipv6() -> bool:
    """Whether this machine has an IPv6 loopback."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True

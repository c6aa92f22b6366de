"""Root's rights are given up for good, or the process is told that it cannot."""

import os
import subprocess
import sys

import pytest

from aserver import privileges
from aserver.errors import ConfigError


@pytest.mark.parametrize(("user", "group"), [("no-such-user", None), (None, "no-such-group")])
def test_nobody_of_that_name_is_a_config_error(user: str | None, group: str | None) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        privileges.drop_privileges(user, group)


def test_dropping_nothing_is_nothing() -> None:
    before = os.getresuid(), os.getresgid(), os.getgroups()
    privileges.drop_privileges(None, None)
    assert before == (os.getresuid(), os.getresgid(), os.getgroups())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_privileges_are_dropped_for_good() -> None:
    """All three ids and the groups, so that there is no way back. Fails without setgroups, and with seteuid."""
    code = """
import os
from aserver import privileges
os.setgroups([0, 4])
privileges.drop_privileges("nobody", None)
print(0 in os.getresuid() + os.getresgid(), bool({0, 4} & set(os.getgroups())))
try:
    os.setuid(0)
except PermissionError:
    print("no way back")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False False", "no way back"]

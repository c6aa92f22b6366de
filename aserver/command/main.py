"""The console script: where a server is to run, its zygote starts before the command itself is imported.

Runs in the operator's process, first of all. It must know no setting and import little; `cli` is the command.
"""

import gc
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from aserver import standard_streams


def main() -> NoReturn:
    """Run the command with the arguments of this process, and end the process."""
    standard_streams.keep()  # before anything is opened, and so before the next import
    from aserver.master import programs  # noqa: PLC0415

    if _serves(sys.argv[1:]):
        programs.start_zygote_ahead()
    gc.disable()  # saves a tenth of the imports' time: the modules stay, and each collection would look at them again
    try:
        from aserver.command import cli  # noqa: PLC0415 - 100 ms, in which the zygote imports as well

        gc.freeze()
        gc.enable()
        cli.main()
    finally:
        programs.abandon_zygote_ahead()


def _serves(arguments: Sequence[str]) -> bool:
    """Whether this is most likely the start of a server. A wrong guess costs a process that ends unused.

    Not so for an upgrade, which has its zygotes already, nor for a preflight or a shell's completion, which need none:
    the environment tells of these three.
    """
    first = arguments[0] if arguments else ""
    if {"-h", "--help", "--version"} & {*arguments} or any(name.startswith("_ASERVER_") for name in os.environ):
        return False
    return first in ("run", "dev") or first.startswith("-") or ":" in first

"""The note that a process of ours is importing the application, and may start no server meanwhile.

Set by the importer (zygote, lazy worker, `aserver check`) and by the child that runs a settings file; asked by `run`
and `serve`. Without it, a module with `aserver.run("main:app")` at its top level starts a server whose zygote imports
that module, which starts a server, without end.
"""

import contextlib
from collections.abc import Iterator

from aserver.errors import AppLoadError

#: The end of the refusal. The master, which gets its text alone, knows it by this.
REMEDY = 'put the call under `if __name__ == "__main__":`'
_under_way = 0


@contextlib.contextmanager
def application_code() -> Iterator[None]:
    """Use it around the import of a user's module, which may be a program of its own as well."""
    global _under_way  # noqa: PLW0603 - it is a fact about the process
    _under_way += 1
    try:
        yield
    finally:
        _under_way -= 1


def refuse_nested(call: str) -> None:
    """Called first by `call`, which starts a server. Raises AppLoadError inside `application_code`."""
    if _under_way:
        raise AppLoadError(
            f"{call} is called while a server imports the module, and would start a server in each server; {REMEDY}"
        )

"""The exceptions that more than one module raises or catches, and the exit codes of the command.

Pure: imported by all processes; it must never import another aserver module.

    AserverError
    ├── ConfigError          a setting is unknown, mistyped or out of bounds      exit 2
    ├── BootError            no worker could boot                                 exit 3
    ├── AppLoadError         the target could not be imported or is no app        exit 4
    ├── BindError            a listener could not be bound or adopted             exit 5
    ├── ChannelError         an aserver process broke the message protocol        exit 1
    ├── ClientError          the client's fault: has the status of the answer
    └── ApplicationError     the app's fault: an illegal ASGI message
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Self


class ExitCode(IntEnum):
    """The meanings of the process's exit status (docs/signals.md)."""

    OK = 0
    UNEXPECTED = 1
    CONFIG = 2
    BOOT = 3
    APP_LOAD = 4
    BIND = 5
    KILLED = 6


class AserverError(Exception):
    """Base of all our exceptions; the command ends with `exit_code` if the error is not handled before."""

    exit_code = ExitCode.UNEXPECTED


class ConfigError(AserverError):
    """A setting is wrong; the message names the setting, its source, and a right value."""

    exit_code = ExitCode.CONFIG

    @classmethod
    def of(cls, messages: Sequence[str]) -> Self:
        """All mistakes of a look at the settings, a line each; never empty."""
        if len(messages) == 1:
            return cls(messages[0])
        return cls("\n  ".join([f"{len(messages)} settings are wrong:", *messages]))


class BootError(AserverError):
    """Workers could not boot: lifespan failed, they crashed, or ran out of time."""

    exit_code = ExitCode.BOOT


class AppLoadError(AserverError):
    """The target could not be loaded. `detail` is the user's own part of the traceback, or empty."""

    exit_code = ExitCode.APP_LOAD

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class BindError(AserverError):
    """A listener could not be bound; the message names the address and, if it can be known, its owner."""

    exit_code = ExitCode.BIND


class ChannelError(AserverError):
    """A message between aserver's own processes was cut, unknown, or came without its descriptors."""


class ClientError(AserverError):
    """The client broke the protocol or a limit; answer with `status` and close (RFC 9110 section 15.5)."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class ApplicationError(AserverError):
    """The application sent an illegal ASGI message; it sees this exception from `send()`."""


class ClientDisconnectedError(OSError):
    """`send()` after the client has gone (ASGI HTTP spec 2.4)."""

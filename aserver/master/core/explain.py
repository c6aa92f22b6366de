"""Why a process ended, in a clause; numbers in words. Pure."""

import enum


class Intent(enum.Enum):
    """The master's own part in the end of a process: the first half of every explanation."""

    NONE = "none"
    LEAVE = "leave"  # told to drain
    OVERRAN = "overran"  # drain took too long, killed
    SLOW_BOOT = "slow boot"  # not ready in time, killed
    HUNG = "hung"  # its loop stood still, killed
    STOP = "stop"  # killed because the operator would wait no longer


def count(number: int, noun: str) -> str:
    """`1 worker`, `2 workers`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def explain_exit(code: int | None, signal: str | None, intent: Intent, *, out_of_memory: str = "") -> str:  # noqa: PLR0911
    """A clause that says why a process ended; the subject stands before it.

    `out_of_memory`: the evidence that the kernel killed it for want of memory, if there is any.
    """
    if signal is not None:
        own = {
            Intent.OVERRAN: "was killed by aserver: the drain took too long",
            Intent.SLOW_BOOT: "was killed by aserver: it was not ready in time",
            Intent.HUNG: "was killed by aserver: its event loop stood still",
            Intent.STOP: "was killed by aserver: the stop was to be at once",
        }
        if signal in ("SIGKILL", "SIGABRT") and intent in own:
            return f"{own[intent]} ({signal})"
        if signal == "SIGKILL":
            if out_of_memory:
                return f"was killed by SIGKILL: the kernel ran out of memory ({out_of_memory})"
            return "was killed by SIGKILL from outside aserver (no out-of-memory kill was counted)"
        if signal in ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGSYS"):
            return f"crashed with {signal}"
        return f"was ended by {signal} from outside aserver"
    if code is None:
        return "ended; its zygote did not report how"
    if code == 0:
        return "left as told" if intent is not Intent.NONE else "left by itself with exit code 0"
    meaning = {3: "boot failure", 4: "the app could not be loaded"}.get(
        code, "an unhandled error or sys.exit in the app"
    )
    return f"ended with exit code {code} ({meaning})"

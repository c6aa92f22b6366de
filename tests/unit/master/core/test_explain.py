"""The sentence for every death."""

import pytest

from aserver.master.core.explain import Intent, explain_exit


@pytest.mark.parametrize(
    ("code", "signal", "intent", "memory", "words"),
    [
        (
            None,
            "SIGKILL",
            Intent.NONE,
            "oom_kill of x",
            "was killed by SIGKILL: the kernel ran out of memory (oom_kill of x)",
        ),
        (None, "SIGKILL", Intent.NONE, "", "was killed by SIGKILL from outside aserver"),
        (None, "SIGKILL", Intent.OVERRAN, "", "was killed by aserver: the drain took too long"),
        (None, "SIGKILL", Intent.SLOW_BOOT, "", "was killed by aserver: it was not ready in time"),
        (None, "SIGABRT", Intent.HUNG, "", "was killed by aserver: its event loop stood still"),
        (None, "SIGKILL", Intent.STOP, "", "was killed by aserver: the stop was to be at once"),
        (None, "SIGKILL", Intent.LEAVE, "", "was killed by SIGKILL from outside aserver"),
        (None, "SIGABRT", Intent.NONE, "", "crashed with SIGABRT"),
        (None, "SIGSEGV", Intent.HUNG, "", "crashed with SIGSEGV"),
        (None, "SIGTERM", Intent.NONE, "", "was ended by SIGTERM from outside aserver"),
        (None, None, Intent.NONE, "", "ended; its zygote did not report how"),
        (0, None, Intent.LEAVE, "", "left as told"),
        (0, None, Intent.NONE, "", "left by itself"),
        (1, None, Intent.NONE, "", "ended with exit code 1"),
        (3, None, Intent.NONE, "", "ended with exit code 3 (boot failure)"),
        (4, None, Intent.NONE, "", "ended with exit code 4 (the app could not be loaded)"),
    ],
)
def test_every_death_has_its_sentence(
    code: int | None, signal: str | None, intent: Intent, memory: str, words: str
) -> None:
    """It follows a name: "worker 1 ..." must become a sentence."""
    assert explain_exit(code, signal, intent, out_of_memory=memory).startswith(words)

"""uWSGI's options that have no verdict of their own."""

import pytest

from aserver.config import foreign


@pytest.mark.parametrize(
    ("option", "answer", "said"),
    [
        ("harakiri-verbose", "not needed", "request_timeout"),
        ("http-auto-gzip", "no equal", "compress"),
        ("forkbomb-delay", "not needed", "growing pauses"),
        ("setns", "no equal", "systemd"),
        ("for-readline", "no equal", "configuration language"),
        ("reload-on-exception", "no equal", "500"),
        ("touch-logreopen", "no equal", "SIGUSR1"),
        ("touch-reload", "no equal", "SIGHUP"),
        ("py-import", "no equal", "module of the target"),
        ("cheaper-step", "no equal", "TTIN"),
    ],
)
def test_an_option_is_answered_by_its_own_subsystem(option: str, answer: str, said: str) -> None:
    """Fails where another subsystem's beginning fits first: `for` had forkbomb-delay, `touch` had touch-logreopen."""
    verdict = foreign.SERVERS["uwsgi"].verdict(option)
    assert verdict is not None
    assert (verdict.answer, said in verdict.text) == (answer, True), verdict

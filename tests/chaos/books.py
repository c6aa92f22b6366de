"""Whether the books balance: what the clients saw, whom we harmed, and what the logs tell must be one story.

Pure: takes what was written down, returns what is wrong.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from tests.chaos.clients import Ledger, Request
from tests.chaos.havoc import Harm

#: Seconds of access lines that a killed worker may take with it: they leave at the end of a tick, and a tick is some
#: milliseconds where the machine is not overloaded.
LAST_TICK = 0.25
_LINE = re.compile(r"<(\d+)> (\d+) (\d+) \[(?:GET|POST) /\w+\?id=([\w-]+) HTTP/1\.1\]")

#: A traceback, indented or not: the lines in it are indented further, and the error is not.
_TRACEBACK = re.compile(r"(?m)^( *)Traceback \(most recent call last\):\n(?:\1 .*\n|\n)*\1(?P<error>\S.*)$")


def unexplained(ledger: Ledger, harms: list[Harm]) -> Iterator[str]:
    """Failures that were not our doing: on a connection that no worker held when we halted it."""
    for request in ledger.failed:
        if not any(_explains(harm, request) for harm in harms):
            yield f"failed, though nobody harmed its worker: {request}"


def _explains(harm: Harm, request: Request) -> bool:
    held = request.key in harm.held and request.opened < harm.by and harm.since < request.ended
    return held and request.worker in (None, harm.pid)


def misreported(ledger: Ledger, harms: list[Harm], access: str) -> Iterator[str]:
    """Access lines that are torn, doubled, wrong or missing."""
    lines: dict[str, tuple[int, str]] = {}
    seen: Counter[str] = Counter()
    if access and not access.endswith("\n"):
        yield "the access log does not end with a line"
    for line in access.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            yield f"torn: {line!r}"
            continue
        lines[match[4]] = (int(match[1]), match[2])
        seen[match[4]] += 1
    yield from (f"{ident} has {count} access lines" for ident, count in seen.items() if count > 1)
    deaths = {harm.pid: harm.since for harm in harms}
    latest = {(each.key, each.opened): each.began for each in ledger.good}
    for request in ledger.good:
        told = lines.get(request.ident)
        if told is None:
            death = deaths.get(request.worker or 0)
            # Whoever was answered again on the same connection was answered in a later tick.
            again = latest[request.key, request.opened] > request.ended
            if death is None or again or request.ended < death - LAST_TICK:
                yield f"no access line: {request.ident}, worker {request.worker}, harmed at {death}: {request.ended}"
        elif told != (request.worker or 0, "200"):
            yield f"{request.ident} was answered 200 by worker {request.worker}, its access line says {told}"


def unsaid(harms: Iterable[Harm], log: str) -> Iterator[str]:
    """Deaths that the error log does not explain."""
    for harm in harms:
        how = rf"pid {harm.pid}\)[^\n]* (killed by|ended|could not boot|is due|has left|stands still)"
        if harm.killed and not re.search(how, log):
            yield f"the log does not say how worker {harm.pid} ended"


def alarming(log: str) -> Iterator[str]:
    """Tracebacks that are not those of the broken deploys, and what no run may say."""
    for traceback in _TRACEBACK.finditer(log):
        if "on purpose" not in traceback["error"]:
            yield f"a traceback: {traceback[0][:3000]}"
    for mark in ("exception was never retrieved", "never awaited", "Exception ignored", "ResourceWarning"):
        if mark in log:
            yield f"the log says {mark!r}: {log[max(0, log.index(mark) - 300) :][:1000]}"

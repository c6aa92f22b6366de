"""Tracebacks of user code without the frames of importlib and aserver, which its author cannot change.

Runs where user code is imported (zygote, lazy worker, `aserver check`). It must never import user code or print; the
caller decides where the text goes.
"""

import gc
import importlib
import inspect
import os
import re
import sys
import traceback
from pathlib import Path
from types import FrameType

#: Places of code that stands between the user's line and the code that it calls; their frames are left out.
_OURS = str(Path(__file__).resolve().parent.parent) + os.sep
_OWN_PLACES = (
    str(Path(importlib.__file__).parent),
    str(Path(__file__).parent.parent),
    "<frozen importlib",
    "<frozen runpy",
    "<frozen zipimport",
)

_LIBRARY = str(Path(os.__file__).parent) + os.sep
_CHAIN = re.compile(r"(\n\n(?:During handling of the above exception|The above exception was the direct cause).*\n\n)")
_FRAME = re.compile(r'  File "(.+)", line (\d+)(?:, in (.+))?')


def user_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames of `error`'s own traceback that belong neither to importlib nor to aserver, outermost first."""
    return [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_ours(frame)]


def waiting(awaited: object) -> str:
    """The user's frames of coroutines that wait for each other, as in a traceback, outermost first.

    No stack shows them, because a coroutine that waits does not run. If the innermost waits for a thread of anyio's, in
    which frameworks call plain functions, the frames of that follow.
    """
    frames: list[tuple[FrameType, int]] = []
    while awaited is not None:
        kind = next((kind for kind in ("cr", "ag", "gi") if hasattr(awaited, f"{kind}_frame")), None)
        if kind is None:
            awaited = next((each for each in gc.get_referents(awaited) if _is_awaited(each, by=awaited)), None)
            continue
        frame = getattr(awaited, f"{kind}_frame")
        if frame is not None:
            frames += (frame, frame.f_lineno), *_in_thread(frame)
        awaited = getattr(awaited, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
    summary = traceback.StackSummary.extract(frames)
    return "".join(traceback.StackSummary.from_list([frame for frame in summary if not _is_ours(frame)]).format())


def _in_thread(frame: FrameType) -> list[tuple[FrameType, int]]:
    thread = frame.f_locals.get("worker") if frame.f_code.co_name == "run_sync_in_worker_thread" else None
    innermost = sys._current_frames().get(getattr(thread, "ident", None) or 0)
    return [] if innermost is None else list(traceback.walk_stack(innermost))[::-1]


def _is_awaited(found: object, *, by: object) -> bool:
    """Whether `by` awaits `found`, an object to which it refers.

    For objects that have no attribute for it. `anext()`, as in a context manager, refers to its generator; our compiled
    coroutines refer to the wrapper of a coroutine.
    """
    if type(by).__name__ == "coroutine_wrapper":
        return inspect.iscoroutine(found)
    return inspect.isasyncgen(found) or type(found).__name__ == "coroutine_wrapper"


def is_installed(file: str) -> bool:
    """Whether a file belongs to an installed package."""
    return f"{os.sep}site-packages{os.sep}" in file or f"{os.sep}dist-packages{os.sep}" in file


def is_users(file: str) -> bool:
    """Whether a file is neither installed, nor Python's library, nor ours."""
    return not (is_installed(file) or file.startswith((*_OWN_PLACES, _LIBRARY, "<")))


def users_part(text: str) -> str:
    """A traceback, as text, without the frames that are not of the user's files; whole if there are no others."""
    kept, whole, keeps = [], text.splitlines(keepends=True), True
    for line in whole:
        if match := _FRAME.match(line):
            keeps = is_users(match[1])
        elif not line.startswith("    "):
            keeps = True
        if keeps:
            kept.append(line)
    return _without_echoes("".join(kept)) if any(map(_FRAME.match, kept)) else text


def _without_echoes(text: str) -> str:
    """Leave out each exception of a chain that is told like the exception before it, as Django raises one ten times."""
    first, *others = _CHAIN.split(text)
    told = [first.rstrip()]
    for link, part in zip(others[::2], others[1::2], strict=True):
        if part.rstrip() != told[-1]:
            told += link, part.rstrip()
    return "".join(told) + text[len(text.rstrip()) :]


def places(text: str) -> list[tuple[str, int, str]]:
    """File, line and function of each frame in a traceback, outermost first."""
    return [(match[1], int(match[2]), match[3] or "") for match in map(_FRAME.match, text.splitlines()) if match]


def user_place(stack: traceback.StackSummary) -> str | None:
    """`file:line in function: source` of the innermost frame that is neither Python's library nor ours, if any."""
    for frame in reversed(stack):
        file = frame.filename
        inside_library = file.startswith(_LIBRARY) and "site-packages" not in file
        if not (inside_library or file.startswith((_OURS, "<frozen"))):
            return f"{file}:{frame.lineno} in {frame.name}: {frame.line}"
    return None


def user_traceback(error: BaseException) -> str:
    """The traceback of `error` as Python prints it, without the frames of importlib and aserver.

    Causes, contexts and members of exception groups are kept and cut likewise; a SyntaxError keeps its caret.
    """
    whole = traceback.TracebackException.from_exception(error)
    _cut(whole)
    return "".join(whole.format())


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith(_OWN_PLACES)


def _cut(part: traceback.TracebackException) -> None:
    # TracebackException has broken reference cycles between causes and contexts already, so this ends.
    part.stack = traceback.StackSummary.from_list([frame for frame in part.stack if not _is_ours(frame)])
    relatives = [part.__cause__, part.__context__, *(part.exceptions or ())]
    for relative in relatives:
        if relative is not None:
            _cut(relative)

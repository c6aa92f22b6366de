"""A traceback cut to the frames its reader can do something about.

Runs wherever user code is imported (zygote, lazy worker, `aserver check`). It must never import user
code or print: the caller decides where the text goes.
"""

import importlib
import traceback
from pathlib import Path

_OWN_PLACES = (
    str(Path(importlib.__file__).parent),
    str(Path(__file__).parent.parent),
    "<frozen importlib",
    "<frozen runpy",
    "<frozen zipimport",
)


def user_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames of `error`'s own traceback that belong neither to importlib nor to aserver, outermost first."""
    return [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_ours(frame)]


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

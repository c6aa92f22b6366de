"""The orders of the control socket's clients: a JSON object a line. Pure: only shapes."""

from typing import Annotated, Literal

import msgspec

Number = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Slot = Annotated[int, msgspec.Meta(ge=1, le=1 << 16)]

#: Commands that change nothing and tell nothing of a request, for the admin endpoint.
LOOKS = frozenset({"status", "events", "metrics"})


class OrderRefused(Exception):  # noqa: N818  (an answer, and no failure of the server's)
    """The order cannot be obeyed; the text is the reply."""


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """A request. `slot`: of recycle, stacks, requests. `to`: of scale. `now`: of stop. `after`: of events.

    With `follow` the records that come from then on follow the reply, a line each, until the client hangs up.
    """

    command: Literal[
        "status", "metrics", "events", "reload", "upgrade", "stop", "scale", "recycle", "reopen", "stacks", "requests"
    ]
    slot: Slot | None = None
    to: Number | None = None
    now: bool = False
    after: Number = 0
    follow: bool = False

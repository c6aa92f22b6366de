"""How long a request waited before it came here, by the field in which a proxy says when it took the request in.

Pure. nginx writes `t=1512379167.574` (seconds), Heroku milliseconds, Apache `t=` and microseconds: the number of digits
tells which. It must only be asked about a trusted peer.
"""

import re

#: The field; it is among `fields.FORWARDING_NAMES`.
FIELD = b"x-request-start"
#: Seconds; longer than any client waits, so the two clocks differ, or the number is of another kind.
LONGEST = 3600.0
_SHAPE = re.compile(rb"(?:t=)?([0-9]{9,17}(?:\.[0-9]{1,9})?)")
#: A number below the first of each pair counts units of the second, in seconds.
_UNITS = ((1e11, 1.0), (1e14, 1e-3), (1e17, 1e-6))


def queue_time(value: bytes, now: float) -> float | None:
    """Seconds from then until `now` (Unix time); None if the field makes no sense. A proxy's clock may be ahead."""
    found = _SHAPE.fullmatch(value)
    if found is None:
        return None
    number = float(found[1])
    began = number * next(unit for limit, unit in _UNITS if number < limit)
    return max(0.0, now - began) if abs(now - began) < LONGEST else None

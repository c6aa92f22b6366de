"""The time that a request waited in front of this server, by the field X-Request-Start of a proxy.

Pure. The field has the Unix time at which the proxy received the request. nginx writes `t=1512379167.574` (seconds),
Heroku milliseconds, Apache `t=` and microseconds; the size of the number tells the unit. `queue_time` must get the
field of a trusted peer only.
"""

import re

#: The field; it is among `fields.FORWARDING_NAMES`.
FIELD = b"x-request-start"
#: Seconds. No client waits longer: a larger difference comes from a wrong clock, or from another kind of number.
LONGEST = 3600.0
_SHAPE = re.compile(rb"(?:t=)?([0-9]{9,17}(?:\.[0-9]{1,9})?)")
#: Pairs: a number below the first is a count of the second, which is a unit in seconds.
_UNITS = ((1e11, 1.0), (1e14, 1e-3), (1e17, 1e-6))


def queue_time(value: bytes, now: float) -> float | None:
    """Return the seconds that a request has waited until `now` (Unix time), or None if the field makes no sense.

    If the proxy's clock is ahead of ours, the result is 0.
    """
    found = _SHAPE.fullmatch(value)
    if found is None:
        return None
    number = float(found[1])
    began = number * next(unit for limit, unit in _UNITS if number < limit)
    return max(0.0, now - began) if abs(now - began) < LONGEST else None

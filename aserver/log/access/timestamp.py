"""The time of an access line, as text. Pure."""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
#: Local year, month, day, hour, minute, second, and the offset from UTC in seconds.
When = tuple[int, int, int, int, int, int, int]


def _offset(seconds: int) -> tuple[str, int, int]:
    hours, minutes = divmod(abs(seconds) // 60, 60)
    return "-" if seconds < 0 else "+", hours, minutes


def clf_time(when: When) -> str:
    """Return `[21/Nov/2026:12:01:07 +0100]`; in English in every locale, as log readers expect."""
    year, month, day, hour, minute, second, offset = when
    sign, hours, minutes = _offset(offset)
    zone = f"{sign}{hours:02d}{minutes:02d}"
    return f"[{day:02d}/{_MONTHS[month - 1]}/{year:04d}:{hour:02d}:{minute:02d}:{second:02d} {zone}]"


def iso_time(when: When) -> str:
    """Return `2026-11-21T12:01:07+01:00` (RFC 3339)."""
    year, month, day, hour, minute, second, offset = when
    sign, hours, minutes = _offset(offset)
    zone = f"{sign}{hours:02d}:{minutes:02d}"
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}{zone}"


def clock_time(when: When) -> str:
    """Return `12:01:07`."""
    return f"{when[3]:02d}:{when[4]:02d}:{when[5]:02d}"


def dim_time(when: When) -> str:
    """Return `clock_time` for a terminal, dimmed."""
    return f"\x1b[2m{clock_time(when)}\x1b[0m"

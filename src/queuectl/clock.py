"""The clock, and instants and durations as text.

Instants are aware datetimes in UTC; durations are seconds as float. Pure code takes ``now`` as an
argument; lengths are taken from the monotonic clock.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from queuectl.errors import UsageError, shorten

# What stands for a time that is not known, or cannot be written.
FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_LONGEST_POLL_SECONDS = 86400.0
OUTSIDE_THE_CALENDAR = "is out of bounds; choose a year from 2 to 9998"  # for any zone's offset
MAX_DURATION_SECONDS = 100 * 365.25 * 86400.0
_UNIT_SECONDS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1, "": 1}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)([wdhms]?)", re.ASCII)


def utc_now() -> datetime:
    """Return this instant, in UTC, with microseconds."""
    return datetime.now(UTC)


# The same instants are written again and again: that of a claim into a worker's record and, when
# its job has ended, with a hundred others into documents.
@lru_cache(maxsize=1024)
def format_instant(instant: datetime) -> str:
    """Return an aware UTC instant as ``2026-11-24T21:29:59.001002Z``."""
    # In half the time of isoformat, and of an f-string.
    return "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ" % (  # noqa: UP031
        instant.year, instant.month, instant.day,
        instant.hour, instant.minute, instant.second, instant.microsecond,
    )  # fmt: skip


def parse_instant(text: str) -> datetime:
    """Return the UTC instant of ISO 8601 text, local time without an offset. Raises: UsageError."""
    try:
        instant = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise UsageError(
            f"{shorten(text)} is not an instant; write ISO 8601, such as 2026-11-24T21:30 or"
            " 2026-11-24T20:30:00Z"
        ) from error
    try:
        return instant.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{shorten(text)} {OUTSIDE_THE_CALENDAR}") from error


def parse_duration(text: str, *, allow_zero: bool = False) -> float:
    """Return the seconds, up to 100 years, of ``90``, ``7d`` or ``1h30m``. Raises: UsageError."""
    compact = text.strip().lower()
    parts = _DURATION_PART.findall(compact)
    # A bare number is a duration by itself, never a part of a sum: 1h30 could mean two things.
    if (
        not parts
        or "".join(number + unit for number, unit in parts) != compact
        or (len(parts) > 1 and any(unit == "" for _, unit in parts))
        or len({unit for _, unit in parts}) != len(parts)
    ):
        raise UsageError(f"{shorten(text)} is not a duration; write 90, 90s, 15m, 2h, 7d or 1h30m")
    seconds = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
    if seconds > MAX_DURATION_SECONDS or seconds < 0 or (seconds == 0 and not allow_zero):
        bounds = "delay is from 0 to" if allow_zero else "duration is above 0 and up to"
        raise UsageError(f"{shorten(text)} is out of bounds; a {bounds} 100 years")
    return seconds


def format_duration(seconds: float) -> str:
    """Return seconds as a person reads and parse_duration takes them: ``1h30m``, ``2.5s``."""
    if seconds < 60:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
    rest = round(seconds)
    text = ""
    for unit in "dhms":
        amount, rest = divmod(rest, _UNIT_SECONDS[unit])
        if amount:
            text += f"{amount}{unit}"
    return text


def poll_milliseconds(seconds: float) -> int:
    """Return a timeout for poll(2), which takes at most 24 days; longer waits poll again."""
    # Rounded up: a timeout cut to whole milliseconds would spin through the last one.
    return int(max(0.0, min(seconds, _LONGEST_POLL_SECONDS)) * 1000) + 1


def from_timestamp(seconds: float) -> datetime:
    """Return the instant of a file's time, in seconds since 1970, or the nearest possible one."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return LAST if seconds > 0 else FIRST


def later(instant: datetime, seconds: float) -> datetime:
    """Return the instant ``seconds`` after another, at most the last that can be written."""
    try:
        return instant + timedelta(seconds=seconds)
    except OverflowError:
        return LAST

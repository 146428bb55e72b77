"""Times as people write them: ``02:30``, ``tomorrow 6am``, ``sat 03:00``, ``now + 2 hours``.

Pure: the time now and the zone are given. A local time means the next moment at which the clock
shows it. A time that the clock skips is refused; of one that comes twice the first is taken.
"""

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import NamedTuple

from queuectl.clock import OUTSIDE_THE_CALENDAR, parse_duration
from queuectl.errors import UsageError, shorten

_FORMS = (
    "write 02:30, 2:30pm, noon, midnight, 'tomorrow 06:00', 'sat 03:00', '2026-12-01 02:30',"
    " 'now + 2 hours', or ISO 8601 such as 2026-11-24T20:30:00Z"
)
_CLOCK = re.compile(r"(\d{1,2})(?::(\d\d)(?::(\d\d))?)?([ap]m)?", re.ASCII)
_CLOCK_WORDS = {"noon": time(12), "midnight": time(0)}
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_AMOUNT = re.compile(r"(\d+) ?(minute|min|hour|day|week)s?", re.ASCII)
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


class When(NamedTuple):
    """An instant in UTC, the text that meant it, and a note for whoever wrote that."""

    instant: datetime
    text: str
    note: str = ""


def parse_when(text: str, now: datetime, zone: tzinfo | None = None) -> When:
    """Return the instant that a text means in a zone (None: this machine's). Raises: UsageError."""
    try:
        return _parse(text.strip(), now, zone)
    except OverflowError as error:
        raise UsageError(f"{shorten(text)} {OUTSIDE_THE_CALENDAR}") from error
    except ValueError as error:
        raise UsageError(f"{shorten(text)} is not an instant; {_FORMS}") from error


def _parse(text: str, now: datetime, zone: tzinfo | None) -> When:
    try:
        written = datetime.fromisoformat(text)
    except ValueError:
        pass
    else:
        if written.tzinfo is not None:
            return When(written.astimezone(UTC), text)
        return _moment(text, [written], now, zone)
    words = text.lower().replace("+", " + ").split()
    if words[:1] == ["now"]:
        return When(now + _ahead(" ".join(words[1:])), text)
    if words[-1:] == ["utc"]:
        words, zone = words[:-1], UTC
    today = now.astimezone(zone).date()
    # Either order: at takes the day behind the time of day, systemd before it.
    for day, clock in ((words[:1], words[1:]), (words[-1:], words[:-1])):
        dates = _dates("".join(day), today)
        if dates:
            if not clock:
                raise UsageError(
                    f"{shorten(text)} lacks the time of day; write '{' '.join(words)} 06:00'"
                )
            break
    else:
        dates, clock = [today, today + timedelta(days=1)], words
    at = _clock("".join(clock))
    return _moment(text, (datetime.combine(each, at) for each in dates), now, zone)


def _ahead(text: str) -> timedelta:
    if not text:
        return timedelta(0)
    if not text.startswith("+"):
        raise ValueError
    amount = text[1:].lstrip()
    if found := _AMOUNT.fullmatch(amount):
        amount = found[1] + found[2][0]  # 2 hours is 2h
    return timedelta(seconds=parse_duration(amount, allow_zero=True))


def _dates(word: str, today: date) -> list[date]:
    """Return the days that a word can mean, the nearest first; none if it is not a day."""
    if word == "today":
        return [today]
    if word == "tomorrow":
        return [today + timedelta(days=1)]
    if _DATE.fullmatch(word):
        return [date.fromisoformat(word)]
    if len(word) >= 3:
        for number, name in enumerate(_WEEKDAYS):
            if name.startswith(word):
                first = today + timedelta(days=(number - today.weekday()) % 7)
                return [first, first + timedelta(days=7)]
    return []


def _clock(word: str) -> time:
    if word in _CLOCK_WORDS:
        return _CLOCK_WORDS[word]
    found = _CLOCK.fullmatch(word)
    if not found or not (found[2] or found[4]):
        raise ValueError
    hour = int(found[1])
    if found[4]:
        if not 1 <= hour <= 12:
            raise ValueError
        hour = hour % 12 + 12 * (found[4] == "pm")
    return time(hour, int(found[2] or 0), int(found[3] or 0))


def _moment(text: str, walls: Iterable[datetime], now: datetime, zone: tzinfo | None) -> When:
    """Return the next moment at which the clock shows one of some times, or the last, if over."""
    local_now = now.astimezone(zone).replace(tzinfo=None)
    moments: list[datetime] = []
    for wall in walls:
        moments = _moments(wall, zone)
        if not moments and wall > local_now:
            raise UsageError(
                f"{shorten(text)} does not exist: the clock skips {_shown(wall)}; choose another"
                " time, or give an offset from UTC"
            )
        ahead = [each for each in moments if each > now]
        if ahead:
            return When(ahead[0], text, _note(wall, moments, ahead[0]))
    if not moments:
        raise UsageError(f"{shorten(text)} did not exist: the clock skipped {_shown(wall)}")
    return When(moments[0], text, _note(wall, moments, moments[0]))


def _moments(wall: datetime, zone: tzinfo | None) -> list[datetime]:
    """Return the instants at which the clock shows a time: one, or none, or two."""
    first, second = (_in_utc(wall.replace(fold=fold), zone) for fold in (0, 1))
    if first.astimezone(zone).replace(tzinfo=None) != wall:
        return []
    return [first] if first == second else [first, second]


def _in_utc(wall: datetime, zone: tzinfo | None) -> datetime:
    try:
        return (wall if zone is None else wall.replace(tzinfo=zone)).astimezone(UTC)
    except ValueError as error:  # as Python says it of local time
        raise OverflowError from error


def _shown(wall: datetime) -> str:
    return f"{wall:%H:%M:%S} on {wall:%Y-%m-%d}".replace(":00 on", " on")


def _note(wall: datetime, moments: list[datetime], chosen: datetime) -> str:
    if len(moments) == 1:
        return ""
    which = "first" if chosen == moments[0] else "second, since the first is over"
    return f"{_shown(wall)} comes twice; this is the {which}"

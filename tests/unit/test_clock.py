"""Instants and durations as text."""

from datetime import UTC, datetime, timedelta

import pytest

from queuectl.clock import (
    MAX_DURATION_SECONDS,
    format_duration,
    format_instant,
    later,
    parse_duration,
    parse_instant,
)
from queuectl.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("15m", 900),
        ("2h", 7200),
        ("7d", 604800),
        ("2w", 1209600),
        ("1h30m", 5400),
        ("1d2h3m4s", 93784),
        ("0.5", 0.5),
        ("1.5h", 5400),
        (" 2H ", 7200),
        ("0.001s", 0.001),
        ("36525d", MAX_DURATION_SECONDS),
    ],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    """Each way of writing a duration means what a person would think."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", " ", "s", "1x", "1h30", "30m1", "1m1m", "-1", "-1s", "+1", "1e3", "1,5", "1 h", "inf",
     "nan", ".5", "5.", "1h-30m", "٣", "1.2.3"],
)  # fmt: skip
def test_what_is_no_duration_is_refused(text: str) -> None:
    """What could mean two things, or nothing, is an error that shows how to write it."""
    with pytest.raises(UsageError, match=r"is not a duration; write 90, 90s, .*1h30m$"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["0", "0s", "0h0m", "36525d1s", "3155760001", "9" * 400])
def test_a_duration_has_bounds(text: str) -> None:
    """Neither nothing nor more than 100 years is a duration."""
    with pytest.raises(UsageError, match=r"; a duration is above 0 and up to 100 years$"):
        parse_duration(text)


def test_a_delay_may_be_nothing() -> None:
    """Zero is allowed where it is asked for, and no more than that."""
    assert parse_duration("0", allow_zero=True) == 0
    with pytest.raises(UsageError, match="a delay is from 0 to 100 years"):
        parse_duration("101w3652500d", allow_zero=True)


@pytest.mark.parametrize(
    "seconds", [0.001, 0.25, 1, 59, 60, 61, 3600, 5400, 86399, 86400, 3155760000]
)
def test_a_written_duration_is_read_back(seconds: float) -> None:
    """What is shown can be given again and means the same."""
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (2.5, "2.5s"), (5400, "1h30m"), (90061, "1d1h1m1s"), (604800, "7d")],
)
def test_a_duration_is_written(seconds: float, text: str) -> None:
    """A person reads the units that are not zero."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-11-24T21:29:59.001002Z", datetime(2026, 11, 24, 21, 29, 59, 1002, UTC)),
        ("2026-11-24T21:30+02:00", datetime(2026, 11, 24, 19, 30, tzinfo=UTC)),
        ("2026-11-24 21:30Z", datetime(2026, 11, 24, 21, 30, tzinfo=UTC)),
        (" 20261124T213000Z ", datetime(2026, 11, 24, 21, 30, tzinfo=UTC)),
    ],
)
def test_an_instant_is_read(text: str, instant: datetime) -> None:
    """ISO 8601 in its usual forms is an instant in UTC."""
    parsed = parse_instant(text)
    assert parsed == instant
    assert parsed.tzinfo is UTC


def test_an_instant_without_an_offset_is_local() -> None:
    """A time as it stands on the wall is that of this machine's zone."""
    local = datetime(2026, 7, 1, 12, 0).astimezone()
    assert parse_instant("2026-07-01T12:00") == local


@pytest.mark.parametrize(
    "text",
    ["", "now", "tomorrow", "12:00", "2026-13-01", "2026-02-30T00:00", "1700000000"],
)
def test_what_is_no_instant_is_refused(text: str) -> None:
    """What is no ISO 8601 is an error that shows how."""
    with pytest.raises(UsageError, match="is not an instant; write ISO 8601, such as"):
        parse_instant(text)


@pytest.mark.parametrize("text", ["0001-01-01T00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_an_instant_at_the_ends_of_the_calendar_is_out_of_bounds(text: str) -> None:
    """It is well written, and in UTC it is in no year that can be written."""
    with pytest.raises(UsageError, match=r"is out of bounds; choose a year from 2 to 9998$"):
        parse_instant(text)


def test_an_instant_is_written_with_microseconds() -> None:
    """The text has one width, so that it sorts as the instants do, and is read back."""
    assert format_instant(datetime(2026, 1, 2, tzinfo=UTC)) == "2026-01-02T00:00:00.000000Z"
    first = datetime(1, 1, 1, tzinfo=UTC)
    assert format_instant(first) == "0001-01-01T00:00:00.000000Z"
    assert parse_instant(format_instant(first)) == first


def test_later_stays_in_what_can_be_written() -> None:
    """The end of time is not passed."""
    instant = datetime(9999, 12, 31, tzinfo=UTC)
    assert later(instant, 1.5) == instant + timedelta(seconds=1.5)
    assert later(instant, MAX_DURATION_SECONDS) == datetime.max.replace(tzinfo=UTC)

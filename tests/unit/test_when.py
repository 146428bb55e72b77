"""Times as people write them, in zones whose clocks skip and repeat."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectl.errors import UsageError
from queuectl.when import parse_when

BERLIN = ZoneInfo("Europe/Berlin")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")  # its clock is moved by half an hour
APIA = ZoneInfo("Pacific/Apia")  # 2011-12-30 was skipped there
NOW = datetime(2026, 11, 24, 9, 15, 30, tzinfo=BERLIN)  # a Tuesday


def read(text: str, now: datetime = NOW, zone: ZoneInfo = BERLIN) -> str:
    """Return the local time that a text means."""
    return parse_when(text, now.astimezone(UTC), zone).instant.astimezone(zone).isoformat(" ")


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("now", "2026-11-24 09:15:30+01:00"),
        ("now + 2 hours", "2026-11-24 11:15:30+01:00"),
        ("NOW +90 min", "2026-11-24 10:45:30+01:00"),
        ("now + 1 day", "2026-11-25 09:15:30+01:00"),
        ("now+1h30m", "2026-11-24 10:45:30+01:00"),
        ("02:30", "2026-11-25 02:30:00+01:00"),
        ("2:30", "2026-11-25 02:30:00+01:00"),
        ("23:30", "2026-11-24 23:30:00+01:00"),
        ("09:15:30", "2026-11-25 09:15:30+01:00"),
        ("09:15:31", "2026-11-24 09:15:31+01:00"),
        ("2pm", "2026-11-24 14:00:00+01:00"),
        ("2:30 PM", "2026-11-24 14:30:00+01:00"),
        ("12am", "2026-11-25 00:00:00+01:00"),
        ("12pm", "2026-11-24 12:00:00+01:00"),
        ("noon", "2026-11-24 12:00:00+01:00"),
        ("Midnight", "2026-11-25 00:00:00+01:00"),
        ("13:00 UTC", "2026-11-24 14:00:00+01:00"),
        ("today 18:00", "2026-11-24 18:00:00+01:00"),
        ("today 08:00", "2026-11-24 08:00:00+01:00"),
        ("tomorrow 06:00", "2026-11-25 06:00:00+01:00"),
        ("  6am   tomorrow ", "2026-11-25 06:00:00+01:00"),
        ("tomorrow noon", "2026-11-25 12:00:00+01:00"),
        ("sat 03:00", "2026-11-28 03:00:00+01:00"),
        ("Saturday 3 am", "2026-11-28 03:00:00+01:00"),
        ("03:00 sat", "2026-11-28 03:00:00+01:00"),
        ("tue 09:00", "2026-12-01 09:00:00+01:00"),
        ("tues 10:00", "2026-11-24 10:00:00+01:00"),
        ("2026-12-01 02:30", "2026-12-01 02:30:00+01:00"),
        ("2026-12-01 2:30pm", "2026-12-01 14:30:00+01:00"),
        ("noon 2026-12-01", "2026-12-01 12:00:00+01:00"),
        ("2026-12-01 02:30 UTC", "2026-12-01 03:30:00+01:00"),
        ("2026-12-01", "2026-12-01 00:00:00+01:00"),
        ("2026-12-01T02:30:00.5+03:00", "2026-12-01 00:30:00.500000+01:00"),
        ("20261201T0230", "2026-12-01 02:30:00+01:00"),
        ("2020-01-01 00:00", "2020-01-01 00:00:00+01:00"),
    ],
)
def test_a_time_is_read(text: str, local: str) -> None:
    """It is the next moment at which the clock on the wall shows it."""
    assert read(text) == local


@pytest.mark.parametrize(
    "text",
    ["", "soon", "2", "0230", "230pm", "24:00", "13pm", "0am", "12:60", "1:2", "02:30:60",
     "next sat 03:00", "sa 03:00", "sat sun", "today tomorrow", "12/01/2026", "now - 1h",
     "now 2h", "2026-02-30", "2026-13-01 02:30", "2026-02-30 2pm",
     "-1:00", "1700000000", "\u0662:30", "utc", "02:30 02:30", "02:30 utc utc"],
)  # fmt: skip
def test_what_is_no_time_is_refused(text: str) -> None:
    """The error shows the forms that work."""
    with pytest.raises(UsageError, match=r"is not an instant; write 02:30, .* or ISO 8601 such"):
        parse_when(text, NOW)


@pytest.mark.parametrize(
    "text",
    ["9999-12-31 23:59", "9999-12-31T23:59", "0001-01-01", "0001-01-01T00:00+14:00"],
)
def test_a_time_at_the_ends_of_the_calendar_is_out_of_bounds(text: str) -> None:
    """It is well written, and cannot be reckoned with in every zone."""
    with pytest.raises(UsageError, match=r"is out of bounds; choose a year from 2 to 9998$"):
        parse_when(text, NOW)


@pytest.mark.parametrize("amount", ["6000 weeks", "36526 days", "6000w", "9" * 400 + " weeks"])
def test_a_time_from_now_has_the_bounds_of_a_delay(amount: str) -> None:
    """However its unit is written, it is no more than 100 years ahead, and may be nothing."""
    with pytest.raises(UsageError, match=r"is out of bounds; a delay is from 0 to 100 years$"):
        parse_when(f"now + {amount}", NOW)
    for nothing in ("now", "now + 0 minutes", "now + 0h"):
        assert parse_when(nothing, NOW).instant == NOW


@pytest.mark.parametrize("text", ["today", "Tomorrow", "sat", "saturday"])
def test_a_day_needs_a_time_of_day(text: str) -> None:
    """Other programs take midnight, or the time that it is now: nobody has to guess here."""
    with pytest.raises(UsageError, match=rf"lacks the time of day; write '{text.lower()} 06:00'$"):
        parse_when(text, NOW)


@pytest.mark.parametrize(
    ("text", "now", "zone", "skipped"),
    [
        ("02:30", "2026-03-28T23:00Z", BERLIN, "02:30 on 2026-03-29"),
        ("tomorrow 02:00", "2026-03-28T12:00Z", BERLIN, "02:00 on 2026-03-29"),
        ("sun 02:59:59", "2026-03-28T12:00Z", BERLIN, "02:59:59 on 2026-03-29"),
        ("2026-03-29T02:30", "2026-03-28T12:00Z", BERLIN, "02:30 on 2026-03-29"),
        ("2026-03-29 02:30", "2026-07-01T12:00Z", BERLIN, "02:30 on 2026-03-29"),
        ("02:15", "2026-10-03T12:00Z", LORD_HOWE, "02:15 on 2026-10-04"),
        ("noon 2011-12-30", "2011-12-29T12:00Z", APIA, "12:00 on 2011-12-30"),
    ],
)
def test_a_time_that_the_clock_skips_is_refused(
    text: str, now: str, zone: ZoneInfo, skipped: str
) -> None:
    """It is named with its day, and no other moment is put in its place."""
    with pytest.raises(UsageError, match=rf"the clock skip(s|ped) {skipped}"):
        parse_when(text, datetime.fromisoformat(now), zone)


@pytest.mark.parametrize(
    ("text", "now", "zone", "instant", "note"),
    [
        ("02:30", "2026-10-24T23:00Z", BERLIN, "2026-10-25T00:30Z", "this is the first"),
        ("02:30", "2026-10-25T00:45Z", BERLIN, "2026-10-25T01:30Z", "this is the second, since"),
        ("02:30", "2026-10-25T01:45Z", BERLIN, "2026-10-26T01:30Z", ""),
        ("today 02:30", "2026-10-25T05:00Z", BERLIN, "2026-10-25T00:30Z", "this is the first"),
        ("2026-10-25T02:30", "2026-01-01T00:00Z", BERLIN, "2026-10-25T00:30Z", "the first"),
        ("01:45", "2026-04-04T12:00Z", LORD_HOWE, "2026-04-04T14:45Z", "this is the first"),
        ("01:15", "2026-04-04T12:00Z", LORD_HOWE, "2026-04-04T14:15Z", ""),
    ],
)
def test_of_a_time_that_comes_twice_the_first_is_taken(
    text: str, now: str, zone: ZoneInfo, instant: str, note: str
) -> None:
    """Which of them it is, is said."""
    when = parse_when(text, datetime.fromisoformat(now), zone)
    assert when.instant == datetime.fromisoformat(instant)
    assert note in when.note
    assert bool(note) == bool(when.note)


zones = st.sampled_from(
    ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns", "Asia/Kathmandu",
     "Africa/Casablanca", "America/Sao_Paulo", "Pacific/Apia"]
).map(ZoneInfo)  # fmt: skip
# Half of them near the turns of the clock of some zone.
instants = st.integers(0, 40 * 365 * 86400).map(
    lambda seconds: datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)
instants |= st.builds(
    lambda turn, minutes: turn + timedelta(minutes=minutes),
    st.sampled_from(
        [datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC),
         datetime(2026, 4, 4, 15, tzinfo=UTC), datetime(2026, 10, 3, 15, 30, tzinfo=UTC),
         datetime(2011, 12, 30, 10, tzinfo=UTC)]
    ),
    st.integers(-2000, 2000),
)  # fmt: skip


@given(now=instants, zone=zones, hour=st.integers(0, 23), quarter=st.sampled_from([0, 15, 30, 45]))
def test_a_time_of_day_is_the_next_one(
    now: datetime, zone: ZoneInfo, hour: int, quarter: int
) -> None:
    """No earlier moment to come has it on the clock, whatever the clock does meanwhile."""
    wanted = (hour, quarter)
    try:
        found = parse_when(f"{hour:02}:{quarter:02}", now, zone).instant
    except UsageError:
        found = None
    # The clocks of these zones have been on whole quarters of an hour since 2000.
    minutes = now.replace(second=0, microsecond=0)
    while minutes <= now or minutes.minute % 15:
        minutes += timedelta(minutes=1)
    for step in range(4 * 24 * 3):
        each = minutes + timedelta(minutes=15 * step)
        local = each.astimezone(zone)
        if (local.hour, local.minute) == wanted:
            if found is None:  # the first day on which it could have been has none
                here = now.astimezone(zone)
                is_over = (here.hour, here.minute) >= wanted
                assert local.date() > here.date() + timedelta(days=is_over)
            else:
                assert found == each
            return
    raise AssertionError("the time never comes")


@given(now=instants, zone=zones, day=st.integers(0, 6), hour=st.integers(0, 23))
def test_a_weekday_is_within_a_week(now: datetime, zone: ZoneInfo, day: int, hour: int) -> None:
    """The day and the time of day are those that were asked for, and it is to come."""
    name = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")[day]
    try:
        found = parse_when(f"{name} {hour}:00", now, zone).instant
    except UsageError:
        return
    local = found.astimezone(zone)
    assert (local.weekday(), local.hour, local.minute) == (day, hour, 0)
    assert now < found <= now + timedelta(days=8, hours=1)


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", "Australia/Lord_Howe", "CET-1CEST,M3.5.0,M10.5.0/3", "UTC"]
)
def test_the_zone_of_the_machine_is_that_of_tz(zone: str) -> None:
    """Without a zone the C library's is taken, as its own rules say."""
    program = """
import sys
from datetime import datetime
from queuectl.when import parse_when
for text in ("2026-03-29T02:30", "2026-10-25T02:30", "2026-10-04 02:15", "2026-04-05 01:45"):
    try:
        print(*parse_when(text, datetime.fromisoformat("2026-01-01T00:00Z"))[::2])
    except Exception as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "TZ": zone}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    turns = {"CET-1CEST,M3.5.0,M10.5.0/3": "Europe/Berlin"}.get(zone, zone)
    skips = {"Europe/Berlin": [0], "Australia/Lord_Howe": [2]}.get(turns, [])
    twice = {"Europe/Berlin": [1], "Australia/Lord_Howe": [3]}.get(turns, [])
    assert [index for index, line in enumerate(lines) if "clock skips" in line] == skips
    assert [index for index, line in enumerate(lines) if "comes twice" in line] == twice

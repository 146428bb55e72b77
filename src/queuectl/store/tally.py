"""Count what workers settle, so that rates and totals are known without reading a document.

Each worker counts in its own record; what it counted goes to the store's totals when it leaves, or
when its stale record is removed. Nobody's safety depends on these numbers.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

from queuectl.errors import shorten
from queuectl.job import Attempt, Outcome
from queuectl.store.base import LENGTH_BOUNDS, Tally

_MOST = 2**53  # a double holds each whole number up to it
_SLOT_SECONDS = 10
_SLOTS = 6  # "lately" is the last minute


def counted(tally: Tally, attempts: Sequence[Attempt]) -> Tally:
    """Return the tally with more attempts; one whose length nobody saw counts by outcome."""
    by_outcome = dict(tally.by_outcome)
    by_length = list(tally.by_length)
    total = tally.seconds
    for attempt in attempts:
        by_outcome[attempt.outcome] = by_outcome.get(attempt.outcome, 0) + 1
        seconds = attempt.duration_seconds
        if seconds is not None:
            by_length[bisect_left(LENGTH_BOUNDS, seconds)] += 1
            total += seconds
    return Tally(by_outcome=by_outcome, by_length=tuple(by_length), seconds=total)


def joined(one: Tally, other: Tally) -> Tally:
    """Return the sum of two tallies."""
    outcomes = {**one.by_outcome, **other.by_outcome}
    return Tally(
        by_outcome={
            each: one.by_outcome.get(each, 0) + other.by_outcome.get(each, 0) for each in outcomes
        },
        by_length=tuple(map(sum, zip(one.by_length, other.by_length, strict=True))),
        seconds=one.seconds + other.seconds,
    )


def tally_document(tally: Tally) -> dict[str, Any]:
    """Return the JSON object of a tally."""
    return {
        "outcomes": dict(tally.by_outcome),
        "lengths": tally.by_length,
        "seconds": round(tally.seconds, 3),
    }


def tally_from(document: Mapping[str, Any]) -> Tally:
    """Return the tally in a JSON object, an empty one where there is none.

    Raises: ValueError where it is no tally.
    """
    outcomes, lengths = document.get("outcomes", {}), document.get("lengths", Tally().by_length)
    if not isinstance(outcomes, dict) or len(whole_numbers(lengths)) != len(LENGTH_BOUNDS) + 1:
        raise ValueError("not the outcomes, or the lengths, that are counted")
    counts = whole_numbers([*outcomes.values()])
    return Tally(
        by_outcome=dict(zip(map(Outcome, outcomes), counts, strict=True)),
        by_length=whole_numbers(lengths),
        seconds=number(document.get("seconds", 0.0)),
    )


def number(value: object) -> float:
    """Return a number of a JSON object that counts or measures. Raises: ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST:
        raise ValueError(f"{shorten(value)} is no count")
    return float(value)


def whole_numbers(values: object) -> tuple[int, ...]:
    """Return the counts in a list of a JSON object. Raises: ValueError."""
    if not isinstance(values, list | tuple) or any(type(each) is not int for each in values):
        raise ValueError(f"{shorten(values)} are no counts")
    return tuple(int(number(each)) for each in values)


class Recent:
    """Count what was settled in the last minute, in slots of ten seconds.

    Slots and not a rate: the reader knows how late it is, so that a rate falls while nothing ends.
    """

    def __init__(self, slot: int = 0, counts: tuple[int, ...] = (0,) * _SLOTS) -> None:
        """Take the number of the newest slot, and what was counted in each, the oldest first."""
        self.slot = slot
        self.counts = counts

    def add(self, now: float, count: int) -> None:
        """Count those that ended at an instant, in seconds since 1970."""
        *older, newest = self.at(now)
        self.counts = (*older, newest + count)
        self.slot = int(now) // _SLOT_SECONDS

    def at(self, now: float) -> tuple[int, ...]:
        """Return the counts of the minute that ends now, the oldest slot first."""
        passed = int(now) // _SLOT_SECONDS - self.slot
        if not 0 <= passed < _SLOTS:  # all too old, or the clock was set back
            return (0,) * _SLOTS
        return self.counts[passed:] + (0,) * passed

    def rate(self, now: float, alive_seconds: float) -> float:
        """Return how many ended in a second lately, for a worker that has lived so long."""
        seconds = (_SLOTS - 1) * _SLOT_SECONDS + now % _SLOT_SECONDS
        return sum(self.at(now)) / max(min(seconds, alive_seconds), 1.0)

"""Count what workers settle, so that rates and totals are known without reading a document.

Each worker counts in its own record; what it counted goes to the store's totals when it leaves, or
when its stale record is removed. Nobody's safety depends on these numbers.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from operator import add
from typing import Any

from queuectl.errors import shorten
from queuectl.job import Attempt, outcome_from
from queuectl.store.values import LENGTH_BOUNDS, Recent, Tally

_MOST = 2**53  # a double holds each whole number up to it
_SLOT_SECONDS = 10
_SLOTS = len(Recent().counts)  # a minute, however far the newest has come


def counted(tally: Tally, attempts: Sequence[Attempt], now: float) -> Tally:
    """Return the tally with more attempts; one whose length nobody saw counts by outcome.

    Units: ``now`` in seconds since 1970.
    """
    by_outcome = dict(tally.by_outcome)
    by_length = list(tally.by_length)
    total = tally.seconds
    for attempt in attempts:
        by_outcome[attempt.outcome] = by_outcome.get(attempt.outcome, 0) + 1
        seconds = attempt.duration_seconds
        if seconds is not None:
            by_length[bisect_left(LENGTH_BOUNDS, seconds)] += 1
            total += seconds
    *older, newest = _counts_at(tally.recent, _slot(now))
    return Tally(
        by_outcome=by_outcome,
        by_length=tuple(by_length),
        seconds=total,
        recent=Recent(_slot(now), (*older, newest + len(attempts))),
    )


def joined(one: Tally, other: Tally) -> Tally:
    """Return the sum of two tallies."""
    outcomes = {**one.by_outcome, **other.by_outcome}
    slot = max(one.recent.slot, other.recent.slot)
    recent = map(add, _counts_at(one.recent, slot), _counts_at(other.recent, slot))
    return Tally(
        by_outcome={
            each: one.by_outcome.get(each, 0) + other.by_outcome.get(each, 0) for each in outcomes
        },
        by_length=tuple(map(sum, zip(one.by_length, other.by_length, strict=True))),
        seconds=one.seconds + other.seconds,
        recent=Recent(slot, tuple(recent)),
    )


def tally_document(tally: Tally) -> dict[str, Any]:
    """Return the JSON object of a tally."""
    return {
        "outcomes": dict(tally.by_outcome),
        "lengths": tally.by_length,
        "seconds": round(tally.seconds, 3),
        "slot": tally.recent.slot,
        "recent": tally.recent.counts,
    }


def tally_from(document: Mapping[str, Any]) -> Tally:
    """Return the tally in a JSON object, an empty one where there is none.

    Raises: ValueError where it is no tally.
    """
    outcomes, lengths = document.get("outcomes", {}), document.get("lengths", Tally().by_length)
    if not isinstance(outcomes, dict) or len(whole_numbers(lengths)) != len(LENGTH_BOUNDS) + 1:
        raise ValueError("not the outcomes, or the lengths, that are counted")
    counts = whole_numbers([*outcomes.values()])
    (slot,) = whole_numbers([document.get("slot", 0)])
    recent = whole_numbers(document.get("recent", ()))
    return Tally(
        by_outcome=dict(zip(map(outcome_from, outcomes), counts, strict=True)),
        by_length=whole_numbers(lengths),
        seconds=number(document.get("seconds", 0.0)),
        # Another version may keep more or fewer.
        recent=Recent(slot, ((0,) * _SLOTS + recent)[-_SLOTS:]),
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


def in_last_minute(recent: Recent, now: float) -> float:
    """Return how many ended in the minute before an instant, in seconds since 1970.

    Of the oldest slot only a part lies in that minute; its ends count as spread over it.
    """
    oldest, *others = _counts_at(recent, _slot(now))
    return sum(others) + oldest * (1 - now % _SLOT_SECONDS / _SLOT_SECONDS)


def without_future(tally: Tally, now: float) -> Tally:
    """Return a tally in which nothing has ended later than now: the clock was set back."""
    return tally._replace(recent=Recent()) if tally.recent.slot > _slot(now) else tally


def _slot(now: float) -> int:
    return int(now) // _SLOT_SECONDS


def _counts_at(recent: Recent, slot: int) -> tuple[int, ...]:
    """Return the counts up to a slot; none where all are too old, or of a time to come."""
    passed = slot - recent.slot
    if not 0 <= passed < _SLOTS:
        return (0,) * _SLOTS
    return recent.counts[passed:] + (0,) * passed

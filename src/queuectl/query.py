"""Choose, order and read jobs for the commands that list them.

The store orders what it can without opening a document; what needs documents is done here, one
document at a time, so that a long queue is never held in memory whole.
"""

import heapq
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from operator import attrgetter, itemgetter
from typing import Any

from queuectl.clock import utc_now
from queuectl.errors import BadDocument, ConfigError, JobNotFound
from queuectl.job import Job, Outcome, State, job_document
from queuectl.store.base import FINISHED, Entry, Store

# What runs, then what waits; these change too fast, and are too few or too well sorted, to merge.
_UNFINISHED = (State.PROCESSING, State.PENDING, State.BLOCKED)
_MOST = 2**31  # more than there can be, and not too much for what counts up to it
_EVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Hold one job of a list: the job, or else the ``problem`` that kept it from being read."""

    entry: Entry
    job: Job | None = None
    problem: str | None = None


# What can be told from a name; None sends to the document.
_BY_ENTRY: dict[str, Callable[[Entry], Any]] = {
    "id": attrgetter("id"),
    "state": lambda entry: (*_UNFINISHED, *FINISHED).index(entry.state),
    "priority": attrgetter("priority"),
    "run-at": attrgetter("run_at"),
}
_BY_JOB: dict[str, Callable[[Job], Any]] = {
    "priority": attrgetter("priority"),
    "run-at": attrgetter("run_at"),
    "created": attrgetter("created_at"),
    "updated": attrgetter("updated_at"),
    "attempts": attrgetter("attempts"),
    "command": attrgetter("command"),
}
SORT_KEYS = tuple(dict.fromkeys((*_BY_ENTRY, *_BY_JOB)))


def select(
    store: Store,
    states: Collection[State],
    now: datetime,
    *,
    limit: int | None = None,
    sort: str | None = None,
    reverse: bool = False,
    changed_before: datetime | None = None,
    matches: Callable[[Job], object] | None = None,
) -> Iterator[Row]:
    """Yield the jobs in the states, ``limit`` at most, each read when it is asked for.

    Without ``sort`` (one of SORT_KEYS): what runs, what is pending in the order of running, what is
    blocked, then what is finished, newest first. ``changed_before`` keeps what came to its state
    until then; ``matches`` the jobs that it is true for, no document that cannot be read.
    """
    if limit is not None:
        limit = min(limit, _MOST)
    as_they_come = sort is None and not reverse and not changed_before and not matches
    entries = iter(_entries(store, states, now, limit if as_they_come else None))
    if changed_before:
        entries = (each for each in entries if (each.changed_at or _EVER) <= changed_before)
    if matches:
        # A job is read again where it is printed: only its entry is kept while others are sorted.
        entries = (entry for entry in entries if _matches(read_row(store, entry), matches))
    if sort is not None:
        entries = _sorted(store, entries, sort, reverse, limit)
    elif reverse:
        entries = reversed(list(entries))
    rows = (read_row(store, entry) for entry in entries)
    return islice((row for row in rows if row and row.entry.state in states), limit)


def _entries(
    store: Store, states: Collection[State], now: datetime, limit: int | None
) -> list[Entry]:
    """Return the entries in the default order; with a limit as many as it may take, or more."""
    found: dict[State, list[Entry]] = {}
    unique: dict[str, Entry] = {}
    # In the order of a job's life: one that moves on meanwhile is met twice, never missed. Where it
    # was met last is where it is.
    for group in (State.BLOCKED, State.PENDING, State.PROCESSING), FINISHED:
        for state in group:
            if state in states:
                found[state] = store.entries(state, now, limit)
                unique.update((entry.id, entry) for entry in found[state])
        if limit is not None and len(unique) >= limit:
            break  # what is finished comes after these, and may be a lot
    finished = heapq.merge(
        *(found.get(state, ()) for state in FINISHED),
        key=lambda entry: entry.changed_at or _EVER,
        reverse=True,
    )
    unfinished = (entry for state in _UNFINISHED for entry in found.get(state, ()))
    return [entry for each in (unfinished, finished) for entry in each if unique[entry.id] is entry]


def _sorted(
    store: Store, entries: Iterator[Entry], sort: str, reverse: bool, limit: int | None
) -> Iterator[Entry]:
    keyed = ((_sort_key(store, entry, sort), entry) for entry in entries)
    if limit is None:
        chosen = sorted(keyed, key=itemgetter(0), reverse=reverse)
    else:
        first = heapq.nlargest if reverse else heapq.nsmallest
        chosen = first(limit, keyed, key=itemgetter(0))
    return map(itemgetter(1), chosen)


def _sort_key(store: Store, entry: Entry, sort: str) -> tuple[bool, Any, str]:
    value = _BY_ENTRY[sort](entry) if sort in _BY_ENTRY else None
    if value is None:
        row = read_row(store, entry)
        if row is None or row.job is None:
            return (True, None, entry.id)
        value = _BY_JOB[sort](row.job)
    return (False, value, entry.id)


def find_job(store: Store, prefix: str) -> Job:
    """Return the job whose id is ``prefix`` or, alone, starts with it, wherever it moves meanwhile.

    Raises: JobNotFound; AmbiguousPrefix that lists candidates; BadDocument.
    """
    entry = store.resolve(prefix)
    return store.read(entry) or store.get(entry.id)


def read_row(store: Store, entry: Entry) -> Row | None:
    """Return the job of an entry, wherever it has moved to; None where it is gone."""
    try:
        job = store.read(entry)
        if job is None:
            job = store.get(entry.id)
            entry = _moved_entry(job)
    except JobNotFound:
        return None
    except (BadDocument, ConfigError) as error:
        return Row(entry=entry, problem=str(error))
    return Row(entry=entry, job=job)


def _moved_entry(job: Job) -> Entry:
    """Return what a list tells of a job that has come to where it is while the list was made."""
    if job.state is State.PENDING:
        return Entry(id=job.id, state=job.state, priority=job.priority, run_at=job.run_at)
    return Entry(id=job.id, state=job.state, changed_at=utc_now())


def attempts_text(job: Job) -> str:
    """Return how often a job was started since it came, or was last sent back, and of how often.

    ``attempts`` counts the runs that failed; what is added is the one that did not, or goes on.
    """
    most = max(job.max_retries, 1)
    if job.state is State.PROCESSING:
        return f"{min(job.attempts + 1, most)}/{most}"
    ended = {State.COMPLETED: Outcome.SUCCEEDED, State.CANCELLED: Outcome.CANCELLED}
    last = job.history[-1].outcome if job.history else None
    return f"{job.attempts + (last is not None and last is ended.get(job.state))}/{most}"


def _matches(row: Row | None, matches: Callable[[Job], object]) -> bool:
    return row is not None and row.job is not None and bool(matches(row.job))


def command_matches(pattern: re.Pattern[str]) -> Callable[[Job], object]:
    """Return what tells whether a pattern is found in a job's command."""
    return lambda job: pattern.search(job.command)


def id_or_command_matches(pattern: re.Pattern[str]) -> Callable[[Job], object]:
    """Return what tells whether a pattern is found in a job's id or command."""
    return lambda job: pattern.search(job.id) or pattern.search(job.command)


def row_document(row: Row) -> dict[str, Any]:
    """Return the JSON object of a row: the job's document, or what is known and the problem."""
    if row.job is None:
        return {"id": row.entry.id, "state": row.entry.state, "unreadable": row.problem}
    return job_document(row.job)

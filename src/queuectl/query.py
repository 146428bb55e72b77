"""Choose, order and read jobs for the commands that list them.

The store orders what it can without opening a document; what needs documents is done here, one
document at a time, and what must be held of each job of a long queue is held packed.
"""

import heapq
import re
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, islice
from operator import attrgetter, itemgetter
from typing import Any

from queuectl.clock import utc_now
from queuectl.document import job_document
from queuectl.errors import BadDocument, ConfigError, JobNotFound
from queuectl.job import FINISHED, Job, Outcome, State
from queuectl.packed import Packed, Sorter
from queuectl.store.base import Entry, Store

# What runs, then what waits; these change too fast, and are too few or too well sorted, to merge.
_UNFINISHED = (State.PROCESSING, State.PENDING, State.BLOCKED)
_MOST = 2**31  # more than there can be, and not too much for what counts up to it
_FEW = 10_000  # so many entries are held as they are
_PARTS = 256
_SortKey = tuple[bool, Any, str]
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
    if as_they_come and limit is not None and limit <= _FEW:
        entries = iter(_first_entries(store, states, now, limit))
    else:
        entries = _all_entries(store, states, now)
    if changed_before:
        entries = (each for each in entries if (each.changed_at or _EVER) <= changed_before)
    if matches:
        # A job is read again where it is printed: only its entry is kept while others are sorted.
        entries = (entry for entry in entries if _matches(read_row(store, entry), matches))
    if sort is not None:
        entries = _sorted(store, entries, sort, reverse, limit)
    elif reverse:
        entries = reversed(Packed(entries))
    rows = (read_row(store, entry) for entry in entries)
    return islice((row for row in rows if row and row.entry.state in states), limit)


def _all_entries(store: Store, states: Collection[State], now: datetime) -> Iterator[Entry]:
    """Return all entries in the default order."""
    # In the order of a job's life: one that moves on meanwhile is met twice, never missed. Where it
    # was met last is where it is.
    found = {
        state: store.all_entries(state, now)
        for state in (State.BLOCKED, State.PENDING, State.PROCESSING, *FINISHED)
        if state in states
    }
    return _once(_in_order(found), _met_twice(found))


def _met_twice(found: Mapping[State, Collection[Entry]]) -> dict[int, State | None]:
    """Return the marks of the jobs that were met more than once, each with the last state.

    A mark is a hash of the id. Of each job 8 bytes are held while they are compared.
    """
    if sum(map(bool, map(len, found.values()))) < 2:
        return {}
    states = list(found)
    parts = [array("q") for _ in range(_PARTS)]
    for index, state in enumerate(states):
        for entry in found[state]:
            mark = _mark(entry)
            parts[mark // 8 % _PARTS].append(mark + index)
    twice: dict[int, State | None] = {}
    for part in parts:
        seen: set[int] = set()
        for each in part:
            mark = each & -8
            if mark in seen:
                twice[mark] = states[each & 7]
            seen.add(mark)
    return twice


def _mark(entry: Entry) -> int:
    return hash(entry.id) & -8


def _once(entries: Iterable[Entry], twice: dict[int, State | None]) -> Iterator[Entry]:
    """Yield the entries, of those that were met more than once one from the last state."""
    for entry in entries:
        if twice and (mark := _mark(entry)) in twice:
            if twice[mark] is not entry.state:
                continue
            twice[mark] = None
        yield entry


def _in_order(found: Mapping[State, Iterable[Entry]]) -> Iterator[Entry]:
    """Yield entries that are in order in each state in the order of a list."""
    finished = heapq.merge(
        *(found.get(state, ()) for state in FINISHED),
        key=lambda entry: entry.changed_at or _EVER,
        reverse=True,
    )
    return chain(*(found.get(state, ()) for state in _UNFINISHED), finished)


def _first_entries(
    store: Store, states: Collection[State], now: datetime, limit: int
) -> list[Entry]:
    """Return as many entries in the default order as the limit may take, or more."""
    found: dict[State, list[Entry]] = {}
    unique: dict[str, Entry] = {}
    for group in (State.BLOCKED, State.PENDING, State.PROCESSING), FINISHED:
        for state in group:
            if state in states:
                found[state] = store.entries(state, now, limit)
                unique.update((entry.id, entry) for entry in found[state])
        if len(unique) >= limit:
            break  # what is finished comes after these, and may be a lot
    return [entry for entry in _in_order(found) if unique[entry.id] is entry]


def _sorted(
    store: Store, entries: Iterator[Entry], sort: str, reverse: bool, limit: int | None
) -> Iterator[Entry]:
    keyed = ((_sort_key(store, entry, sort), entry) for entry in entries)
    chosen: Iterable[tuple[_SortKey, Entry]]
    if limit is None or limit > _FEW:
        chosen = Sorter(keyed, key=itemgetter(0), reverse=reverse)
    else:
        first = heapq.nlargest if reverse else heapq.nsmallest
        chosen = first(limit, keyed, key=itemgetter(0))
    return map(itemgetter(1), chosen)


def _sort_key(store: Store, entry: Entry, sort: str) -> _SortKey:
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

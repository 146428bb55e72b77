"""Choose, order and read jobs for the commands that list them.

The store orders all that it can without opening a document. What needs documents is done here, one
document at a time, and what must be held of each job of a long queue is held packed.
"""

import heapq
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import chain, islice
from operator import itemgetter
from typing import Any, NamedTuple

from queuectl.clock import FIRST
from queuectl.document import job_document
from queuectl.errors import BadDocument, ConfigError, JobNotFound
from queuectl.job import FINISHED, IN_ORDER, Job, State
from queuectl.packed import Packed, Sorter
from queuectl.policy import attempts_allowed, attempts_used
from queuectl.store.protocol import Store
from queuectl.store.values import Entry

# Listed one after the other: they change too fast to be merged, or are too few.
_UNFINISHED = (State.PROCESSING, State.PENDING, State.BLOCKED)
_LISTED = (*_UNFINISHED, *FINISHED)
_MAX_LIMIT = 2**31  # more than there can be, and not too much for islice
_FEW = 10_000  # entries that are held unpacked
_PARTS = 256
_SortKey = tuple[bool, Any, str]


class Row(NamedTuple):
    """One job of a list: the job, or else the ``problem`` that kept it from being read."""

    entry: Entry
    job: Job | None = None
    problem: str | None = None


# Each with its attribute. What an entry does not know is read from the document.
SORT_KEYS = {
    "id": "id", "state": "state", "priority": "priority", "run-at": "run_at",
    "created": "created_at", "updated": "updated_at", "attempts": "attempts", "command": "command",
}  # fmt: skip


def select(
    store: Store,
    states: Collection[State],
    now: datetime,
    *,
    limit: int | None = None,
    sort: str | None = None,
    reverse: bool = False,
    matches: Callable[[Job], object] | None = None,
) -> Iterator[Row]:
    """Yield up to ``limit`` jobs in the states, each read when it is asked for.

    Without ``sort`` (one of SORT_KEYS): processing jobs, pending ones in the order of running,
    blocked ones, then finished ones, newest first. ``matches`` keeps the jobs that it is true for,
    and drops documents that cannot be read.
    """
    if limit is not None:
        limit = min(limit, _MAX_LIMIT)
    if limit is None or limit > _FEW or sort is not None or reverse or matches:
        entries = _all_entries(store, states, now)
    else:
        entries = iter(_first_entries(store, states, now, limit))
    if matches:
        # A job is read again when it is printed: only its entry is kept while others are sorted.
        entries = (
            each
            for each in entries
            if (row := read_row(store, each, now)) and row.job and matches(row.job)
        )
    if sort is not None:
        keyed = ((_sort_key(store, each, now, sort), each) for each in entries)
        entries = _sorted(keyed, reverse, limit)
    elif reverse:
        entries = reversed(Packed(entries))
    rows = (read_row(store, entry, now) for entry in entries)
    return islice((row for row in rows if row and row.entry.state in states), limit)


def _all_entries(store: Store, states: Collection[State], now: datetime) -> Iterator[Entry]:
    """Yield all entries in the default order, each job once."""
    # The states are read in the order of a job's life: a job that moves on meanwhile is found
    # twice, never missed. It is where it was found last.
    found = {state: store.entries(state, now) for state in IN_ORDER if state in states}
    last_states = _last_states(found)
    for entry in _in_order(found):
        if last_states and (mark := _mark(entry)) in last_states:
            if last_states[mark] is not entry.state:
                continue
            last_states[mark] = None
        yield entry


def _last_states(found: Mapping[State, Collection[Entry]]) -> dict[int, State | None]:
    """Return the marks, 8-byte hashes of ids, of jobs found twice, each with its last state."""
    if sum(map(bool, map(len, found.values()))) < 2:
        return {}
    states = list(found)
    parts = [array("q") for _ in range(_PARTS)]
    for index, state in enumerate(states):
        for entry in found[state]:
            mark = _mark(entry)
            parts[mark // 8 % _PARTS].append(mark + index)
    last_states: dict[int, State | None] = {}
    for part in parts:
        seen: set[int] = set()
        for each in part:
            mark = each & -8
            if mark in seen:
                last_states[mark] = states[each & 7]
            seen.add(mark)
    return last_states


def _mark(entry: Entry) -> int:
    return hash(entry.id) & -8


def _in_order(found: Mapping[State, Iterable[Entry]]) -> Iterator[Entry]:
    """Yield entries, which are in order in each state, in the default order."""
    finished = heapq.merge(
        *(found.get(state, ()) for state in FINISHED),
        key=lambda entry: entry.changed_at or FIRST,
        reverse=True,
    )
    return chain(*(found.get(state, ()) for state in _UNFINISHED), finished)


def _first_entries(
    store: Store, states: Collection[State], now: datetime, limit: int
) -> list[Entry]:
    """Return at least the first ``limit`` entries in the default order, each job once."""
    found: dict[State, list[Entry]] = {}
    unique: dict[str, Entry] = {}
    for state in IN_ORDER:
        if state is FINISHED[0] and len(unique) >= limit:
            break  # finished jobs come last, and may be many
        if state in states:
            found[state] = list(store.entries(state, now, limit))
            unique.update((entry.id, entry) for entry in found[state])
    return [entry for entry in _in_order(found) if unique[entry.id] is entry]


def _sorted(
    keyed: Iterator[tuple[_SortKey, Entry]], reverse: bool, limit: int | None
) -> Iterator[Entry]:
    chosen: Iterable[tuple[_SortKey, Entry]]
    if limit is None or limit > _FEW:
        chosen = Sorter(keyed, key=itemgetter(0), reverse=reverse)
    else:
        first = heapq.nlargest if reverse else heapq.nsmallest
        chosen = first(limit, keyed, key=itemgetter(0))
    return map(itemgetter(1), chosen)


def _sort_key(store: Store, entry: Entry, now: datetime, sort: str) -> _SortKey:
    """Return the value that an entry is sorted by; documents that cannot be read come last."""
    value = getattr(entry, SORT_KEYS[sort], None)
    if value is None:
        row = read_row(store, entry, now)
        if row is None or row.job is None:
            return (True, None, entry.id)
        value = getattr(row.job, SORT_KEYS[sort])
    return (False, _LISTED.index(value) if sort == "state" else value, entry.id)


def find_job(store: Store, prefix: str) -> Job:
    """Return the job with an id or the start of one. Raises: JobNotFound, BadDataError."""
    entry = store.resolve(prefix)
    return store.read(entry) or store.get(entry.id)


def read_row(store: Store, entry: Entry, now: datetime) -> Row | None:
    """Return the job of an entry, wherever it has moved to by now; None if it is gone."""
    try:
        job = store.read(entry)
        if job is None:
            job = store.get(entry.id)
            entry = Entry(job.id, job.state, job.priority, job.run_at, changed_at=now)
    except JobNotFound:
        return None
    except (BadDocument, ConfigError) as error:
        return Row(entry, problem=str(error))
    return Row(entry, job)


def attempts_text(job: Job) -> str:
    """Return how many attempts a job has used, of how many: ``1/3``."""
    return f"{attempts_used(job)}/{attempts_allowed(job)}"


def row_document(row: Row) -> dict[str, Any]:
    """Return the JSON object of a row: the job's document, or what is known and the problem.

    `enqueue` reads this again: a key that is in no document belongs to submit.RECORDED_KEYS.
    """
    if row.job is None:
        return {"id": row.entry.id, "state": row.entry.state, "unreadable": row.problem}
    return job_document(row.job)

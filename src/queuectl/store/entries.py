"""List and count jobs by the names of their files."""

import os
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from functools import partial

from queuectl.job import DEFAULT_PRIORITY, IN_ORDER, State
from queuectl.store import files
from queuectl.store.index import Index
from queuectl.store.layout import StoreDirectory
from queuectl.store.names import (
    SUFFIX,
    due_text,
    is_pending_name,
    is_stranger,
    looks_pending,
    parse_due,
)
from queuectl.store.values import Counts, Entry

_DUE, _NOT_DUE = "0", "1"  # what a text begins with that puts a name in the order of running


class Entries:
    """The jobs of each state of one store, in order."""

    def __init__(self, directory: StoreDirectory, index: Index) -> None:
        self._dir = directory
        self._index = index

    def entries(self, state: State, now: datetime, limit: int | None = None) -> Collection[Entry]:
        """Return what the names say of the jobs in a state, in order; see Store.entries."""
        if limit is None:
            from queuectl.packed import Made, Sorter

            if state is State.PENDING:
                return Made(Sorter(self._order_keys(now)), self._pending_entries)
            timed = Sorter(self.timed(state), reverse=True)
            return Made(timed, partial(self._timed_entries, state))
        from heapq import nlargest, nsmallest

        if state is State.PENDING:
            return list(self._pending_entries(nsmallest(limit, self._order_keys(now))))
        return list(self._timed_entries(state, nlargest(limit, self.timed(state))))

    def _order_keys(self, now: datetime) -> Iterator[str]:
        """Yield a text for each job in pending/; their order is that of running."""
        due_by = due_text(now)
        for name in self._dir.names(State.PENDING):
            if looks_pending(name) and name[2:25] <= due_by:
                yield _DUE + name
            elif is_pending_name(name):
                yield _NOT_DUE + name[2:25] + name
            elif self._index.is_dropped(name):
                yield f"{_DUE}{DEFAULT_PRIORITY}-{due_by}/{name}"

    def _pending_entries(self, order_keys: Iterable[str]) -> Iterator[Entry]:
        for key in order_keys:
            name = key[24:] if key.startswith(_NOT_DUE) else key[1:].rpartition("/")[2]
            if is_pending_name(name) or is_stranger(name):
                yield self._index.entry(State.PENDING, name)

    def _timed_entries(self, state: State, timed: Iterable[tuple[float, str]]) -> Iterator[Entry]:
        return (self._index.entry(state, name, changed) for changed, name in timed)

    def timed(self, state: State) -> Iterator[tuple[float, str]]:
        """Stream when each job came to a state, in seconds since 1970, and its file's name."""
        if not self._dir.has(state):
            return
        fd = self._dir.fd(state)
        for _, name in self._index.identified(state):
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                what = f"{self._dir.location}/{state}/{name} cannot be looked at"
                raise files.as_store_error(error, what) from error
            yield status.st_mtime, name

    def counts(self, now: datetime) -> Counts:
        """Count the jobs by the names of their files."""
        by_state = dict.fromkeys(State, 0)
        due_by = due_text(now)
        by_state[State.BLOCKED] = sum(1 for _ in self._index.identified(State.BLOCKED))
        pending = due = 0  # an enum as a key takes as long as the rest of a name
        oldest = next_due = ""
        for name in self._dir.names(State.PENDING):
            # As looks_pending does, whose call would be most of the cost.
            if name[24:26] == "Z-" and name[1:2] == "-" and name.endswith(SUFFIX):
                at = name[2:25]
                if at <= due_by:
                    due += 1
                    if not oldest or at < oldest:
                        oldest = at
                elif not next_due or at < next_due:
                    next_due = at
            elif not self._index.is_dropped(name):
                continue
            else:
                due += 1
            pending += 1
        by_state[State.PENDING] = pending
        for state in IN_ORDER[2:]:
            by_state[state] = sum(1 for _ in self._index.identified(state))
        return Counts(
            by_state=by_state,
            due=due,
            oldest_due=parse_due(oldest) if oldest else None,
            next_due=parse_due(next_due) if next_due else None,
            unreadable=sum(1 for name in self._dir.names("corrupt") if name.endswith(".json")),
        )

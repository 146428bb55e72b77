"""Delete finished jobs and their logs: on request, and bit by bit while a worker is idle.

A finished job that a blocked job names is kept. Nothing of a job that can still run is touched.
"""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import nullcontext
from datetime import datetime, timedelta
from itertools import chain, islice

from queuectl.clock import FIRST, LAST
from queuectl.config import Settings
from queuectl.errors import BadDocument, ConfigError
from queuectl.job import State
from queuectl.packed import Few, Packed, Sorter
from queuectl.store.logs import Log, LogDir
from queuectl.store.protocol import Store
from queuectl.store.values import Entry

_LONGEST_PERIOD_SECONDS = 3600.0
_SHORTEST_PERIOD_SECONDS = 1.0
_ASK_AGAIN_SECONDS = 60.0  # while another worker purges
_AT_ONCE = 100  # jobs deleted while none can begin to wait for one
_LOGS_AT_ONCE = 10_000  # logs whose jobs are looked up by one walk through the names of all jobs
_STRAY_STAYS = timedelta(days=1)


class Purge:
    """A deletion of finished jobs that ended by ``until`` (None: ever), or a dry run of one.

    ``kept`` are jobs that a blocked job names; ``unreadable`` ones are kept as well.
    """

    def __init__(
        self, store: Store, logs: LogDir, until: datetime | None, *, dry_run: bool = False
    ) -> None:
        self._store = store
        self._forget = logs.remove_all
        self._until = until
        self._dry_run = dry_run
        self.kept: Packed[Entry] = Packed()
        self.unreadable = Few()
        self.parents = store.purging.named_parents()

    def jobs(self, states: Collection[State]) -> Iterator[Entry]:
        """Delete jobs and yield each, the first to end first. Raises: BadDocument, at the end."""
        finished = (each for state in states for each in self._store.purging.finished(state))
        old = filter(self.is_old, finished)
        entries = iter(Sorter(old, key=lambda entry: (entry.changed_at or FIRST, entry.id)))
        for _ in self.parents.look():  # read before pending.lock is taken
            pass
        while some := list(islice(entries, _AT_ONCE)):
            yield from self.delete(some)
        if self.unreadable:
            raise BadDocument(
                f"cannot be read and were left as they are: {self.unreadable};"
                " see 'queuectl doctor'"
            )

    def is_old(self, entry: Entry) -> bool:
        """Return whether a job has ended by the time given."""
        return self._until is None or (entry.changed_at or FIRST) <= self._until

    def delete(self, entries: list[Entry]) -> list[Entry]:
        """Delete up to _AT_ONCE jobs that no blocked job names; return them."""
        parents = self.parents
        held = nullcontext(parents.ids) if self._dry_run else parents.held()
        with held as named:
            return [entry for entry in entries if self._is_deleted(entry, named)]

    def _is_deleted(self, entry: Entry, named: Collection[str]) -> bool:
        if entry.id in named:
            self.kept.append(entry)
            return False
        try:
            if self._dry_run:
                return self._store.read(entry) is not None
            return self._store.purging.purge(
                entry.id, entry.state, forget=self._forget, unchanged_since=self._until
            )
        except (BadDocument, ConfigError):
            self.unreadable.append(entry.id)
            return False


class StrayLogs:
    """Logs of jobs that are gone: removed by hand, without their logs.

    They stay for a day, since whoever has taken a document away may put it back. ``until`` is when
    they were last written to at the latest (None: any time).
    """

    def __init__(
        self, store: Store, logs: LogDir, until: datetime | None, *, dry_run: bool = False
    ) -> None:
        self._store = store
        self._logs = logs
        self._until = min(until or LAST, store.now() - _STRAY_STAYS)
        self._dry_run = dry_run
        self._some: list[Log] = []
        self.count = 0

    def purge(self, finished_until: datetime | None = None) -> Iterator[None]:
        """Delete the logs, and old ones of finished jobs, a step for each that is looked at."""
        for log in self._logs.all():
            yield
            is_old = finished_until is not None and log.modified_at <= finished_until
            if not is_old and log.modified_at > self._until:
                continue
            with self._store.purging.hold(log.job_id) as is_held:
                if is_held:
                    if is_old:
                        self._logs.remove(log.job_id, log.attempt, unchanged_since=finished_until)
                    continue
            if log.modified_at <= self._until:
                self._some.append(log)
                if len(self._some) == _LOGS_AT_ONCE:
                    self._purge_some()
        self._purge_some()

    def _purge_some(self) -> None:
        some, self._some = self._some, []
        if not some:
            return
        with self._store.purging.hold_unused({log.job_id for log in some}) as unused:
            for log in some:
                if log.job_id in unused:
                    self.count += 1
                    if not self._dry_run:
                        self._logs.remove(log.job_id, log.attempt, unchanged_since=self._until)


class _Interrupted(Exception):
    """A purge that stops before its end, for other work."""


class IdlePurge:
    """The purge by keep-completed and keep-logs, in steps, of an idle worker."""

    def __init__(self, store: Store, logs: LogDir) -> None:
        self._store = store
        self._logs = logs
        self._steps: Iterator[None] | None = None
        self._keeps: tuple[float | None, float | None] = (None, None)
        self._next_at = 0.0

    def go_on(self, settings: Settings, now: datetime, is_wanted: Callable[[], bool]) -> bool:
        """Purge until the worker is wanted elsewhere; return whether it was.

        An interrupted purge continues; if another worker has purged meanwhile, or the settings have
        changed, it is dropped. A new one starts when a period has passed.
        Raises: StoreError, OSError.
        """
        keeps = settings.keep_completed, settings.keep_logs
        if keeps != self._keeps:
            self._keeps, self._steps = keeps, None
        if self._steps is None and time.monotonic() < self._next_at:
            return False
        period = period_seconds(settings)
        steps, self._steps = self._steps or self._purge(settings, now), None
        # The turn is held while the worker purges, and not while it runs a job.
        try:
            with self._store.purging.turn(period) as is_ours:
                if not is_ours:
                    # The worker whose turn it is may be interrupted, too.
                    self._next_at = time.monotonic() + min(period, _ASK_AGAIN_SECONDS)
                    return False
                self._next_at = time.monotonic() + period
                for _ in steps:
                    if is_wanted():
                        raise _Interrupted
        except _Interrupted:
            self._steps = steps
            return True
        return False

    def _purge(self, settings: Settings, now: datetime) -> Iterator[None]:
        """Delete what is old, a step for each file that is looked at."""
        if settings.keep_completed is not None:
            yield from self._purge_completed(now - timedelta(seconds=settings.keep_completed))
        if settings.keep_logs is not None:
            until = now - timedelta(seconds=settings.keep_logs)
            yield from StrayLogs(self._store, self._logs, until).purge(until)
            self._logs.worker_log.remove_old(until)

    def _purge_completed(self, until: datetime) -> Iterator[None]:
        # Unreadable documents are left for a person to look at.
        deletion = Purge(self._store, self._logs, until)
        old: list[Entry] = []
        for entry in chain(self._store.purging.finished(State.COMPLETED), [None]):
            yield
            if entry is not None and deletion.is_old(entry):
                old.append(entry)
            if len(old) == _AT_ONCE or (entry is None and old):
                yield from deletion.parents.look()
                deletion.delete(old)
                old.clear()


def period_seconds(settings: Settings) -> float:
    """Return how often to purge: ten times in the shortest time to keep, once an hour at least."""
    keeps = [each for each in (settings.keep_completed, settings.keep_logs) if each is not None]
    shortest = min(keeps, default=_LONGEST_PERIOD_SECONDS * 10)
    return max(min(shortest / 10, _LONGEST_PERIOD_SECONDS), _SHORTEST_PERIOD_SECONDS)

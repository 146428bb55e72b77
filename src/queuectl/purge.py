"""Delete what is finished: at once for a person, bit by bit and while idle for the settings.

A job goes with its logs, and a parent that a blocked job names is kept. What can still run, its
logs included, is never touched.
"""

import time
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice

from queuectl.clock import utc_now
from queuectl.config import Settings
from queuectl.errors import BadDocument, ConfigError
from queuectl.job import State
from queuectl.logs import Log, LogDir
from queuectl.packed import Few, Packed, Sorter
from queuectl.store.base import Entry, ParentNames, Store

_LONGEST_PERIOD_SECONDS = 3600.0
_SHORTEST_PERIOD_SECONDS = 1.0
_ASK_AGAIN_SECONDS = 60.0  # for the turn, while another worker has it
_AT_ONCE = 100  # so many are deleted while no job can begin to wait for one, then others go on
_LOGS_AT_ONCE = 10_000  # so many are looked up by one walk through the names of all jobs
_STRAY_STAYS = timedelta(days=1)
_LAST = datetime.max.replace(tzinfo=UTC)
_EVER = datetime.min.replace(tzinfo=UTC)


def purge(
    store: Store,
    logs: LogDir,
    states: Collection[State],
    until: datetime | None,
    *,
    dry_run: bool = False,
    kept: Packed[Entry] | None = None,
) -> Iterator[Entry]:
    """Delete the jobs that came to one of the finished states until then, None for whenever.

    Yields each that is deleted, the first to end first; with ``dry_run`` those that would be.
    ``kept`` gets those that stay because a blocked job names them.
    Raises: BadDocument, at the end, that names those that cannot be read; they are left.
    """
    found = (entry for state in states for entry in store.finished(state))
    entries = iter(
        Sorter(
            (entry for entry in found if _is_old(entry.changed_at, until)),
            key=lambda entry: (entry.changed_at or _EVER, entry.id),
        )
    )
    kept = Packed() if kept is None else kept
    unreadable = Few()
    seen = ParentNames()
    for _ in store.look_at_parents(seen):  # while others still have pending.lock
        pass
    while some := list(islice(entries, _AT_ONCE)):
        if dry_run:
            yield from _readable(store, some, seen.ids, kept, unreadable)
        else:
            yield from _purge_some(
                store, logs, some, until, seen=seen, kept=kept, unreadable=unreadable
            )
    if unreadable:
        raise BadDocument(
            f"cannot be read and were left as they are: {unreadable}; see 'queuectl doctor'"
        )


def _readable(
    store: Store,
    entries: list[Entry],
    named: Collection[str],
    kept: Packed[Entry],
    unreadable: Few,
) -> Iterator[Entry]:
    for entry in entries:
        try:
            if entry.id in named:
                kept.append(entry)
            elif store.read(entry) is not None:
                yield entry
        except (BadDocument, ConfigError):
            unreadable.append(entry.id)


def _purge_some(
    store: Store,
    logs: LogDir,
    entries: list[Entry],
    until: datetime | None,
    *,
    seen: ParentNames,
    kept: Packed[Entry],
    unreadable: Few,
) -> list[Entry]:
    """Delete a few jobs that nobody waits for; return those that are deleted."""
    purged = []
    with store.parents_held(seen) as named:
        for entry in entries:
            try:
                if entry.id in named:
                    kept.append(entry)
                elif store.purge(
                    entry.id, entry.state, forget=logs.remove_all, unchanged_since=until
                ):
                    purged.append(entry)
            except (BadDocument, ConfigError):
                unreadable.append(entry.id)
    return purged


def _is_old(changed_at: datetime | None, until: datetime | None) -> bool:
    return until is None or (changed_at or _EVER) <= until


class StrayLogs:
    """Logs whose jobs are gone: removed by hand, with their logs left behind.

    They stay for a day, since who has taken a document away may put it back.
    """

    def __init__(
        self, store: Store, logs: LogDir, until: datetime | None, *, dry_run: bool = False
    ) -> None:
        """Take which are to go: the logs that were last written to until then, None for any."""
        self._store = store
        self._logs = logs
        self._until = min(until or _LAST, utc_now() - _STRAY_STAYS)
        self._dry_run = dry_run
        self._some: list[Log] = []
        self.count = 0

    def add(self, log: Log) -> None:
        """Take a log that may be one, as that of a job that has not ended may."""
        if log.modified_at <= self._until:
            self._some.append(log)
            if len(self._some) == _LOGS_AT_ONCE:
                self.purge()

    def add_all(self) -> None:
        """Take all logs but those of jobs that have ended."""
        for log in self._logs.all():
            if log.modified_at <= self._until:
                with self._store.hold(log.job_id) as is_held:
                    if not is_held:
                        self.add(log)

    def purge(self) -> None:
        """Delete those of the logs that were taken whose jobs are gone."""
        some, self._some = self._some, []
        if not some:
            return
        with self._store.hold_unused({log.job_id for log in some}) as unused:
            for log in some:
                if log.job_id in unused:
                    self.count += 1
                    if not self._dry_run:
                        self._logs.remove(log.job_id, log.attempt, unchanged_since=self._until)


class _CalledAway(Exception):
    """A purge that is left for other work before its end."""


class IdlePurge:
    """Delete what keep-completed and keep-logs do not keep, in steps, for a worker that is idle."""

    def __init__(self, store: Store, logs: LogDir) -> None:
        """Take what is to be purged; nothing is looked at before go_on."""
        self._store = store
        self._logs = logs
        self._steps: Iterator[None] | None = None
        self._keeps: tuple[float | None, float | None] = (None, None)
        self._next_at = 0.0

    def go_on(self, settings: Settings, now: datetime, is_wanted: Callable[[], bool]) -> bool:
        """Purge from where it was left until the worker is wanted elsewhere; return whether it was.

        It begins again when a period has passed, which the shortest time to keep decides. What was
        left is forgotten if others have purged meanwhile, or if the times to keep are others now.
        Raises: StoreError, OSError.
        """
        keeps = settings.keep_completed, settings.keep_logs
        if keeps != self._keeps:
            self._keeps, self._steps = keeps, None
        if self._steps is None and time.monotonic() < self._next_at:
            return False
        period = period_seconds(settings)
        steps, self._steps = self._steps or self._purge(settings, now), None
        # The turn is kept for as long as the worker is here, and not while it runs a job.
        try:
            with self._store.purge_turn(period) as is_ours:
                if not is_ours:
                    # The one whose turn it is may be called away, too.
                    self._next_at = time.monotonic() + min(period, _ASK_AGAIN_SECONDS)
                    return False
                self._next_at = time.monotonic() + period
                for _ in steps:
                    if is_wanted():
                        raise _CalledAway
        except _CalledAway:
            self._steps = steps
            return True
        return False

    def _purge(self, settings: Settings, now: datetime) -> Iterator[None]:
        """Delete what is old, a step for each file that is looked at."""
        if settings.keep_completed is not None:
            yield from self._purge_completed(_before(now, settings.keep_completed))
        if settings.keep_logs is not None:
            yield from self._purge_logs(_before(now, settings.keep_logs))

    def _purge_completed(self, until: datetime) -> Iterator[None]:
        old: list[Entry] = []
        seen = ParentNames()
        for entry in self._store.finished(State.COMPLETED):
            yield
            if _is_old(entry.changed_at, until):
                old.append(entry)
            if len(old) == _AT_ONCE:
                yield from self._purge_old(old, until, seen)
                old.clear()
        if old:
            yield from self._purge_old(old, until, seen)

    def _purge_old(self, old: list[Entry], until: datetime, seen: ParentNames) -> Iterator[None]:
        yield from self._store.look_at_parents(seen)
        # What cannot be read is left for a person to look at.
        _purge_some(self._store, self._logs, old, until, seen=seen, kept=Packed(), unreadable=Few())

    def _purge_logs(self, until: datetime) -> Iterator[None]:
        strays = StrayLogs(self._store, self._logs, until)
        for log in self._logs.all():
            yield
            if log.modified_at <= until:
                with self._store.hold(log.job_id) as is_held:
                    if is_held:
                        self._logs.remove(log.job_id, log.attempt, unchanged_since=until)
                        continue
                strays.add(log)
        strays.purge()
        self._logs.remove_old_talk(until)


def period_seconds(settings: Settings) -> float:
    """Return how often to purge: ten times in the shortest time to keep, once an hour at least."""
    keeps = [each for each in (settings.keep_completed, settings.keep_logs) if each is not None]
    shortest = min(keeps, default=_LONGEST_PERIOD_SECONDS * 10)
    return max(min(shortest / 10, _LONGEST_PERIOD_SECONDS), _SHORTEST_PERIOD_SECONDS)


def _before(now: datetime, seconds: float) -> datetime:
    try:
        return now - timedelta(seconds=seconds)
    except OverflowError:
        return _EVER

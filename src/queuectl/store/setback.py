"""Due times after the wall clock was set back: no job waits until the old time comes again.

A name in ``pending/`` tells when a job is due, by the clock of that moment. Jobs that only the
clock puts off (see policy.put_off_by_clock) are given new due times.
"""

from collections.abc import Iterator
from datetime import datetime

from queuectl.clock import later
from queuectl.errors import QueuectlError
from queuectl.job import Job, State
from queuectl.policy import put_off_by_clock
from queuectl.store.core import Core
from queuectl.store.names import due_text, is_pending_name, pending_due, pending_id, pending_name

_READ_AT_ONCE = 200  # so many are read while pending.lock is held, then others have a turn


class SetBack:
    """The due times in pending/ of one store, after the clock was set back."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def is_proved_by(self, name: str, now: datetime) -> bool:
        """Return whether a job that is not due was recorded later than now."""
        return self._put_off_by_clock(name, now) is not None

    def put_right(self, now: datetime) -> None:
        """Give the jobs that only the clock puts off a new due time, in their order."""
        due_by = due_text(now)
        names = [
            name
            for name in self._core.directory.names(State.PENDING)
            if is_pending_name(name) and pending_due(name) > due_by
        ]
        names.sort(key=pending_due)
        # Due in a row that has ended by now, so that new jobs come behind them.
        at_once = (later(now, (index - len(names)) / 1_000_000) for index in range(len(names)))
        for start in range(0, len(names), _READ_AT_ONCE):
            with self._core.lock.held():
                for name in names[start : start + _READ_AT_ONCE]:
                    job = self._put_off_by_clock(name, now)
                    if job is not None:
                        self._rename(name, job, now, at_once)

    def _put_off_by_clock(self, name: str, now: datetime) -> Job | None:
        """Return the job of a name if only the clock puts it off, as it was recorded."""
        try:
            job = self._core.documents.read(State.PENDING, name, pending_id(name))
        except QueuectlError:
            return None  # a claim will tell
        return None if job is None or put_off_by_clock(job, now) is None else job

    def _rename(self, name: str, job: Job, now: datetime, at_once: Iterator[datetime]) -> None:
        waits_seconds = put_off_by_clock(job, now)
        due = later(now, waits_seconds) if waits_seconds else next(at_once)
        new_name = pending_name(job.priority, due, job.id)
        with self._core.documents.locked(State.PENDING, name) as fd:
            if fd is not None and new_name != name:
                self._core.documents.move(State.PENDING, name, State.PENDING, new_name)

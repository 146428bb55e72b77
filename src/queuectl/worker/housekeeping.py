"""The duties of a supervisor: recover lost jobs, end overdue commands, release blocked jobs.

A supervisor does them for its whole pool, whatever its workers do: each worker process would only
do the same again, and a busy one would not do it at all.
"""

import random
import time

from queuectl.errors import ConfigError, StoreError, UnsafeStore
from queuectl.job import Attempt, Job
from queuectl.policy import after_attempt
from queuectl.store.protocol import Store
from queuectl.store.values import RecoveryReport
from queuectl.worker.events import EventLog, ReportedProblems

_UNOWNED_SECONDS = 1.0  # while a command outlives its worker, or something cannot be recovered
_LOST_SECONDS = 5.0  # another pool may be killed as a whole
_BLOCKED_SECONDS = 10.0
_NONE_BLOCKED_SECONDS = 60.0


class Housekeeping:
    """The duties of one supervisor, and when each is due next."""

    def __init__(self, store: Store, log: EventLog, problems: ReportedProblems) -> None:
        self._store = store
        self._log = log
        self._problems = problems
        self._is_tidy = False
        self._recover_at = 0.0
        self._release_at = 0.0

    def run_due(self) -> None:
        """Do what is due."""
        if time.monotonic() >= self._recover_at:
            self.recover()
        if not self._is_tidy:
            self._is_tidy = True
            try:
                self._store.pool.tidy()
            except StoreError as error:  # what stays is in nobody's way; the next pool removes it
                self._log.error(str(error))
        if time.monotonic() >= self._release_at:
            has_blocked = release_blocked(self._store, self._problems)
            pause = _BLOCKED_SECONDS if has_blocked else _NONE_BLOCKED_SECONDS
            self._release_at = time.monotonic() + pause

    def pause_seconds(self) -> float:
        """Return in how many seconds something is due."""
        return max(0.0, min(self._recover_at, self._release_at) - time.monotonic())

    def recover(self) -> None:
        """Settle the claims whose workers are gone, and log which."""
        report = recover(self._store)
        pause = _UNOWNED_SECONDS if report.unowned else _LOST_SECONDS
        self._recover_at = time.monotonic() + pause
        for problem in report.problems:
            self._problems.report("recover", f"cannot recover: {problem}")
        if not report.problems:
            self._problems.resolve("recover")
        self._log.recovery(report)


def recover(store: Store, *, only_lost: bool = False) -> RecoveryReport:
    """Settle the claims whose workers are gone, lost attempts by the policy; see Pool.recover.

    Whatever prevents that is among the report's problems.
    """
    try:
        settings = store.settings()

        def decide(job: Job, attempt: Attempt) -> Job:
            return after_attempt(job, attempt, settings, store.now(), random.random())

        return store.pool.recover(decide, only_lost=only_lost)
    except (ConfigError, StoreError) as error:
        return RecoveryReport(unowned=1, problems=[str(error)])


def release_blocked(store: Store, problems: ReportedProblems) -> bool:
    """Release jobs that are blocked in vain; return whether any job is blocked, or may be."""
    try:
        has_blocked = store.pool.release_blocked()
    except (ConfigError, StoreError, UnsafeStore) as error:
        problems.report("release", f"cannot release blocked jobs: {error}")
        return True
    problems.resolve("release")
    return has_blocked

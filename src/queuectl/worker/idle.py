"""What a process does when its workers find no job: end a drain, purge, or sleep."""

import os
import select
import time
from collections.abc import Callable
from typing import NamedTuple

from queuectl.errors import ConfigError, StoreError
from queuectl.purge import IdlePurge
from queuectl.worker.context import WorkerContext
from queuectl.worker.events import EventLog
from queuectl.worker.housekeeping import recover, release_blocked

_MAX_SLEEP_SECONDS = 60.0  # a wall clock that was set forward is noticed after that


class Rest(NamedTuple):
    """What workers that found no job do next: look again at once, or sleep.

    ``until`` is on the monotonic clock, None to look again at once. With ``nothing_runs`` a drain
    is over, unless one more claim finds a job.
    """

    until: float | None = None
    nothing_runs: bool = False


class Idle:
    """The duties of a process without jobs, done once for all workers that found none."""

    def __init__(self, context: WorkerContext, log: EventLog) -> None:
        self._context = context
        self._log = log
        self._purge = IdlePurge(context.store, context.logs)
        self._rest: Rest | None = None

    def note_claim(self) -> None:
        """Note that workers have claimed; the ones without a job look around again."""
        self._rest = None

    def rest(self) -> Rest:
        """Return what the workers that found no job at the last claim do.

        Raises: ConfigError, StoreError, UnsafeStore.
        """
        if self._rest is None:
            self._rest = self._look_around()
        return self._rest

    def _look_around(self) -> Rest:
        store = self._context.store
        if self._is_purging():
            return Rest()
        if self._context.drain and not store.pool.is_busy():
            # RACE: another worker may have settled a job and not yet released what waits for it,
            # or have died before it recorded one.
            self._log.recovery(recover(store, only_lost=True))
            release_blocked(store, self._context.problems)
            return Rest(nothing_runs=True)
        now = time.monotonic()
        until = now + min(_MAX_SLEEP_SECONDS, self._log.report_dropped())
        next_due = store.queue.next_due()
        if next_due is not None:
            until = min(until, now + max(0.0, (next_due - store.now()).total_seconds()))
        os.chdir("/")  # the file system of the last job's directory may be unmounted now
        return Rest(until)

    def _is_purging(self) -> bool:
        """Delete what the settings no longer keep; return whether more is left than there is time.

        What this process is needed for comes first.
        """
        settings = self._context.settings
        if settings.keep_completed is None and settings.keep_logs is None:
            return False
        try:
            return self._purge.go_on(settings, self._context.store.now(), self._is_needed())
        except (ConfigError, StoreError, OSError) as error:
            self._log.error(f"cannot purge: {error}")
            return False

    def _is_needed(self) -> Callable[[], bool]:
        """Return what tells whether this process may have something better to do than to purge."""
        store, signals, loop = self._context.store, self._context.signals, self._context.loop
        poll = select.poll()
        arrivals_fd = store.queue.arrivals_fd()
        if arrivals_fd is not None:
            poll.register(arrivals_fd, select.POLLIN)
        poll_at = time.monotonic() + store.queue.poll_seconds
        next_due = store.queue.next_due()
        return lambda: (
            signals.should_stop
            or bool(poll.poll(0))
            or loop.has_ready()
            or time.monotonic() >= poll_at
            or (next_due is not None and store.now() >= next_due)
        )

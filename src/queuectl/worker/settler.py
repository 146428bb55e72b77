"""Records how the jobs of a process ended, several at once.

Until its result is recorded, a job keeps its claim, and with it a descriptor, and a kill makes it
run again. So the results that wait are bounded, in number and in time: beyond that no job is
claimed.
"""

import errno
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from queuectl.errors import StoreError
from queuectl.job import Job
from queuectl.store.worker_protocol import Claim, Queue, Settlement
from queuectl.worker.events import EventLog, ReportedProblems
from queuectl.worker.loop import Loop
from queuectl.worker.signals import Stop, StopSignals
from queuectl.worker.threads import Call, Threads

# A command that takes longer leaves time to record those before it, and is recorded at once: a sync
# of a quick disk is little beside it.
_SHORT_SECONDS = 0.02
MAX_PENDING = 128
_MAX_DELAY_SECONDS = 0.05  # on a quick disk
_MAX_PENDING_SECONDS = 0.5  # on a slow one: no job is claimed beside a result older than that
_SLOW_SYNC_SECONDS = 0.01  # a thread, which costs each job a little, waits for a slower disk
RETRY_SECONDS = 1.0
# What a running job has open, its lock and its pidfd, and what recording its result opens.
_FDS_OF_A_JOB = 2
_FDS_TO_SETTLE = 2
_RESERVED_FDS = 4  # for the record, pending.lock, and a directory that is read
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)


class _Result(NamedTuple):
    claim: Claim
    job: Job
    since: float


class _Batch(NamedTuple):
    results: Sequence[_Result]
    settlement: Settlement
    sync: Call | None  # None if it is done


class Settler:
    """The results of all workers of a process that are not recorded yet.

    ``is_stuck`` is true while some could not be recorded; no job is claimed then.
    """

    def __init__(
        self,
        queue: Queue,
        loop: Loop,
        signals: StopSignals,
        log: EventLog,
        problems: ReportedProblems,
    ) -> None:
        self._queue = queue
        self._loop = loop
        self._signals = signals
        self._log = log
        self._problems = problems
        self._threads = Threads(1, signals.wake)
        self._results: list[_Result] = []
        self._has_long = False  # one of them must not wait for others
        self._batch: _Batch | None = None
        self._sync_seconds = 0.0  # how long the last one took
        self._retry_at = 0.0
        self._max_pending = MAX_PENDING
        self._batch_size = MAX_PENDING  # smaller after a failure
        self._reserve: list[int] = []
        self.is_stuck = False

    def reserve(self, workers: int) -> None:
        """Reserve descriptors for when none is left; bound the results by what remains.

        Raises: OSError.
        """
        self._fill_reserve()
        limit = os.sysconf("SC_OPEN_MAX")
        if limit >= 0:
            # The lowest free number is given to the next file.
            left = limit - max(self._reserve) - 1 - (_FDS_OF_A_JOB + 1) * workers
            self._max_pending = max(1, min(MAX_PENDING, left // _FDS_TO_SETTLE))

    def _fill_reserve(self) -> None:
        while len(self._reserve) < _RESERVED_FDS:
            self._reserve.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def free_reserve(self) -> bool:
        """Close the reserved descriptors; return False if they were closed already."""
        had_some = bool(self._reserve)
        while self._reserve:
            os.close(self._reserve.pop())
        return had_some

    def add(self, claim: Claim, job: Job) -> None:
        """Add the result of an attempt: the job as it is to be recorded."""
        self._results.append(_Result(claim, job, time.monotonic()))
        seconds = job.history[-1].duration_seconds
        if seconds is None or seconds >= _SHORT_SECONDS:
            self._has_long = True

    @property
    def has_pending_results(self) -> bool:
        """Return whether results wait to be recorded, or for the disk."""
        return bool(self._results) or self._batch is not None

    def is_full(self) -> bool:
        """Return whether results wait in such number, or for so long, that no job is claimed."""
        waiting = [*(self._batch.results if self._batch else ()), *self._results]
        return len(waiting) >= self._max_pending or (
            bool(waiting) and time.monotonic() - waiting[0].since >= _MAX_PENDING_SECONDS
        )

    def poll(self) -> float | None:
        """Record results if it is time to, beside the commands that run.

        Returns: in how many seconds to call it again; None if a thread or nobody needs that.
        """
        self._finish_synced()
        pause = self._pause_seconds()
        if pause == 0.0:
            self._begin()
            pause = self._pause_seconds()
        return pause

    def _pause_seconds(self) -> float | None:
        if not self._results or self._batch is not None:
            return None
        due_at = self._results[-1].since + _SHORT_SECONDS
        if self._has_long or len(self._results) >= self._max_pending:
            due_at = 0.0
        due_at = min(due_at, self._results[0].since + _MAX_DELAY_SECONDS)
        return max(0.0, max(due_at, self._retry_at) - time.monotonic())

    async def wait_for_room(self) -> None:
        """Wait while it is full, until the disk or a signal wakes the process."""
        pause = self.poll()
        if self.is_full():
            await self._loop.wait((), RETRY_SECONDS if pause is None else pause)

    async def settle_all(self) -> None:
        """Record all results, however long it takes; only a stop at once gives up."""
        while self.has_pending_results:
            self.settle_now()
            while self._batch is not None and self._batch.sync and not self._batch.sync.is_done:
                await self._loop.wait((), None)
            self._finish_synced()
            if not self.is_stuck:
                continue
            if self._signals.level is Stop.NOW:
                what = "cannot record finished jobs before stopping: they count as lost"
                self._problems.report("leave", what)
                return
            await self.pause()

    async def pause(self) -> None:
        """Wait until it is time to try again, or another signal has come."""
        # Neither a stop that was requested before nor a thread, which may wake us late, ends it.
        level, until = self._signals.level, time.monotonic() + RETRY_SECONDS
        while self._signals.level == level and (left := until - time.monotonic()) > 0:
            await self._loop.wait((), left)

    def settle_now(self) -> None:
        """Record results at once, however soon after the last time."""
        self._finish_synced()
        self._retry_at = 0.0  # the caller has waited
        self._begin()

    def _begin(self) -> None:
        """Write a batch, and wait for the disk while commands run.

        A thread waits for a disk that was slow the last time: cancelling and timeouts must not.
        """
        if self._batch is not None or not self._results:
            return
        results = self._results[: self._batch_size]
        self._results = self._results[self._batch_size :]
        self._has_long = bool(self._results)  # the rest is not put off
        try:
            settlement = self._queue.begin_settle([(each.claim, each.job) for each in results])
        except StoreError as error:
            self._keep(results, error)
            return

        def sync() -> None:
            started_at = time.monotonic()
            settlement.sync()
            self._sync_seconds = time.monotonic() - started_at

        if self._sync_seconds > _SLOW_SYNC_SECONDS and self._threads.has_free():
            self._batch = _Batch(results, settlement, self._threads.call(sync))
        else:
            sync()
            self._batch = _Batch(results, settlement, None)
            self._finish_synced()

    def _finish_synced(self) -> None:
        """Move the jobs of a batch to their states, if the disk has it."""
        if self._batch is None or (self._batch.sync and not self._batch.sync.is_done):
            return
        results, settlement, _ = self._batch
        self._batch = None
        error = None
        try:
            settlement.finish()
        except StoreError as caught:
            error = caught
        left = [each for each in results if each.claim in settlement.left]
        if error is not None:
            self._keep(left, error)
        elif left:  # there may be room for them, now that the others are recorded
            self._put_back(left, behind=False)
        else:
            self._note_success()
        for claim in settlement.gone:
            what = "is not recorded: its document was removed"
            self._log.job_error(claim.job.id, claim.attempt, what)

    def _note_success(self) -> None:
        self.is_stuck = False
        self._problems.resolve("settle")
        self._batch_size = min(2 * self._batch_size, MAX_PENDING)
        if not self._reserve:
            with suppress(OSError):  # there is none to spare yet
                self._fill_reserve()

    def _keep(self, results: Sequence[_Result], error: StoreError) -> None:
        """Keep results that could not be recorded, to retry fewer at once behind the others."""
        self._put_back(results, behind=True)
        self._batch_size = max(1, len(results) // 2)
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in _NO_DESCRIPTOR and self.free_reserve():
            return
        self._retry_at = time.monotonic() + RETRY_SECONDS
        if results and not self._problems.has("settle"):  # once, however many they become
            jobs = "a finished job" if len(results) == 1 else f"{len(results)} finished jobs"
            self._problems.report("settle", f"cannot record {jobs}, retrying: {error}")

    def _put_back(self, results: Sequence[_Result], *, behind: bool) -> None:
        self._results = [*self._results, *results] if behind else [*results, *self._results]
        self._has_long = True
        self.is_stuck = bool(results)

"""Settle the jobs of a process that have ended, several at once, and say when it is full of them.

What is not settled yet keeps its claim, and with it a descriptor, and a kill makes it run again.
So there is a bound, in number and in time, beyond which a worker takes no job.
"""

import errno
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import NamedTuple, Protocol

from queuectl.errors import StoreError
from queuectl.job import Job
from queuectl.loop import Waker
from queuectl.store.base import Claim, Settlement, Store

# A command that takes longer leaves time to settle those before it, and is settled at once itself:
# a sync of a quick disk is little beside it.
_SHORT_SECONDS = 0.02
_MANY_UNSETTLED = 128
_MOST_UNSETTLED_SECONDS = 0.05
# On a slow disk, one that has waited for so long keeps workers from taking another.
_LONGEST_UNSETTLED_SECONDS = 0.5
# A disk that takes longer is waited for by a thread, which costs each job a little.
_QUICK_SYNC_SECONDS = 0.01
_RETRY_SECONDS = 1.0
# What a running job has open, the lock and what tells of its end; and what settling one opens.
_FDS_OF_A_JOB = 2
_FDS_TO_SETTLE = 2
_RESERVED_FDS = 4  # for the record, pending.lock, and a directory that is looked through
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)


class Told(Protocol):
    """A place to report what goes wrong with a job."""

    def job_error(self, job_id: str, attempt: int, text: str) -> None:
        """Report it."""


class Troubles(Protocol):
    """A place to report, once, what goes wrong for a while."""

    def tell(self, trouble: str, text: str) -> None:
        """Report what goes wrong."""

    def has(self, trouble: str) -> bool:
        """Return whether a trouble was told and is not over."""

    def are_over(self, trouble: str) -> None:
        """Note that a trouble is over."""


class _Unsettled(NamedTuple):
    claim: Claim
    job: Job
    since: float


@dataclass(slots=True, eq=False)
class _Settling:
    settlement: Settlement
    batch: Sequence[_Unsettled]
    is_synced: bool = False


class Settler:
    """What has ended and is to be settled, of all workers of a process together.

    ``keeps`` is true while what ended could not be settled; no new job is taken then.
    """

    def __init__(self, store: Store, interrupts: Waker, talk: Told, troubles: Troubles) -> None:
        """Take what the workers of the process share."""
        self._store = store
        self._interrupts = interrupts
        self._talk = talk
        self._troubles = troubles
        self._unsettled: list[_Unsettled] = []
        self._has_long = False  # one of those has run for long
        self._settling: _Settling | None = None
        self._to_sync: SimpleQueue[_Settling] | None = None
        self._sync_seconds = 0.0  # how long the last one took
        self._again_at = 0.0  # after a failure, it is tried again no sooner
        self._most = _MANY_UNSETTLED
        self._at_once = _MANY_UNSETTLED  # fewer after a failure
        self._reserve: list[int] = []
        self.keeps = False

    def reserve(self, workers: int) -> None:
        """Keep some descriptors for when there is no other; bound what is unsettled by the rest.

        Raises: OSError.
        """
        self._fill_reserve()
        limit = os.sysconf("SC_OPEN_MAX")
        if limit >= 0:
            # The lowest number that is free is given to the next file.
            left = limit - max(self._reserve) - 1 - (_FDS_OF_A_JOB + 1) * workers
            self._most = max(1, min(_MANY_UNSETTLED, left // _FDS_TO_SETTLE))

    def _fill_reserve(self) -> None:
        while len(self._reserve) < _RESERVED_FDS:
            self._reserve.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def free_reserve(self) -> bool:
        """Free the reserved descriptors for what failed; return False if they are free already."""
        had_some = bool(self._reserve)
        while self._reserve:
            os.close(self._reserve.pop())
        return had_some

    def add(self, claim: Claim, job: Job) -> None:
        """Take a claimed job that has ended, with how it ended."""
        self._unsettled.append(_Unsettled(claim, job, time.monotonic()))
        seconds = job.history[-1].duration_seconds
        if seconds is None or seconds >= _SHORT_SECONDS:
            self._has_long = True

    @property
    def has_unsettled(self) -> bool:
        """Return whether something waits to be settled, or for the disk."""
        return bool(self._unsettled) or self._settling is not None

    @property
    def is_syncing(self) -> bool:
        """Return whether a thread waits for the disk; it wakes the process when it is done."""
        return self._settling is not None and not self._settling.is_synced

    def is_full(self) -> bool:
        """Return whether so much is unsettled, or for so long, that no other job is to be taken."""
        waiting = self._settling.batch if self._settling is not None else self._unsettled
        if not waiting:
            return False
        count = len(self._unsettled) + (len(waiting) if self._settling is not None else 0)
        waits_since = waiting[0].since
        return count >= self._most or time.monotonic() - waits_since >= _LONGEST_UNSETTLED_SECONDS

    def _pause_seconds(self) -> float | None:
        if not self._unsettled or self._settling is not None:
            return None
        due_at = self._unsettled[-1].since + _SHORT_SECONDS
        if self._has_long or len(self._unsettled) >= self._most:
            due_at = 0.0
        due_at = min(due_at, self._unsettled[0].since + _MOST_UNSETTLED_SECONDS)
        return max(0.0, max(due_at, self._again_at) - time.monotonic())

    def go_on(self) -> float | None:
        """Settle what ended where it is time to, beside the commands that run.

        Returns in how many seconds it is to be called again, None where a thread tells, or nobody
        needs to.
        """
        self.collect()
        pause = self._pause_seconds()
        if pause == 0.0:
            self._begin()
            pause = self._pause_seconds()
        return pause

    def settle_now(self) -> None:
        """Settle what ended, however soon after the last time."""
        self.collect()
        self._again_at = 0.0  # who asks has waited
        self._begin()

    def _begin(self) -> None:
        """Record what ended, and wait for the disk while commands run.

        A disk that was slow the last time is waited for by a thread: cancelling and timeouts must
        not wait for it, too.
        """
        if self._settling is not None or not self._unsettled:
            return
        batch, self._unsettled = self._unsettled[: self._at_once], self._unsettled[self._at_once :]
        self._has_long = bool(self._unsettled)  # what is left is not put off
        try:
            settlement = self._store.begin_settle([(each.claim, each.job) for each in batch])
        except StoreError as error:
            self._keep(batch, error)
            return
        self._settling = _Settling(settlement, batch)
        if self._sync_seconds <= _QUICK_SYNC_SECONDS or not self._sync_in_thread(self._settling):
            self._sync(self._settling)
            self.collect()

    def _sync_in_thread(self, settling: _Settling) -> bool:
        """Have a thread wait for the disk; return False if none can be started."""
        if self._to_sync is None:
            # One thread for all: starting one takes as long as settling a job.
            to_sync: SimpleQueue[_Settling] = SimpleQueue()
            try:
                threading.Thread(target=self._sync_each, args=(to_sync,), daemon=True).start()
            except RuntimeError:  # no more processes for this user, and a thread counts as one
                return False
            self._to_sync = to_sync
        self._to_sync.put(settling)
        return True

    def _sync_each(self, to_sync: SimpleQueue[_Settling]) -> None:
        while True:
            settling = to_sync.get()
            try:
                self._sync(settling)
            finally:
                # RACE: whoever is woken looks at once, and would not look again; so it is told
                # first that it is synced.
                self._interrupts.wake()

    def _sync(self, settling: _Settling) -> None:
        started = time.monotonic()
        try:
            settling.settlement.sync()
        finally:
            self._sync_seconds = time.monotonic() - started
            settling.is_synced = True

    def collect(self) -> None:
        """Finish the settlement that the disk has taken, if there is one."""
        settling = self._settling
        if settling is None or not settling.is_synced:
            return
        self._settling = None
        settlement = settling.settlement
        try:
            settlement.finish()
        except StoreError as error:
            self._keep(self._left_of(settling), error)
        else:
            self._note_settled(self._left_of(settling))
        for claim in settlement.gone:
            what = "is not recorded: somebody has taken it from processing/"
            self._talk.job_error(claim.job.id, claim.attempt, what)

    @staticmethod
    def _left_of(settling: _Settling) -> list[_Unsettled]:
        left = settling.settlement.left
        return [each for each in settling.batch if each.claim in left] if left else []

    def _note_settled(self, left: list[_Unsettled]) -> None:
        """Take back what had no room beside the others: it may have, now that they are settled."""
        if left:
            self._put_back(left)
            return
        self.keeps = False
        self._troubles.are_over("settle")
        self._at_once = min(2 * self._at_once, _MANY_UNSETTLED)
        if not self._reserve:
            with suppress(OSError):  # there is none to spare yet
                self._fill_reserve()

    def _keep(self, batch: list[_Unsettled], error: StoreError) -> None:
        """Keep what could not be settled, to try again with fewer at once, behind the others."""
        self._put_back(batch, behind=True)
        self._at_once = max(1, len(batch) // 2)
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in _NO_DESCRIPTOR and self.free_reserve():
            return
        self._again_at = time.monotonic() + _RETRY_SECONDS
        if batch and not self._troubles.has("settle"):  # told once, however many they become
            ended = "an ended job" if len(batch) == 1 else f"{len(batch)} ended jobs"
            self._troubles.tell("settle", f"keeps {ended}, and tries again: {error}")

    def _put_back(self, batch: list[_Unsettled], *, behind: bool = False) -> None:
        self._unsettled = self._unsettled + batch if behind else batch + self._unsettled
        self._has_long = True
        self.keeps = bool(batch)

"""Look for jobs without a lock, and know whether one can have been missed.

A walk through the states in the order in which jobs move meets each of them, but for one that moves
back behind it. What was found was there; only what was not found is in doubt (rule 7).
"""

import os
import time
from collections.abc import Callable
from itertools import islice
from typing import TypeVar

from queuectl.errors import StoreBusy
from queuectl.job import State
from queuectl.store.index import Index
from queuectl.store.layout import StoreDirectory
from queuectl.store.pending_lock import PendingLock

# No file system tells the time of a change more coarsely than by two seconds.
_COARSE_NS = 2_500_000_000
_MANY_PARENTS = 16
_PATIENCE_SECONDS = 5.0
_TRY_SECONDS = 0.002  # as whoever moves a job
_PAUSE = 10  # of the time without the lock it walks one part in so many, and waits the rest

_Found = TypeVar("_Found")


class CompleteWalk:
    """Walks through the states that are repeated until they cannot have missed anything."""

    def __init__(self, directory: StoreDirectory, index: Index, lock: PendingLock) -> None:
        self._dir = directory
        self._index = index
        self._lock = lock

    def look(self, walk: Callable[[], _Found], is_enough: Callable[[_Found], object]) -> _Found:
        """Return what a walk through the states finds: enough, or all that there is.

        Raises: StoreBusy if another process holds pending.lock for long.
        """
        if self._lock.is_held or self._dir.root_fd < 0:
            return walk()
        began = time.monotonic()
        changed = self._changed()
        found = walk()
        if is_enough(found) or (changed is not None and changed == self._changed()):
            return found
        # RACE: a job may have moved back behind the walk; see
        # test_job_that_comes_back_behind_the_walk_is_found.
        now = time.monotonic()
        walk_at, give_up_at = now + _PAUSE * (now - began), now + _PATIENCE_SECONDS
        while now < give_up_at:
            with self._lock.held_if_free() as is_kept:
                if is_kept or now >= walk_at:
                    found = walk()
                    if is_kept or is_enough(found):
                        return found
                    walk_at = time.monotonic() + _PAUSE * (time.monotonic() - now)
            time.sleep(_TRY_SECONDS)
            now = time.monotonic()
        raise StoreBusy(
            f"what was not found may be moving, and others have kept {self._dir.location}"
            f"/pending.lock locked for {_PATIENCE_SECONDS:g} s: try again"
        )

    def _changed(self) -> tuple[int, ...] | None:
        """Return what changes when a job moves back; None if a change might not show.

        Whatever moves back comes into pending/ or into a directory of blocked/, and the file system
        says when something last did.
        """
        watched = filter(self._dir.has, (State.BLOCKED, State.PENDING))
        changed = [os.fstat(self._dir.fd(state)).st_ctime_ns for state in watched]
        parents = list(islice(self._index.parents(), _MANY_PARENTS + 1))
        if len(parents) > _MANY_PARENTS:
            return None
        try:
            for parent in parents:
                status = os.stat(parent, dir_fd=self._dir.fd(State.BLOCKED), follow_symlinks=False)
                changed.append(status.st_ctime_ns)
        except FileNotFoundError:
            return None
        # A second change within the same tick of the file system's clock leaves the time as it is.
        is_long_ago = max(changed, default=0) < time.time_ns() - _COARSE_NS
        return tuple(changed) if is_long_ago else None

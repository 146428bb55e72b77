"""Look for jobs without a lock, and know whether one can have been missed.

A walk through the states in the order in which jobs move meets each of them, but for one that moves
back behind it. What was found was there; only what was not found is in doubt (rule 7).
"""

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from queuectl.errors import StoreBusy
from queuectl.job import State
from queuectl.store import files
from queuectl.store.names import filed_name, parse_filed
from queuectl.store.place import Place

# No file system tells the time of a change more coarsely than by two seconds.
_COARSE_NS = 2_500_000_000
_MANY_PARENTS = 16
_PATIENCE_SECONDS = 5.0
_TRY_SECONDS = 0.002  # as whoever moves a job
_PAUSE = 10  # of the time without the lock it walks one part in so many, and waits the rest

_Found = TypeVar("_Found")


class Looking(Place):
    """Repeat a walk until it cannot have missed anything."""

    def _look(self, walk: Callable[[], _Found], is_enough: Callable[[_Found], object]) -> _Found:
        """Return what a walk through the states finds: enough, or all that there is.

        Raises: StoreBusy where another process holds pending.lock for long.
        """
        if self._pending_lock_holds or self._root_fd < 0:
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
            with self._keeping_all_from_moving_back() as is_kept:
                if is_kept or now >= walk_at:
                    found = walk()
                    if is_kept or is_enough(found):
                        return found
                    walk_at = time.monotonic() + _PAUSE * (time.monotonic() - now)
            time.sleep(_TRY_SECONDS)
            now = time.monotonic()
        raise StoreBusy(
            f"what was not found may be moving, and others have kept {self.location}/pending.lock"
            f" locked for {_PATIENCE_SECONDS:g} s: try again"
        )

    def _changed(self) -> tuple[int, ...] | None:
        """Return what changes when a job moves back; None where a change might not show.

        Whatever moves back comes into pending/ or into a directory of blocked/, and the file system
        says when something last did.
        """
        watched = self._dir_fds.keys() & {State.PENDING, State.BLOCKED}
        changed = [os.fstat(self._fd(state)).st_ctime_ns for state in sorted(watched)]
        parents = list(islice(self._parents(), _MANY_PARENTS + 1))
        if len(parents) > _MANY_PARENTS:
            return None
        try:
            for parent in parents:
                status = os.stat(parent, dir_fd=self._fd(State.BLOCKED), follow_symlinks=False)
                changed.append(status.st_ctime_ns)
        except FileNotFoundError:
            return None
        # A second change within the same tick of the file system's clock leaves the time as it is.
        is_long_ago = max(changed, default=0) < time.time_ns() - _COARSE_NS
        return tuple(changed) if is_long_ago else None

    def _parents(self) -> Iterator[str]:
        """Stream the ids that blocked/ has directories of; anything else there is left alone."""
        for name in self._names(State.BLOCKED):
            if parse_filed(filed_name(name)) is not None:
                yield name

    @contextmanager
    def _keeping_all_from_moving_back(self) -> Iterator[bool]:
        """Hold pending.lock if nobody else does; gives whether it is held.

        It is not waited for, since who holds it may have been stopped. It is not shared with others
        who look, either: a few who look again and again would keep a job from ever moving back.
        """
        with self._telling(f"{self.location}/pending.lock cannot be locked"):
            fd = self._open_to_lock()
        if fd is None:
            yield True
            return
        try:
            # RACE: as in _lock_pending, somebody may have deleted it meanwhile.
            yield files.lock(fd) and files.names_inode(self._root_fd, "pending.lock", os.fstat(fd))
        finally:
            os.close(fd)

    def _open_to_lock(self) -> int | None:
        """Open pending.lock; None where nobody can make it, and so nothing moves."""
        # To read is enough, also for a lock, where the file system is mounted read-only.
        for flags in (os.O_RDONLY, os.O_RDWR | os.O_CREAT):
            try:
                return os.open(
                    "pending.lock",
                    flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
                    files.FILE_MODE,
                    dir_fd=self._root_fd,
                )
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno != errno.EROFS:
                    raise
        return None

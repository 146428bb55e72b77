"""Delete finished jobs, each under the lock of its document."""

import os
import time
from collections.abc import Callable, Collection, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from datetime import datetime
from functools import partial

from queuectl.clock import from_timestamp
from queuectl.job import FINISHED, Job, State
from queuectl.store import files
from queuectl.store.core import Core
from queuectl.store.files import store_errors
from queuectl.store.names import SUFFIX, filed_name, id_in_name
from queuectl.store.parents import NamedParents
from queuectl.store.values import Entry

_TURN_NAME = "purge.lock"


class Purger:
    """The way of finished jobs out of one store."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._dir = core.directory
        self.named_parents = partial(NamedParents, core)

    def finished(self, state: State) -> Iterator[Entry]:
        """Stream the jobs of a finished state; see Purging.finished."""
        timed = self._core.entries.timed(state)
        return (self._core.index.entry(state, name, changed) for changed, name in timed)

    @contextmanager
    def hold(self, job_id: str) -> Iterator[bool]:
        """Keep a finished job where it is; see Purging.hold."""
        for state in FINISHED:
            if self._dir.has(state):
                with self._core.documents.locked(state, filed_name(job_id)) as fd:
                    if fd is not None:
                        yield True
                        return
        yield False

    @contextmanager
    def hold_unused(self, ids: AbstractSet[str]) -> Iterator[Collection[str]]:
        """Keep ids that no job has from being given to one; see Purging.hold_unused."""
        unused = ids - self._core.lookup.find(ids).keys() - self.corrupt_ids()
        if not unused:
            yield unused
            return
        # Whoever chooses an id does so under this lock (rule 7).
        with self._core.lock.held():
            yield unused - self._core.lookup.find(unused).keys()

    def corrupt_ids(self) -> set[str]:
        """Return which jobs the documents in corrupt/ may be."""
        ids = set()
        for name in self._dir.names("corrupt"):
            stem = name.removesuffix(SUFFIX)
            for each in (stem, stem.rpartition("-")[0]):  # a number keeps two of a name apart
                filed = filed_name(each)
                ids |= {id_in_name(state, filed) for state in State}
        return {each for each in ids if each is not None}

    def purge(
        self,
        job_id: str,
        state: State,
        *,
        forget: Callable[[Job], object] | None = None,
        unchanged_since: datetime | None = None,
    ) -> bool:
        """Delete a finished job; see Purging.purge."""
        name = filed_name(job_id)
        with self._core.documents.locked(state, name) as fd:
            if fd is None:
                return False
            if unchanged_since is not None and (
                from_timestamp(os.fstat(fd).st_mtime) > unchanged_since
            ):
                return False
            job = self._core.documents.read(state, name, job_id)
            if job is None:
                return False
            with store_errors(f"{self._dir.location}/{state}/{name} cannot be deleted"):
                # RACE: as long as the document lies there locked, nobody can add or retry a job of
                # this id, and so no new log comes where the old ones are deleted: see
                # test_the_logs_go_before_the_id_is_free.
                if forget is not None:
                    forget(job)
                os.unlink(name, dir_fd=self._dir.fd(state))
        return True

    @contextmanager
    def turn(self, period_seconds: float) -> Iterator[bool]:
        """Take the turn to purge, once in a period; see Purging.turn."""
        with files.closing(self._dir.open_lock_file(_TURN_NAME)) as fd:
            if not files.lock(fd) or _was_purged(fd, period_seconds):
                yield False
                return
            yield True
            with store_errors(f"{self._dir.location}/{_TURN_NAME} cannot be written"):
                os.pwrite(fd, b"the last purge\n", 0)


def _was_purged(fd: int, period_seconds: float) -> bool:
    """Return whether the last purge is that recent; the file is empty until the first one."""
    status = os.fstat(fd)
    # An age below 0 is a clock that was set back.
    return status.st_size > 0 and 0 <= time.time() - status.st_mtime < period_seconds

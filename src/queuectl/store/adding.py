"""Make new jobs durable and visible; all that an enqueue needs of a store, and no more.

Start-up is a feature: a plain enqueue loads this module and none of those that find, claim or
settle jobs.
"""

import errno
import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from queuectl.errors import StoreError
from queuectl.job import Job, State, encode_job_to_run
from queuectl.store import files
from queuectl.store.names import blocked_name, pending_name
from queuectl.store.place import Place

if TYPE_CHECKING:
    from queuectl.store.base import Progress
    from queuectl.store.blocked import Blocked

_MANY = 16  # from so many files on, one sync of the file system is cheaper than one for each


class Adding(Place):
    """Write new jobs into one store."""

    def add_new(self, jobs: Collection[Job], progress: "Progress | None" = None) -> list[str]:
        """Add jobs that wait for no other and whose ids nobody chose; see Store.add."""
        self._publish(jobs, progress, {}, None, chosen=())
        return [job.id for job in jobs]

    def _publish(
        self,
        jobs: Collection[Job],
        progress: "Progress | None",
        places: Mapping[str, str],
        blocked: "Blocked | None",
        *,
        chosen: Collection[str],
    ) -> None:
        """Make jobs visible, in pending/ or under the parent that ``places`` puts them under.

        Who chose an id holds pending.lock and has looked for it. One that was made up cannot take
        the place of another: the file in tmp/ that is called after it keeps all others away.

        The jobs are gone through twice, so that nothing need be held of each: there may be many.
        """
        tmp_fd, pending_fd = self._fd("tmp"), self._fd("pending")
        temporary = partial(_temporary_name, chosen=chosen, end=self._temporary(""))
        written = published = 0
        try:
            many = len(jobs) >= _MANY
            for job in jobs:
                if job.id in places:
                    job = job._replace(state=State.BLOCKED)  # noqa: PLW2901
                data = encode_job_to_run(job)
                fd = files.write_synced(tmp_fd, temporary(job), data, sync=not many)
                os.close(fd)
                written += 1
                if progress is not None:
                    progress(1)
            if many:
                files.sync_all(tmp_fd, map(temporary, jobs))
            for job in jobs:
                state, name = _placed(job, places)
                if job.id not in chosen and self._exists(self._fd(state), name):
                    raise FileExistsError(errno.EEXIST, f"there is a job {job.id}; try again")
                if blocked is not None and job.id in places:
                    blocked.put(tmp_fd, temporary(job), job.id, places[job.id])
                else:
                    os.rename(temporary(job), name, src_dir_fd=tmp_fd, dst_dir_fd=pending_fd)
                published += 1
            if blocked is not None:
                blocked.sync(set(places.values()))
            files.sync_directory(pending_fd)
        except BaseException as error:
            first = ((temporary(job), *_placed(job, places)) for job in islice(jobs, written))
            kept = self._retract(first, published)
            if not isinstance(error, OSError):
                raise
            fate = "nothing is enqueued"
            if kept:
                fate = f"{kept} of {len(jobs)} cannot be taken back, the rest is not enqueued"
            raise files.as_store_error(error, f"{self.location}: {fate}") from error

    def _retract(self, written: Iterable[tuple[str, State, str]], published: int) -> int:
        """Take back an enqueue that failed; return how many are claimed, or cannot be removed."""
        taken_back = 0
        for index, (temporary, state, name) in enumerate(written):
            with suppress(OSError, StoreError):
                if index >= published:
                    os.unlink(temporary, dir_fd=self._fd("tmp"))
                    continue
                with self._locked(state, name) as fd:
                    if fd is not None:
                        os.unlink(name, dir_fd=self._fd(state))
                        taken_back += 1
        return published - taken_back


def _temporary_name(job: Job, *, chosen: Collection[str], end: str) -> str:
    """Return what a new document is called in tmp/."""
    return job.id + (end if job.id in chosen else ".new")


def _placed(job: Job, places: Mapping[str, str]) -> tuple[State, str]:
    """Return where a new job comes to, and under which name."""
    if job.id in places:
        return State.BLOCKED, blocked_name(places[job.id], job.id)
    return State.PENDING, pending_name(job.priority, job.run_at, job.id)

"""Make new jobs durable and visible; all that an enqueue needs of a store, and no more.

Start-up is a feature: a plain enqueue loads this module and none of the modules that find, claim or
settle jobs.
"""

import errno
import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from queuectl.config import Settings
from queuectl.document import encode_job_to_run
from queuectl.errors import StoreError
from queuectl.job import Job, State
from queuectl.store import files
from queuectl.store.documents import Documents
from queuectl.store.layout import StoreDirectory
from queuectl.store.names import blocked_name, name_in_pending
from queuectl.store.pending_lock import PendingLock
from queuectl.store.settings_file import SettingsFile

if TYPE_CHECKING:
    from queuectl.store.dependencies import Dependencies
    from queuectl.store.values import Progress

_MANY = 16  # from so many files on, one sync of the file system is cheaper than one for each


class DirectoryAdder:
    """A store that is open to add jobs, and for nothing else."""

    def __init__(self, location: str, *, create: bool = False) -> None:
        """Open the store; raises as opening a StoreDirectory does."""
        self._dir = StoreDirectory(location, create=create)
        self._settings = SettingsFile(self._dir, PendingLock(self._dir))
        self._publisher = Publisher(self._dir, Documents(self._dir, self._settings))

    def close(self) -> None:
        """Close the directories."""
        self._dir.close()

    def make(self) -> None:
        """Make what is missing; see Adder.make."""
        self._dir.make()

    def settings(self) -> Settings:
        """Return the settings; see Adder.settings."""
        return self._settings.current()

    def add(self, jobs: Collection[Job], *, progress: "Progress | None" = None) -> list[str]:
        """Add jobs that wait for no other and whose ids nobody chose; see Store.add."""
        self._publisher.publish(jobs, progress, {}, None, chosen=())
        return [job.id for job in jobs]


class Publisher:
    """The way of new documents into one store."""

    def __init__(self, directory: StoreDirectory, documents: Documents) -> None:
        """Take the open store."""
        self._dir = directory
        self._documents = documents

    def publish(
        self,
        jobs: Collection[Job],
        progress: "Progress | None",
        places: Mapping[str, str],
        dependencies: "Dependencies | None",
        *,
        chosen: Collection[str],
    ) -> None:
        """Make jobs visible, in pending/ or under the parent that ``places`` puts them under.

        A caller who chose an id holds pending.lock and has looked for it. One that was made up
        cannot take the place of another: the file in tmp/ that has its name keeps all others away.

        The jobs are gone through twice, so that nothing need be held of each: there may be many.
        """
        tmp_fd, pending_fd = self._dir.fd("tmp"), self._dir.fd("pending")
        temporary = partial(_temporary_name, chosen=chosen, end=self._dir.temporary(""))
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
                if job.id not in chosen and self._dir.exists(state, name):
                    raise FileExistsError(errno.EEXIST, f"there is a job {job.id}; try again")
                if dependencies is not None and job.id in places:
                    dependencies.put("tmp", temporary(job), job.id, places[job.id])
                else:
                    os.rename(temporary(job), name, src_dir_fd=tmp_fd, dst_dir_fd=pending_fd)
                published += 1
            if dependencies is not None:
                dependencies.sync(set(places.values()))
            files.sync_directory(pending_fd)
        except BaseException as error:
            first = ((temporary(job), *_placed(job, places)) for job in islice(jobs, written))
            kept = self._retract(first, published)
            if not isinstance(error, OSError):
                raise
            fate = "nothing is enqueued"
            if kept:
                fate = f"{kept} of {len(jobs)} cannot be taken back, the rest is not enqueued"
            raise files.as_store_error(error, f"{self._dir.location}: {fate}") from error

    def _retract(self, written: Iterable[tuple[str, State, str]], published: int) -> int:
        """Take back an enqueue that failed; return how many are claimed, or cannot be removed."""
        taken_back = 0
        for index, (temporary, state, name) in enumerate(written):
            with suppress(OSError, StoreError):
                if index >= published:
                    os.unlink(temporary, dir_fd=self._dir.fd("tmp"))
                    continue
                with self._documents.locked(state, name) as fd:
                    if fd is not None:
                        os.unlink(name, dir_fd=self._dir.fd(state))
                        taken_back += 1
        return published - taken_back


def _temporary_name(job: Job, *, chosen: Collection[str], end: str) -> str:
    """Return what a new document is called in tmp/."""
    return job.id + (end if job.id in chosen else ".new")


def _placed(job: Job, places: Mapping[str, str]) -> tuple[State, str]:
    """Return where a new job comes to, and under which name."""
    if job.id in places:
        return State.BLOCKED, blocked_name(places[job.id], job.id)
    return State.PENDING, name_in_pending(job)

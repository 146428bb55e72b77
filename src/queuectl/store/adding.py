"""Make new jobs durable and visible; all that an enqueue needs of a store, and no more.

Start-up is a feature: a plain enqueue loads this module and none of the modules that find, claim or
settle jobs.
"""

import errno
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING

from queuectl.clock import utc_now
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


class DirectoryAdder:
    """A store that is open to add jobs, and for nothing else."""

    def __init__(self, location: str, *, create: bool = False) -> None:
        self._dir = directory = StoreDirectory(location, create=create)
        settings = SettingsFile(directory, PendingLock(directory))
        self._documents = Documents(directory, settings)
        self.close = directory.close
        self.make = directory.make
        self.settings = settings.current
        self.now = utc_now

    def add(self, jobs: Collection[Job], *, progress: "Progress | None" = None) -> list[str]:
        """Add jobs that wait for no other and whose ids nobody chose; see Store.add."""
        Publication(self._dir, self._documents, jobs).publish(progress)
        return [job.id for job in jobs]


class Publication:
    """Jobs that are being published: written to tmp/, then shown, or taken back.

    They are shown in pending/, or under the parent that ``places`` puts them under. The jobs are
    gone through once for each step, so that nothing need be held of each: there may be many.
    A caller who chose an id holds pending.lock and has looked for it.
    """

    def __init__(
        self,
        directory: StoreDirectory,
        documents: Documents,
        jobs: Collection[Job],
        *,
        places: Mapping[str, str] = MappingProxyType({}),
        dependencies: "Dependencies | None" = None,
        chosen: Collection[str] = (),
    ) -> None:
        self._dir = directory
        self._documents = documents
        self._jobs = jobs
        self._places = places
        self._dependencies = dependencies
        self._chosen = chosen
        self._end = directory.temporary("")
        self._written = self._shown = 0

    def publish(self, progress: "Progress | None") -> None:
        """Make the jobs durable, then visible. Raises: StoreError."""
        try:
            self.write(progress)
            self.show()
        except BaseException as error:
            kept = self.retract()
            if not isinstance(error, OSError):
                raise
            fate = "nothing is enqueued"
            if kept:
                fate = f"{kept} of {len(self._jobs)} cannot be taken back, the rest is not enqueued"
            raise files.as_store_error(error, f"{self._dir.location}: {fate}") from error

    def write(self, progress: "Progress | None") -> None:
        """Write the documents, durably. Raises: OSError."""
        tmp_fd = self._dir.fd("tmp")
        many = len(self._jobs) >= files.MANY
        for job in self._jobs:
            if job.id in self._places:
                job = job._replace(state=State.BLOCKED)  # noqa: PLW2901
            data = encode_job_to_run(job)
            os.close(files.write_synced(tmp_fd, self._temporary(job), data, sync=not many))
            self._written += 1
            if progress is not None:
                progress(1)
        if many:
            files.sync_all(tmp_fd, map(self._temporary, self._jobs))

    def show(self) -> None:
        """Move the documents to their states, durably. Raises: OSError."""
        tmp_fd, pending_fd = self._dir.fd("tmp"), self._dir.fd("pending")
        for job in self._jobs:
            state, name = self._placed(job)
            if job.id not in self._chosen and self._dir.exists(state, name):
                raise FileExistsError(errno.EEXIST, f"there is a job {job.id}; try again")
            if self._dependencies is not None and job.id in self._places:
                self._dependencies.put("tmp", self._temporary(job), job.id, self._places[job.id])
            else:
                os.rename(self._temporary(job), name, src_dir_fd=tmp_fd, dst_dir_fd=pending_fd)
            self._shown += 1
        if self._dependencies is not None:
            self._dependencies.sync(set(self._places.values()))
        files.sync_directory(pending_fd)

    def retract(self) -> int:
        """Take back what was done; return how many are claimed, or cannot be removed."""
        taken_back = 0
        for index, job in enumerate(islice(self._jobs, self._written)):
            state, name = self._placed(job)
            with suppress(OSError, StoreError):
                if index >= self._shown:
                    os.unlink(self._temporary(job), dir_fd=self._dir.fd("tmp"))
                    continue
                with self._documents.locked(state, name) as fd:
                    if fd is not None:
                        os.unlink(name, dir_fd=self._dir.fd(state))
                        taken_back += 1
        return self._shown - taken_back

    def _temporary(self, job: Job) -> str:
        """Return what a new document is called in tmp/.

        One whose id was made up cannot take the place of another: the file in tmp/ that has its
        name keeps all others away.
        """
        return job.id + (self._end if job.id in self._chosen else ".new")

    def _placed(self, job: Job) -> tuple[State, str]:
        """Return where a new job comes to, and under which name."""
        if job.id in self._places:
            return State.BLOCKED, blocked_name(self._places[job.id], job.id)
        return State.PENDING, name_in_pending(job)

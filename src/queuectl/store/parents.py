"""The jobs that blocked ones wait for, read from blocked/ for a purge."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from queuectl.document import NewerSchema
from queuectl.errors import BadDocument
from queuectl.job import State
from queuectl.store.core import Core
from queuectl.store.files import store_errors
from queuectl.store.names import blocked_name

# A directory that changed more recently may change once more with the same time of change.
_STEADY_AFTER_SECONDS = 2.0


class NamedParents:
    """The ids that blocked jobs name as parents; see protocol.NamedParents.

    What need not be read again is known by the time of change of the directories that were read,
    and by a hash for each document.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._dir = core.directory
        self.ids: set[str] = set()
        self._directories_read: dict[str, tuple[int, int]] = {}
        self._documents_read: set[int] = set()

    def look(self) -> Iterator[None]:
        """Read what has changed since the last look; see protocol.NamedParents.look."""
        for parent in list(self._core.index.parents()):
            changed = self._identity(parent)
            if changed is None or changed == self._directories_read.get(parent):
                continue
            is_steady = 0 <= changed[1] / 1e9 < time.time() - _STEADY_AFTER_SECONDS
            for job_id in list(self._core.index.children(parent)):
                name = blocked_name(parent, job_id)
                document = hash((name, self._identity(name)))
                if document in self._documents_read:
                    continue
                self.ids.add(parent)
                try:
                    job = self._core.documents.read(State.BLOCKED, name, job_id)
                except (BadDocument, NewerSchema):
                    is_steady = False  # somebody may be writing it at this moment
                else:
                    self._documents_read.add(document)
                    if job is not None:
                        self.ids.update(job.parents)
                yield
            if is_steady:
                self._directories_read[parent] = changed

    @contextmanager
    def held(self) -> Iterator[set[str]]:
        """Keep jobs from beginning to wait for others; see protocol.NamedParents.held."""
        # Who begins to wait does so under this lock (rule 7).
        with self._core.lock.held():
            for _ in self.look():
                pass
            yield self.ids

    def _identity(self, name: str) -> tuple[int, int] | None:
        """Return what changes with something in blocked/, None if that is gone."""
        with store_errors(f"{self._dir.location}/{State.BLOCKED}/{name} cannot be looked at"):
            try:
                status = os.stat(name, dir_fd=self._dir.fd(State.BLOCKED), follow_symlinks=False)
            except FileNotFoundError:
                return None
        return status.st_ino, status.st_mtime_ns

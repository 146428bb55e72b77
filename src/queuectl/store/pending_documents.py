"""Documents of pending/ under their locks (rule 2), or the time to look at them again."""

import os
from datetime import datetime

from queuectl.clock import later, utc_now
from queuectl.document import NewerSchema
from queuectl.errors import BadDataError
from queuectl.job import Job, State, check_id
from queuectl.store import files
from queuectl.store.core import Core
from queuectl.store.names import due_text, is_pending_name
from queuectl.store.scan import PendingScan

_LOOK_AGAIN_SECONDS = 1.0


class PendingDocuments:
    """The documents in pending/ of one store, for one process."""

    def __init__(self, core: Core, scan: PendingScan) -> None:
        self._dir = core.directory
        self._documents = core.documents
        self._scan = scan

    def lock(self, name: str, now: datetime) -> tuple[int, os.stat_result] | None:
        """Lock a document (rule 2); if that cannot be, see to it that it is looked at again."""
        opened = files.open_and_stat(self._dir.fd(State.PENDING), name)
        if opened is None:
            return None
        fd, status = opened
        held = False
        try:
            if not files.lock(fd):
                self.look_again_soon(name, now)
            else:
                # RACE: between open and lock another worker may have moved the document on; see
                # test_document_that_was_not_locked_is_never_moved.
                held = files.names_inode(self._dir.fd(State.PENDING), name, status)
        finally:
            if not held:
                os.close(fd)
        return opened if held else None

    def look_again_soon(self, name: str, now: datetime) -> None:
        """Postpone a name that somebody holds, or that is in progress already."""
        self.look_again(name, later(now, _LOOK_AGAIN_SECONDS))

    def look_again(self, name: str, at: datetime) -> None:
        """Postpone a name until an instant."""
        self._scan.put_off(name, due_text(at))

    def read(self, fd: int, name: str, job_id: str, now: datetime) -> Job | None:
        """Return the job in a locked document; None if it cannot be run now."""
        try:
            job = self._documents.read_to_run(fd, job_id, now)
            if not is_pending_name(name):
                check_id(job.id)  # which it is going to have
            return job
        except NewerSchema:
            return None
        except BadDataError as error:
            seconds = self._documents.set_aside_if_old(State.PENDING, name, fd, str(error))
            if seconds:
                self.look_again(name, later(utc_now(), seconds))
            return None

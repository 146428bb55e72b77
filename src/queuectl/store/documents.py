"""Documents of jobs: lock, read, record, move (rules 1, 2 and 5), and set aside the unreadable."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from queuectl.clock import format_instant, utc_now
from queuectl.config import Defaults, Settings
from queuectl.document import MAX_DOCUMENT_BYTES, encode_job, encode_job_to_run, job_from_document
from queuectl.errors import BadDataError, BadDocument, StoreError
from queuectl.job import Job, State
from queuectl.store import files, private
from queuectl.store.files import store_errors
from queuectl.store.layout import StoreDirectory
from queuectl.store.names import (
    is_pending_name,
    name_in_pending,
    parse_due,
    pending_due,
    pending_priority,
)
from queuectl.store.settings_file import SettingsFile
from queuectl.strict_json import parse_object

# What cannot be read and is younger than this may still be in the hands of whoever writes it.
STILL_BEING_WRITTEN_SECONDS = 2.0
_LARGE_BYTES = MAX_DOCUMENT_BYTES // 64  # a smaller one does not grow to what is not read
# What a document must hold so that no default is needed to read it, and defaults to read it with.
_LIMITS = ("max_retries", "timeout", "priority", "cwd", "created_at", "updated_at", "run_at")
_COMPLETE = Defaults(Settings(), "/", datetime.min.replace(tzinfo=UTC))


def as_placed(job: Job, state: State, name: str, job_id: str) -> Job:
    """Return a job as its place says: the name of a file decides about its contents."""
    run_at, priority = job.run_at, job.priority
    if state is State.PENDING and is_pending_name(name):
        run_at, priority = parse_due(pending_due(name)), pending_priority(name)
    if (job.id, job.state, job.priority, job.run_at) == (job_id, state, priority, run_at):
        return job  # as nearly all
    return job._replace(id=job_id, state=state, priority=priority, run_at=run_at)


class Documents:
    """The documents of one store, each a file in the directory of its state."""

    def __init__(self, directory: StoreDirectory, settings: SettingsFile) -> None:
        self._dir = directory
        self._settings = settings
        # Called with what was set aside, and why.
        self.on_set_aside: Callable[[str], None] | None = None

    # --- reading ---

    @contextmanager
    def locked(self, directory: State | str, name: str) -> Iterator[int | None]:
        """Hold the lock of a document (rule 2); None if it is gone, no document, or held."""
        with store_errors(f"{self._dir.location}/{directory}/{name} cannot be opened"):
            opened = files.open_document(self._dir.fd(directory), name)
        with files.closing(opened) as fd:
            if fd is not None:
                with store_errors(f"{self._dir.location}/{directory}/{name} cannot be locked"):
                    directory_fd = self._dir.fd(directory)
                    held = files.lock(fd) and files.names_inode(directory_fd, name, os.fstat(fd))
            yield fd if fd is not None and held else None

    def is_document(self, state: State, name: str) -> bool:
        """Return whether a name is that of a document; anything else is never waited for."""
        with (
            store_errors(f"{self._dir.location}/{state}/{name} cannot be opened"),
            files.closing(files.open_document(self._dir.fd(state), name)) as fd,
        ):
            return fd is not None

    def read(self, state: State, name: str, job_id: str) -> Job | None:
        """Return the job in a file, None if it is gone. Raises: BadDocument naming the file."""
        path = f"{self._dir.location}/{state}/{name}"
        with store_errors(f"{path} cannot be read"):
            fd = files.open_document(self._dir.fd(state), name)
        if fd is None:
            if self._dir.exists(state, name):
                raise BadDocument(f"{path} is no regular file of yours")
            return None
        try:
            with store_errors(f"{path} cannot be read"):
                data = files.read_all(fd, MAX_DOCUMENT_BYTES)
                # RACE: a file that was settled takes another job's document, maybe while it is
                # read: test_file_that_takes_another_document_while_it_is_read.
                if not files.names_inode(self._dir.fd(state), name, os.fstat(fd)):
                    return None
            job = self.decode(data, job_id, utc_now())
        except BadDataError as error:
            raise BadDocument(f"{path}: {error}") from error
        finally:
            os.close(fd)
        return as_placed(job, state, name, job_id)

    def read_open(self, fd: int, job_id: str, now: datetime) -> Job:
        """Return the job in an open document. Raises: BadDataError, NewerSchema."""
        return self.decode(files.read_all(fd, MAX_DOCUMENT_BYTES), job_id, now)

    def read_to_run(self, fd: int, job_id: str, now: datetime) -> Job:
        """Return the job in an open document that is to be written again with an attempt.

        Raises: as read_open, and BadDocument if it would be too long then.
        """
        data = files.read_all(fd, MAX_DOCUMENT_BYTES)
        job = self.decode(data, job_id, now)
        if len(data) > _LARGE_BYTES:
            # It may be longer as it is written here: [1,1] becomes [1, 1].
            encode_job_to_run(job.shortened())
        return job

    def decode(self, data: bytes, job_id: str, now: datetime) -> Job:
        """Return the job in a document; what a foreign producer left out comes from the config."""
        document = parse_object(data)
        # One that was recorded holds its limits; if it has no rule, there is to be none.
        if all(key in document for key in _LIMITS):
            return job_from_document(document, job_id, _COMPLETE)
        home = private.home_directory() or "/"
        return job_from_document(document, job_id, Defaults(self._settings.current(), home, now))

    # --- recording and moving ---

    def record(self, state: State, name: str, job: Job) -> int:
        """Put a new document, durable and locked, in the place of one that is locked."""
        with store_errors(f"{self._dir.location}/{state}/{name} cannot be written"):
            return self._dir.replace(encode_job(job), state, name)

    def move(self, source: State | str, name: str, target: State | str, new_name: str) -> None:
        """Move a document that is locked, and set aside what has its name there."""
        with store_errors(f"{self._dir.location}/{source}/{name} cannot be moved to {target}"):
            while True:
                try:
                    files.move_new(self._dir.fd(source), name, self._dir.fd(target), new_name)
                except FileExistsError:
                    self.make_way(target, new_name)
                else:
                    return

    def move_back(self, state: State, name: str, job: Job) -> None:
        """Move a finished job to pending/, durably: nobody can claim it while it is locked."""
        in_pending = name_in_pending(job)
        self.move(state, name, State.PENDING, in_pending)
        try:
            self._dir.make_durable(State.PENDING)
        except StoreError:
            self.move(State.PENDING, in_pending, state, name)
            raise

    def make_way(self, state: State | str, name: str) -> None:
        """Move a document to corrupt/ that stands where another job of its id is to go.

        Only somebody who moves files can have put it there, or have set the other one going.
        Neither record is lost. Raises: StoreError as long as somebody holds it; OSError.
        """
        state_fd = self._dir.fd(state)
        with files.closing(files.open_document(state_fd, name)) as fd:
            if fd is not None and not files.lock(fd):
                raise StoreError(f"{self._dir.location}/{state}/{name} is in the way, and held")
            named = fd is None or files.names_inode(state_fd, name, os.fstat(fd))
            if named and self._dir.exists(state, name):
                self.set_aside(state, name, "another job of this id has come there")

    # --- what cannot be read ---

    def set_aside_if_old(self, state: State, name: str, fd: int, reason: str) -> float:
        """Set aside a locked document of a waiting job, unless somebody may be writing it.

        Returns for how many seconds more somebody may; 0 if it was set aside.
        """
        age = time.time() - os.fstat(fd).st_mtime
        if 0 <= age < STILL_BEING_WRITTEN_SECONDS:
            return STILL_BEING_WRITTEN_SECONDS - age
        self.set_aside(state, name, reason)
        return 0.0

    def set_aside(self, directory: State | str, name: str, reason: str) -> None:
        """Move a locked document that cannot be read to corrupt/, with the reason beside it."""
        stem, suffix = os.path.splitext(os.path.basename(name))
        # A name may have 255 bytes, and needs room for a number and ".reason".
        stem, number = os.fsdecode(os.fsencode(stem)[:200]), 1
        kept_as = stem + suffix
        text = f"{format_instant(utc_now())} {directory}/{name}: {reason}"
        data = text.replace("\n", "\\n").encode(errors="backslashreplace") + b"\n"
        with (
            store_errors(f"{self._dir.location}/corrupt/{kept_as}.reason cannot be written"),
            self._dir.written(data) as (temporary, fd),
        ):
            # RACE: another process may set aside a file of that name at the same time; whoever has
            # the name of the reason has that of the document. See test_names.py.
            while not self._put_reason(temporary, kept_as):
                number += 1
                kept_as = f"{stem}-{number}{suffix}"
        os.close(fd)
        self.move(directory, name, "corrupt", kept_as)
        if self.on_set_aside is not None:
            self.on_set_aside(f"moved {directory}/{name} to corrupt/: {reason}")

    def _put_reason(self, temporary: str, kept_as: str) -> bool:
        """Put a reason into corrupt/; False if there is one of that name, or such a document."""
        if self._dir.exists("corrupt", kept_as):
            return False
        try:
            files.move_new(
                self._dir.fd("tmp"), temporary, self._dir.fd("corrupt"), kept_as + ".reason"
            )
        except FileExistsError:
            return False
        return True

"""The output of each attempt, on the machine that ran it.

The log of attempt N of job ID is ``ID.N.log``; it is opened for appending and never overwritten. A
job that was removed by hand leaves its logs; they do not count as logs of a later job of its id.
"""

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import NamedTuple, Protocol

from queuectl.clock import from_timestamp, utc_now
from queuectl.errors import StoreUnavailable, UnsafeStore
from queuectl.job import ID_PATTERN, Job, log_name
from queuectl.store import files, private

# The time of a file may lag behind the clock by a tick of the kernel.
_TICK_SECONDS = 0.02
_NAME = re.compile(rf"({ID_PATTERN})\.([1-9][0-9]{{0,8}})\.log")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_MAX_WORKER_LOG_BYTES = 10 * 1024 * 1024
_CHUNK = 1024 * 1024


class Log(NamedTuple):
    """The log of an attempt, and when it was last written to."""

    job_id: str
    attempt: int
    modified_at: datetime


def parse_log_name(name: str) -> tuple[str, int] | None:
    """Return the job id and the attempt in a log's name, None if it is not a log's name."""
    match = _NAME.fullmatch(name)
    return (match[1], int(match[2])) if match else None


class LogDir:
    """The directory of the logs of a store."""

    def __init__(self, path: str) -> None:
        self.directory = path
        self.worker_log = WorkerLog(os.path.join(os.path.dirname(path), "worker.log"))
        self._dir_fd: int | None = None

    def path(self, job_id: str, attempt: int) -> str:
        """Return the path of an attempt's log, whether it exists or not."""
        return os.path.join(self.directory, log_name(job_id, attempt))

    def open_for_append(
        self, job_id: str, attempt: int, *, created_at: datetime | None = None
    ) -> int:
        """Open an attempt's log for its command to write to; the caller closes the descriptor.

        A log that is older than ``created_at``, when the job was made, is that of an earlier job of
        this id, and is deleted.
        Raises: OSError if it cannot be opened, or is not a private file; StoreUnavailable,
        UnsafeStore for the directory.
        """
        if self._dir_fd is None:
            self._dir_fd = self._open_directory(create=True)
        return _open_private(log_name(job_id, attempt), self._dir_fd, made_at=created_at)

    def open_for_reading(
        self, job_id: str, attempt: int, *, created_at: datetime | None = None
    ) -> int | None:
        """Open an attempt's log to read it, None if there is none; the caller closes it.

        A log that is older than ``created_at`` is that of another job, and does not count.
        Raises: OSError; UnsafeStore if it is not a regular file of this user.
        """
        try:
            with self._open() as dir_fd:
                fd = os.open(log_name(job_id, attempt), _READ, dir_fd=dir_fd)
        except FileNotFoundError:
            return None
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
            if not _is_older(status, created_at):
                return fd
            os.close(fd)
            return None
        os.close(fd)
        path = self.path(job_id, attempt)
        raise UnsafeStore(f"{path} is not a regular file owned by you: remove it")

    def is_at_fault(self, job_id: str, attempt: int, error: OSError) -> bool:
        """Return whether a log cannot be opened because something else is in its place."""
        kinds = (errno.EPERM, errno.EACCES, errno.ELOOP, errno.EISDIR, errno.ENXIO)
        return error.errno in kinds and self.exists(job_id, attempt)

    def exists(self, job_id: str, attempt: int) -> bool:
        """Return whether there is anything at the path of an attempt's log."""
        return os.path.lexists(self.path(job_id, attempt))

    def tail(self, job_id: str, attempt: int, max_bytes: int) -> list[str]:
        """Return the last lines of an attempt's log, none if there is nothing to read.

        A byte that is not UTF-8 is a lone surrogate.
        """
        try:
            fd = self.open_for_reading(job_id, attempt)
            if fd is None:
                return []
            with open(fd, "rb") as file:
                start = max(0, os.fstat(fd).st_size - max_bytes)
                file.seek(start)
                data = file.read(max_bytes)
        except (OSError, UnsafeStore):
            return []
        lines = data.decode("utf-8", "surrogateescape").split("\n")
        if start > 0:  # the first is cut: a progress bar begins again, another line does not
            lines[0] = lines[0].partition("\r")[2] or (lines[0] if len(lines) == 1 else "")
        return lines

    def all(self) -> Iterator[Log]:
        """Yield the logs, in no order; files of other names are skipped."""
        try:
            # Opened again: the position in a directory is shared with forked processes.
            opened = self._open_directory()
        except FileNotFoundError:
            return
        with files.closing(opened) as fd, os.scandir(fd) as found:
            for entry in found:
                if parsed := parse_log_name(entry.name):
                    with suppress(FileNotFoundError):
                        modified = entry.stat(follow_symlinks=False).st_mtime
                        yield Log(*parsed, modified_at=from_timestamp(modified))

    def remove(self, job_id: str, attempt: int, *, unchanged_since: datetime | None = None) -> None:
        """Delete the log of an attempt, unless it was written to after ``unchanged_since``."""
        name = log_name(job_id, attempt)
        with suppress(FileNotFoundError), self._open() as dir_fd:
            if unchanged_since is None or _is_unchanged(name, dir_fd, unchanged_since):
                os.unlink(name, dir_fd=dir_fd)

    def remove_all(self, job: Job) -> None:
        """Delete the logs of a job's attempts, that of one returned to the queue included."""
        attempts = {*(each.number for each in job.history), job.next_attempt}
        if job.history_omitted:
            attempts.update(range(1, job.next_attempt))
        for attempt in attempts:
            self.remove(job.id, attempt)

    @contextmanager
    def _open(self) -> Iterator[int]:
        """Hold the directory open. Raises: FileNotFoundError; see _open_directory."""
        if self._dir_fd is not None:
            yield self._dir_fd
            return
        with files.closing(self._open_directory()) as dir_fd:
            yield dir_fd

    def _open_directory(self, *, create: bool = False) -> int:
        """Open the directory, and make it with ``create``.

        Raises: OSError; StoreUnavailable; UnsafeStore if others could change it.
        """
        parent, name = os.path.split(self.directory)
        with files.closing(os.open(parent, _DIRECTORY)) as parent_fd:
            if create:
                with suppress(FileExistsError):
                    private.make_private(name, parent_fd)
            return private.open_directory(self.directory, inside_fd=parent_fd)


class _HasLogs(Protocol):
    log_directory: str


def logs_of(store: _HasLogs) -> LogDir:
    """Return the logs of a store that this host keeps."""
    return LogDir(store.log_directory)


class WorkerLog:
    """The event log of the workers in the background, and the part before it, ``.1``."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._old_path = path + ".1"

    def open(self) -> int:
        """Open it for appending. Raises: StoreUnavailable."""
        try:
            return _open_private(self.path)
        except OSError as error:
            raise StoreUnavailable(f"{self.path} cannot be opened: {error.strerror}") from error

    def bound(self) -> None:
        """Move its contents to the old part if it is longer than 10 MiB.

        It is emptied and not renamed, since pools have it open; a line that is written between the
        last read and that is lost. Raises: OSError.
        """
        with suppress(FileNotFoundError, BlockingIOError):  # or another pool does it
            if os.stat(self.path, follow_symlinks=False).st_size <= _MAX_WORKER_LOG_BYTES:
                return
            fd = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(fd, "r+b") as file:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                status = os.fstat(fd)
                if private.is_ours_alone(status) and status.st_size > _MAX_WORKER_LOG_BYTES:
                    with open(_open_private(self._old_path), "wb") as old:
                        old.truncate(0)
                        while data := file.read(_CHUNK):
                            old.write(data)
                    file.truncate(0)

    def remove_old(self, unchanged_since: datetime) -> None:
        """Delete the old part, unless it was written to later than that. Raises: OSError."""
        with suppress(FileNotFoundError):
            if _is_unchanged(self._old_path, None, unchanged_since):
                os.unlink(self._old_path)


def _open_private(
    name: str, directory_fd: int | None = None, *, made_at: datetime | None = None
) -> int:
    """Open a file for appending; make it with mode 0600 if it is missing.

    An existing one must be a regular file of this user without another name, since a hard link or
    a FIFO may have been put there while others could write to the directory. If it is older than
    ``made_at``, a new one takes its place. Raises: OSError.
    """
    while True:
        with suppress(FileExistsError):
            create = os.O_CREAT | os.O_EXCL
            fd = os.open(name, _APPEND | create, private.FILE_MODE, dir_fd=directory_fd)
            os.fchmod(fd, private.FILE_MODE)  # the umask may have taken bits away
            return fd
        # Without blocking: nobody may ever read a FIFO.
        fd = os.open(name, _APPEND | os.O_NONBLOCK, dir_fd=directory_fd)
        status = os.fstat(fd)
        if not private.is_ours_alone(status):
            os.close(fd)
            raise OSError(errno.EPERM, "not a regular file owned by you, or has other links", name)
        if not _is_older(status, made_at):
            os.set_blocking(fd, True)
            return fd
        os.close(fd)
        os.unlink(name, dir_fd=directory_fd)


def _is_unchanged(name: str, directory_fd: int | None, since: datetime) -> bool:
    """Return whether a file was not written to after an instant. Raises: OSError."""
    status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    return from_timestamp(status.st_mtime) <= since


def _is_older(status: os.stat_result, instant: datetime | None) -> bool:
    """Return whether a file was last written to before an instant.

    An instant in the future was read from a clock that was set back since, and does not count.
    """
    if instant is None:
        return False
    return status.st_mtime < instant.timestamp() - _TICK_SECONDS and instant <= utc_now()

"""Keep the output of each attempt, on the machine that ran it.

Logs are not the store's: a job is claimed anywhere, its output lies where it was written. The log
of attempt N of job ID is ``ID.N.log``; it is opened for appending and never overwritten.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple

from queuectl.clock import from_timestamp
from queuectl.errors import StoreUnavailable, UnsafeStore
from queuectl.job import ID_PATTERN, Job

_NAME = re.compile(rf"({ID_PATTERN})\.([1-9][0-9]{{0,8}})\.log")


class Log(NamedTuple):
    """Tell of one log: whose it is, and when it was last written to."""

    job_id: str
    attempt: int
    modified_at: datetime


_TAIL_BYTES = 8192


def log_name(job_id: str, attempt: int) -> str:
    """Return the file name of an attempt's log, as the attempt's record holds it."""
    return f"{job_id}.{attempt}.log"


def parse_log_name(name: str) -> tuple[str, int] | None:
    """Return the job's id and the attempt that a log's name tells, None where it is no log."""
    match = _NAME.fullmatch(name)
    return (match[1], int(match[2])) if match else None


class LogDir:
    """Open, find and remove the logs in one directory."""

    def __init__(self, directory: str) -> None:
        """Take the directory's path; nothing is opened or made before it is needed."""
        self.directory = directory
        self._dir_fd: int | None = None

    @classmethod
    def of(cls, location: str) -> "LogDir":
        """Return the logs of the store at a location: inside a directory store, else the user's."""
        if "://" in location:
            state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
            return cls(os.path.join(state, "queuectl", "logs"))
        return cls(os.path.join(location, "logs"))

    def path(self, job_id: str, attempt: int) -> str:
        """Return the path of an attempt's log, whether it is there or not."""
        return os.path.join(self.directory, log_name(job_id, attempt))

    def talk_path(self) -> str:
        """Return the path of the file that workers in the background tell their events to."""
        return os.path.join(os.path.dirname(self.directory), "worker.log")

    def open_for_append(self, job_id: str, attempt: int) -> int:
        """Open an attempt's log for its command to write to; the caller closes the descriptor.

        Raises: OSError where it cannot be opened, a symlink in its place included.
        """
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(log_name(job_id, attempt), flags, 0o600, dir_fd=self._directory_fd())

    def open_for_reading(self, job_id: str, attempt: int) -> int | None:
        """Open an attempt's log to read it, None where there is none; the caller closes it."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            return os.open(self.path(job_id, attempt), flags)
        except FileNotFoundError:
            return None

    def exists(self, job_id: str, attempt: int) -> bool:
        """Tell whether anything lies where an attempt's log is, or was."""
        return os.path.lexists(self.path(job_id, attempt))

    def last_lines(self, job_id: str, attempt: int, most: int) -> list[str]:
        """Return the last lines of an attempt's log that hold anything; none where it has none.

        What a progress bar has drawn over counts as lines, too. Reads no more than the end.
        """
        try:
            fd = self.open_for_reading(job_id, attempt)
            if fd is None:
                return []
            try:
                size = os.fstat(fd).st_size
                start = max(0, size - _TAIL_BYTES)
                data = os.pread(fd, size - start, start)
            finally:
                os.close(fd)
        except OSError:  # no regular file, or none of ours: there is nothing to show
            return []
        lines = data.decode("utf-8", "surrogateescape").splitlines()
        if start > 0 and len(lines) > 1:
            del lines[0]  # it is cut
        return [line for line in lines if line.strip()][-most:]

    def all(self) -> Iterator[Log]:
        """Stream what logs there are, in no order; what has another name is no log."""
        try:
            found = os.scandir(self.directory)
        except FileNotFoundError:
            return
        with found:
            for entry in found:
                parsed = parse_log_name(entry.name)
                if parsed is None:
                    continue
                try:
                    modified = entry.stat(follow_symlinks=False).st_mtime
                except FileNotFoundError:
                    continue
                yield Log(*parsed, modified_at=from_timestamp(modified))

    def remove(self, job_id: str, attempt: int, *, unchanged_since: datetime | None = None) -> None:
        """Delete the log of an attempt, unless it was written to after ``unchanged_since``."""
        path = self.path(job_id, attempt)
        with suppress(FileNotFoundError):
            if unchanged_since is not None:
                modified = os.stat(path, follow_symlinks=False).st_mtime
                if from_timestamp(modified) > unchanged_since:
                    return
            os.unlink(path)

    def remove_all(self, job: Job) -> None:
        """Delete the logs of a job's attempts, that of one which was given back included."""
        for attempt in {*(each.number for each in job.history), job.next_attempt}:
            self.remove(job.id, attempt)

    def _directory_fd(self) -> int:
        if self._dir_fd is None:
            try:
                os.makedirs(self.directory, 0o700, exist_ok=True)
                self._dir_fd = os.open(
                    self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                )
            except OSError as error:
                raise StoreUnavailable(
                    f"the log directory {self.directory} cannot be opened: {error.strerror}"
                ) from error
            status = os.fstat(self._dir_fd)
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                raise UnsafeStore(
                    f"the log directory {self.directory} can be changed by somebody else:"
                    " make it yours, with mode 0700"
                )
        return self._dir_fd

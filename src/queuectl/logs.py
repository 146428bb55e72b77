"""Keep the output of each attempt, on the machine that ran it.

Logs are not the store's: a job is claimed anywhere, its output lies where it was written. The log
of attempt N of job ID is ``ID.N.log``; it is opened for appending and never overwritten. A job that
was removed by hand leaves its logs; those do not count as logs of a later job of its id.
"""

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import NamedTuple

from queuectl.clock import from_timestamp, utc_now
from queuectl.errors import StoreUnavailable, UnsafeStore
from queuectl.job import ID_PATTERN, Job

# The time of a file may lag behind the clock by a tick of the kernel.
_TICK_SECONDS = 0.02
_NAME = re.compile(rf"({ID_PATTERN})\.([1-9][0-9]{{0,8}})\.log")
_FILE_MODE = 0o600
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Log(NamedTuple):
    """Tell of one log: whose it is, and when it was last written to."""

    job_id: str
    attempt: int
    modified_at: datetime


_MOST_TALK_BYTES = 10 * 1024 * 1024
_OLD = ".1"
_CHUNK = 1024 * 1024


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
        self._sets_mode = False

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

    def open_talk(self) -> int:
        """Open that file for appending. Raises: StoreUnavailable."""
        path = self.talk_path()
        try:
            return _open_own(path, None, sets_mode=True)
        except OSError as error:
            raise StoreUnavailable(f"{path} cannot be opened: {error.strerror}") from error

    def bound_talk(self) -> None:
        """Put what that file holds into a second one, its name and .1, where it has grown long.

        It is emptied and not renamed: any number of pools may append to it, and so they go on with
        what they have open. A line that comes between the last look and that is lost.
        Raises: OSError.
        """
        path = self.talk_path()
        with suppress(FileNotFoundError):
            if os.stat(path, follow_symlinks=False).st_size <= _MOST_TALK_BYTES:
                return
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                with suppress(BlockingIOError):  # another pool does it
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if _is_own_alone(status := os.fstat(fd)) and status.st_size > _MOST_TALK_BYTES:
                        _move_contents(fd, path + _OLD)
            finally:
                os.close(fd)

    def remove_old_talk(self, unchanged_since: datetime) -> None:
        """Delete that second file, unless it was written to later than that. Raises: OSError."""
        path = self.talk_path() + _OLD
        with suppress(FileNotFoundError):
            if from_timestamp(os.stat(path, follow_symlinks=False).st_mtime) <= unchanged_since:
                os.unlink(path)

    def open_for_append(
        self, job_id: str, attempt: int, *, created_at: datetime | None = None
    ) -> int:
        """Open an attempt's log for its command to write to; the caller closes the descriptor.

        A log that is older than ``created_at``, when the job was made, is of a job that had its id
        before, and goes.
        Raises: OSError where it cannot be opened, or is no file of ours alone; StoreUnavailable,
        UnsafeStore where the directory is at fault.
        """
        if self._dir_fd is None:
            self._dir_fd = self._open_directory(create=True)
            before = os.umask(0o077)
            os.umask(before)
            self._sets_mode = before & _FILE_MODE != 0
        name = log_name(job_id, attempt)
        return _open_own(name, self._dir_fd, sets_mode=self._sets_mode, made_at=created_at)

    def open_for_reading(
        self, job_id: str, attempt: int, *, created_at: datetime | None = None
    ) -> int | None:
        """Open an attempt's log to read it, None where there is none; the caller closes it.

        One that is older than ``created_at`` is of another job, and does not count.
        Raises: OSError; UnsafeStore where it is no regular file of this user.
        """
        with self._directory() as dir_fd:
            if dir_fd is None:
                return None
            try:
                fd = os.open(log_name(job_id, attempt), _READ, dir_fd=dir_fd)
            except FileNotFoundError:
                return None
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            os.close(fd)
            raise UnsafeStore(
                f"{self.path(job_id, attempt)} is no regular file of yours: remove it"
            )
        if _is_older(status, created_at):
            os.close(fd)
            return None
        return fd

    def is_at_fault(self, job_id: str, attempt: int, error: OSError) -> bool:
        """Return whether a log cannot be opened because something else lies in its place."""
        kinds = (errno.EPERM, errno.EACCES, errno.ELOOP, errno.EISDIR, errno.ENXIO)
        return error.errno in kinds and self.exists(job_id, attempt)

    def exists(self, job_id: str, attempt: int) -> bool:
        """Tell whether anything lies where an attempt's log is, or was."""
        return os.path.lexists(self.path(job_id, attempt))

    def tail(self, job_id: str, attempt: int, most_bytes: int) -> list[str]:
        """Return the lines at the end of an attempt's log, none where there is nothing to read.

        A byte that is no UTF-8 is a lone surrogate.
        """
        try:
            fd = self.open_for_reading(job_id, attempt)
            if fd is None:
                return []
            try:
                size = os.fstat(fd).st_size
                start = max(0, size - most_bytes)
                data = os.pread(fd, size - start, start)
            finally:
                os.close(fd)
        except (OSError, UnsafeStore):  # no regular file, or none of ours: nothing is to be shown
            return []
        lines = data.decode("utf-8", "surrogateescape").split("\n")
        if start > 0:  # the first is cut: a progress bar begins again, another line does not
            lines[0] = lines[0].partition("\r")[2] or (lines[0] if len(lines) == 1 else "")
        return lines

    def all(self) -> Iterator[Log]:
        """Stream what logs there are, in no order; what has another name is no log."""
        with self._directory() as dir_fd:
            if dir_fd is None:
                return
            # Opened anew: it may be shared with processes that were forked, and its position, too.
            own_fd = os.open(".", _DIRECTORY, dir_fd=dir_fd)
            try:
                found = os.scandir(own_fd)
            except BaseException:
                os.close(own_fd)
                raise
        try:
            for entry in found:
                parsed = parse_log_name(entry.name)
                if parsed is None:
                    continue
                try:
                    modified = entry.stat(follow_symlinks=False).st_mtime
                except FileNotFoundError:
                    continue
                yield Log(*parsed, modified_at=from_timestamp(modified))
        finally:
            found.close()
            os.close(own_fd)

    def remove(self, job_id: str, attempt: int, *, unchanged_since: datetime | None = None) -> None:
        """Delete the log of an attempt, unless it was written to after ``unchanged_since``."""
        name = log_name(job_id, attempt)
        with self._directory() as dir_fd, suppress(FileNotFoundError):
            if dir_fd is None:
                return
            if unchanged_since is not None:
                modified = os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mtime
                if from_timestamp(modified) > unchanged_since:
                    return
            os.unlink(name, dir_fd=dir_fd)

    def remove_all(self, job: Job) -> None:
        """Delete the logs of a job's attempts, that of one which was given back included."""
        attempts = {*(each.number for each in job.history), job.next_attempt}
        if job.history_omitted:
            attempts.update(range(1, job.next_attempt))
        for attempt in attempts:
            self.remove(job.id, attempt)

    @contextmanager
    def _directory(self) -> Iterator[int | None]:
        """Hold the directory open, None where it is not there."""
        if self._dir_fd is not None:
            yield self._dir_fd
            return
        try:
            dir_fd = self._open_directory(create=False)
        except FileNotFoundError:
            yield None
            return
        try:
            yield dir_fd
        finally:
            os.close(dir_fd)

    def _open_directory(self, *, create: bool) -> int:
        """Open the directory, and make it with ``create``.

        Raises: FileNotFoundError; StoreUnavailable; UnsafeStore where others could change it.
        """
        try:
            if create:
                os.makedirs(self.directory, 0o700, exist_ok=True)
            dir_fd = os.open(self.directory, _DIRECTORY)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreUnavailable(
                f"the log directory {self.directory} cannot be opened: {error.strerror}"
            ) from error
        status = os.fstat(dir_fd)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            os.close(dir_fd)
            raise UnsafeStore(
                f"the log directory {self.directory} can be changed by somebody else:"
                " make it yours, with mode 0700"
            )
        return dir_fd


def _is_own_alone(status: os.stat_result) -> bool:
    """Return whether a file is a regular one of this user, and has no other name."""
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1


def _move_contents(fd: int, path: str) -> None:
    """Leave a file empty, and another one with what it held. Raises: OSError."""
    other_fd = _open_own(path, None, sets_mode=True)
    try:
        os.ftruncate(other_fd, 0)
        offset = 0
        while data := os.pread(fd, _CHUNK, offset):
            offset += len(data)
            while data:
                data = data[os.write(other_fd, data) :]
        os.ftruncate(fd, 0)
    finally:
        os.close(other_fd)


def _open_own(
    name: str, directory_fd: int | None, *, sets_mode: bool, made_at: datetime | None = None
) -> int:
    """Open a file for appending, made with mode 0600 where it is not there.

    What is there already must be a regular file of this user without another name, since a hard
    link or a FIFO may have been put there by somebody else while the directory was open to them.
    If it is older than ``made_at``, a new one takes its place. With ``sets_mode`` the umask takes
    some of the mode away, which is put right. Raises: OSError.
    """
    while True:
        try:
            fd = os.open(name, _APPEND | os.O_CREAT | os.O_EXCL, _FILE_MODE, dir_fd=directory_fd)
        except FileExistsError:
            pass
        else:
            if sets_mode:
                os.fchmod(fd, _FILE_MODE)
            return fd
        # Not blocking: nobody may ever read a FIFO.
        fd = os.open(name, _APPEND | os.O_NONBLOCK, dir_fd=directory_fd)
        status = os.fstat(fd)
        if not _is_own_alone(status):
            os.close(fd)
            raise OSError(errno.EPERM, "what is there is no file of yours alone", name)
        if not _is_older(status, made_at):
            os.set_blocking(fd, True)
            return fd
        os.close(fd)
        os.unlink(name, dir_fd=directory_fd)


def _is_older(status: os.stat_result, instant: datetime | None) -> bool:
    """Return whether a file was last written to before an instant.

    An instant that is still to come was told by a clock that was set back since, and tells nothing.
    """
    if instant is None:
        return False
    return status.st_mtime < instant.timestamp() - _TICK_SECONDS and instant <= utc_now()

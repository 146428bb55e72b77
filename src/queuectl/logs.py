"""Keep the output of each attempt, on the machine that ran it.

Logs are not the store's: a job is claimed anywhere, its output lies where it was written. The log
of attempt N of job ID is ``ID.N.log``; it is opened for appending and never overwritten.
"""

import os

from queuectl.errors import StoreUnavailable, UnsafeStore


def log_name(job_id: str, attempt: int) -> str:
    """Return the file name of an attempt's log, as the attempt's record holds it."""
    return f"{job_id}.{attempt}.log"


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

    def remove(self, job_id: str, attempts: int) -> None:
        """Delete the logs of a job's attempts 1 to ``attempts``."""
        for attempt in range(1, attempts + 1):
            try:
                os.unlink(self.path(job_id, attempt))
            except FileNotFoundError:
                continue

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

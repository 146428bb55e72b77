"""The errors that users see, each kind with an exit code that scripts can rely on.

Source: the codes are those of BSD ``sysexits.h``.
"""

from collections.abc import Sequence


def shorten(value: object, limit: int = 60) -> str:
    """Return a value quoted for a message, on one line and cut to ``limit`` characters."""
    if isinstance(value, str):
        value = value[:limit]  # a document may hold one of any length
    text = repr(value)
    if len(text) <= limit:
        return text
    end = text[-1] if isinstance(value, str) else ""  # the quote
    return text[: limit - 3 - len(end)] + "..." + end


class QueuectlError(Exception):
    """Base class of all errors that are shown to the user, in one line."""

    exit_code = 70


class UsageError(QueuectlError):
    """A value that the command line does not allow."""

    exit_code = 2


class BadDataError(QueuectlError):
    """Input, or a document, that is not valid."""

    exit_code = 65


class BadId(BadDataError):
    """An id that is not 1 to 100 of ``A-Z a-z 0-9 . _ -`` or starts with a dot or dash."""


class BadDocument(BadDataError):
    """A job document that cannot be read, or has a wrong key or value."""


class DuplicateId(BadDataError):
    """The id of a job that is in the store already."""

    def __init__(self, job_id: str, state: str) -> None:
        super().__init__(
            f"job {job_id!r} exists already ({state}); choose another id, or use --if-exists skip"
        )
        self.job_id = job_id


class LookAlike(BadDataError):
    """An id that the file system cannot distinguish from another: only its case differs."""

    def __init__(self, job_id: str, other: str) -> None:
        super().__init__(
            f"this file system cannot distinguish job {job_id!r} from job {other!r}; choose another"
            " id"
        )


class NameTaken(QueuectlError):
    """A worker's name that another worker has, or may have."""


class AmbiguousPrefix(BadDataError):
    """A prefix that more than one id starts with."""


class WrongState(BadDataError):
    """A move that the job's state does not allow."""


class JobNotFound(QueuectlError):
    """An id that no job in the store has."""

    exit_code = 66


class UnknownParent(JobNotFound):
    """A parent, given for the new job ``job_id``, that does not exist."""

    def __init__(self, job_id: str, parent: str) -> None:
        super().__init__(
            f"no such job to wait for: {parent}; give the full id of a job that is in the queue"
        )
        self.job_id = job_id


class CircularWait(BadDataError):
    """New jobs that wait for each other, ``job_id`` one of them, so that none would ever run."""

    def __init__(self, circle: Sequence[str]) -> None:
        names = [*circle[:5], *(["..."] if len(circle) > 5 else []), circle[0]]
        super().__init__("jobs wait for each other in a circle: " + " -> ".join(names))
        self.job_id = circle[0]


class LogNotFound(QueuectlError):
    """An attempt whose log is missing."""

    exit_code = 66


class StoreUnavailable(QueuectlError):
    """A store that cannot be reached, or is not a directory."""

    exit_code = 69


class StoreError(QueuectlError):
    """A full disk, or an I/O error."""

    exit_code = 74


class TimeoutExpired(QueuectlError):
    """The end of a wait before the jobs ended."""

    exit_code = 75


class StoreBusy(QueuectlError):
    """A question that cannot be answered while another process holds a lock."""

    exit_code = 75


class UnsafeStore(QueuectlError):
    """A store that somebody else could change."""

    exit_code = 77


class ConfigError(QueuectlError):
    """A bad key, value or file of the configuration, a newer format, or a missing extra."""

    exit_code = 78

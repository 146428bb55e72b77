"""Say what went wrong as a fact, each kind with the exit code that a script can rely on.

Source: the codes are those of BSD ``sysexits.h``, as cli reference lists them.
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
    """Be the root of every error that a user is told about in one line."""

    exit_code = 70


class UsageError(QueuectlError):
    """Report a value that the command line does not allow."""

    exit_code = 2


class BadDataError(QueuectlError):
    """Report input, or a document, that is not what it has to be."""

    exit_code = 65


class BadId(BadDataError):
    """Report an id that is not 1 to 100 of ``A-Z a-z 0-9 . _ -`` or starts with a dot or dash."""


class BadDocument(BadDataError):
    """Report a job document that cannot be read or has a wrong key or value."""


class DuplicateId(BadDataError):
    """Report an id that a job in the store has already."""

    def __init__(self, job_id: str, state: str) -> None:
        """Keep the id, so that a caller can decide to skip it."""
        super().__init__(
            f"job {job_id!r} exists already ({state}); choose another id, or use --if-exists skip"
        )
        self.job_id = job_id


class LookAlike(BadDataError):
    """Report an id that the file system does not tell from that of another job."""

    def __init__(self, job_id: str, other: str) -> None:
        """Take the new id, and the one that differs from it in case alone."""
        super().__init__(
            f"this file system does not tell job {job_id!r} from job {other!r}; choose another id"
        )


class NameTaken(QueuectlError):
    """Report a worker's name that is, or may be, another's: choose another one."""


class AmbiguousPrefix(BadDataError):
    """Report a prefix that more than one id starts with."""


class WrongState(BadDataError):
    """Report a move that the job's state does not allow."""


class JobNotFound(QueuectlError):
    """Report an id that no job in the store has."""

    exit_code = 66


class UnknownParent(JobNotFound):
    """Report a job that is to wait for one that does not exist."""

    def __init__(self, job_id: str, parent: str) -> None:
        """Keep the id of the job that was to wait, so that its line in a batch can be named."""
        super().__init__(
            f"no such job: {parent}, which is to be waited for; give the whole id of a job that is"
            " in the queue already"
        )
        self.job_id = job_id


class CircularWait(BadDataError):
    """Report new jobs that wait for each other, so that none would ever run."""

    def __init__(self, circle: Sequence[str]) -> None:
        """Keep the first of them, so that its line in a batch can be named."""
        names = [*circle[:5], *(["..."] if len(circle) > 5 else []), circle[0]]
        super().__init__("jobs wait for each other in a circle: " + " -> ".join(names))
        self.job_id = circle[0]


class LogNotFound(QueuectlError):
    """Report an attempt whose output is not there."""

    exit_code = 66


class StoreUnavailable(QueuectlError):
    """Report a store that cannot be reached, or is no directory."""

    exit_code = 69


class StoreError(QueuectlError):
    """Report a full disk or an I/O error."""

    exit_code = 74


class TimeoutExpired(QueuectlError):
    """Report that a wait ended before what it waited for."""

    exit_code = 75


class StoreBusy(QueuectlError):
    """Report a question that cannot be answered while another process holds a lock."""

    exit_code = 75


class UnsafeStore(QueuectlError):
    """Report a store that somebody else could change."""

    exit_code = 77


class ConfigError(QueuectlError):
    """Report a bad key, value or file of the configuration, a newer format, or a missing extra."""

    exit_code = 78

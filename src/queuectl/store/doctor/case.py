"""What the checks have in common: the store that is examined, and how a finding is made."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from queuectl.clock import utc_now
from queuectl.document import NewerSchema
from queuectl.errors import BadDataError, ConfigError
from queuectl.job import FINISHED, Job, State
from queuectl.store import private
from queuectl.store.directory import DirectoryStore
from queuectl.store.layout import ROOT

ASIDE = "is moved to corrupt/"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with which file, and what is to be done or was done about it.

    A ``note`` is no damage. ``where`` is a path inside the store.
    """

    what: str
    where: str
    action: str
    repaired: bool = field(default=False, kw_only=True)
    note: bool = field(default=False, kw_only=True)


def mode_finding(mode: int, where: str, wanted: str, *, repaired: bool) -> Finding:
    """Return the finding of a mode that is not the one that was wanted."""
    action = f"was made {wanted}" if repaired else f"chmod {wanted}"
    return Finding(f"mode {mode:04o}", where, action, repaired=repaired)


def place(directory: str, name: str) -> str:
    """Return the path of a file inside the store."""
    return name if directory == ROOT else f"{directory}/{name}"


def foreign(directory: str, name: str) -> Finding:
    """Return the finding of a file that is not queuectl's."""
    return Finding("foreign file", place(directory, name), "left alone", note=True)


class Case:
    """A store that is examined, and repaired if that is asked for."""

    def __init__(self, location: str, *, repair: bool) -> None:
        """Open the store; with ``repair`` what is missing is made."""
        self.repair = repair
        self.store = DirectoryStore(location, create=repair, any_format=True)
        self.core = core = self.store.core
        self.directory, self.documents, self.lookup = core.directory, core.documents, core.lookup
        self.places: dict[str, str] = {}  # where each job was met first
        self.met_twice: set[str] = set()

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def finding(self, what: str, where: str, advice: str, done: str) -> Finding:
        """Return a finding that says what is to be done, or was done if the store is repaired."""
        return Finding(what, where, done if self.repair else advice, repaired=self.repair)

    def set_apart(self, directory: str, name: str, what: str, reason: str) -> Finding:
        """Move what has no place to corrupt/, if the store is repaired; return the finding."""
        if self.repair:
            self.documents.set_aside(directory, name, reason)
        advice = "--repair moves it to corrupt/"
        return self.finding(what, place(directory, name), advice, f"{reason}; {ASIDE}")

    def status(self, directory: str, name: str) -> os.stat_result | None:
        """Return the status of a name, which may be a symlink; None if it is gone."""
        try:
            fd = self.directory.fd(directory)
            return os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def is_ours(self, directory: str, name: str) -> bool:
        """Return whether a name is that of a regular file of this user."""
        status = self.status(directory, name)
        return status is not None and stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()

    def check_file(self, directory: str, name: str, *, any_mode: bool = False) -> Iterator[Finding]:
        """Check that a file is a regular one that is this user's alone."""
        where = place(directory, name)
        status = self.status(directory, name)
        if status is None:
            return
        mode = stat.S_IMODE(status.st_mode)
        if status.st_uid != os.geteuid():
            yield Finding(f"belongs to user {status.st_uid}", where, "take it away")
        elif not stat.S_ISREG(status.st_mode):
            yield self.set_apart(directory, name, "no regular file", "it is no regular file")
        elif mode != private.FILE_MODE and not any_mode:
            if self.repair:
                fd = self.directory.fd(directory)
                if not private.set_mode(name, private.FILE_MODE, status, fd):
                    return  # it has moved on, and is met there
            elif not self.directory.exists(directory, name):
                return
            yield mode_finding(mode, where, "0600", repaired=self.repair)

    def problem_in(
        self, fd: int, state: State, job_id: str
    ) -> tuple[Exception | str | None, Job | None]:
        """Return what is wrong with an open document, None for nothing, and the job in it."""
        try:
            job = self.documents.read_open(fd, job_id, utc_now())
        except (NewerSchema, BadDataError) as error:
            return error, None
        except ConfigError:
            return None, None  # what it lacks is in a config that is broken, which was told
        # A claim leaves the document as it is, and recovery goes by the name.
        if state is not State.PROCESSING and job.id != job_id:
            return f"the document says that it is job {job.id}", job
        if state in FINISHED and job.state is not state:
            return f"the document says that it is {job.state}", job
        return None, job

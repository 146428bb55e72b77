"""Check the rules of a directory store on what lies there, and repair what can be repaired.

Nothing is lost by a repair: what has no place goes to ``corrupt/`` with the reason beside it. It is
safe while workers run. What looks wrong is looked at once more, under its lock, before it is told:
a job that moved meanwhile is not there any more, and one that somebody holds is left to them.
"""

import os
import random
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from queuectl.clock import utc_now
from queuectl.config import parse_value
from queuectl.errors import (
    BadDataError,
    BadDocument,
    ConfigError,
    StoreError,
    StoreUnavailable,
    UnsafeStore,
)
from queuectl.job import MAX_DOCUMENT_BYTES, Attempt, Job, NewerSchema, State, parse_object
from queuectl.logs import parse_log_name
from queuectl.policy import after_attempt
from queuectl.store import files
from queuectl.store.base import FINISHED, WAITING
from queuectl.store.channel import channel_owner, is_read
from queuectl.store.directory import DirectoryStore
from queuectl.store.names import (
    blocked_name,
    filed_name,
    id_in_name,
    is_pending_name,
    is_stranger,
    parse_filed,
    parse_processing,
)
from queuectl.store.place import DIRECTORIES, FILES, FOREIGN, FORMAT
from queuectl.store.roster import ABANDONED_SECONDS
from queuectl.store.spares import LEFT

ROOT = "."
_STILL_BEING_WRITTEN_SECONDS = 2.0
_ASIDE = "is moved to corrupt/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Tell what is wrong with which file, and what is to be done or was done about it.

    A ``note`` is no damage. ``where`` is a path inside the store.
    """

    what: str
    where: str
    action: str
    repaired: bool = False
    note: bool = False


def examine(location: str, *, repair: bool) -> Iterator[Finding]:
    """Yield what is wrong with the store at a directory, and repair it where that is asked for.

    Raises: what opening a store raises where it is none, a newer one, or somebody else's.
    """
    location = os.path.abspath(location)
    try:
        names = {*os.listdir(location)} - {*FOREIGN}
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreUnavailable(f"{location} cannot be read: {error.strerror}") from error
    if not names:
        return
    found = []
    if "format" in names or names <= {*DIRECTORIES, *FILES}:
        found = list(_check_directories(location, repair=repair))
        yield from found
    try:
        doctor = Doctor(location, repair=repair)
    except (UnsafeStore, StoreUnavailable) as error:
        if all(each.repaired for each in found):
            raise
        yield Finding(
            what="not looked at any further", where=ROOT, action=f"{error}; then again", note=True
        )
        return
    with closing(doctor):
        yield from doctor.check()


def _check_directories(location: str, *, repair: bool) -> Iterator[Finding]:
    """Check that the directories are there, are directories, and are this user's alone."""
    yield from _check_directory(location, ROOT, repair=repair)
    for name in DIRECTORIES:
        if not os.path.lexists(os.path.join(location, name)):
            action = "was made" if repair else "--repair makes it"
            yield Finding(what="missing directory", where=name, action=action, repaired=repair)
            continue  # it is made when the store is opened
        yield from _check_directory(location, name, repair=repair)
    blocked = os.path.join(location, State.BLOCKED)
    if not os.path.islink(blocked) and os.path.isdir(blocked):
        for name in os.listdir(blocked):
            if parse_filed(filed_name(name)) and os.path.isdir(os.path.join(blocked, name)):
                yield from _check_directory(location, f"{State.BLOCKED}/{name}", repair=repair)


def _check_directory(location: str, name: str, *, repair: bool) -> Iterator[Finding]:
    path = os.path.join(location, name)
    try:
        status = os.stat(path) if name == ROOT else os.lstat(path)
    except FileNotFoundError:
        return  # a directory of blocked/ goes with its last job
    if not stat.S_ISDIR(status.st_mode):
        yield Finding(what="no directory", where=name, action="replace it by a directory")
    elif status.st_uid != os.geteuid():
        yield Finding(
            what=f"belongs to user {status.st_uid}", where=name, action="give it to its user"
        )
    # A directory below one that gives its group to what is made in it does so, too.
    elif (mode := stat.S_IMODE(status.st_mode)) & ~stat.S_ISGID != files.DIRECTORY_MODE:
        # The path of the store may lead through symlinks.
        real = os.path.realpath(path) if name == ROOT else path
        repaired = repair and files.set_mode(real, files.DIRECTORY_MODE, status)
        yield _mode_finding(mode, name, "0700", repaired=repaired)


def _mode_finding(mode: int, where: str, wanted: str, *, repaired: bool) -> Finding:
    action = f"was made {wanted}" if repaired else f"chmod {wanted}"
    return Finding(what=f"mode {mode:04o}", where=where, action=action, repaired=repaired)


@dataclass(frozen=True, slots=True)
class _Copy:
    """Be one of the documents of a job that lies in two places."""

    state: State
    name: str
    fd: int
    held: bool
    same: bool  # another name of a file that was met before
    rank: tuple[int, float, int]

    @property
    def where(self) -> str:
        return f"{self.state}/{self.name}"


class Doctor(DirectoryStore):
    """Be a store that is examined."""

    def __init__(self, location: str, *, repair: bool) -> None:
        """Open the store; with ``repair`` what is missing is made."""
        self._repair = repair
        self._format_problem = ""
        self._places: dict[str, str] = {}
        self._met_twice: set[str] = set()
        super().__init__(location, create=repair)
        self._dir_fds[ROOT] = os.dup(self._root_fd)

    def _check_format(self) -> bool:
        """Refuse a newer format, and take note of one that is broken."""
        try:
            known = super()._check_format()
        except ConfigError as error:
            try:
                data = self._read_root_file("format") or b""
            except ConfigError:
                data = b""
            if data.strip().lstrip(b"0").isdigit():
                raise
            self._format_problem = str(error)
            return True
        if not known:
            self._format_problem = "there is none"
        return known

    def check(self) -> Iterator[Finding]:
        """Yield all that is wrong."""
        for look in (
            self._check_root,
            self._check_jobs,
            self._check_met_twice,
            self._check_processing,
            self._check_parents,
            self._check_logs,
            self._check_tmp,
            self._check_workers,
        ):
            # Each is done before it is told: who reads slowly must not make others wait for a lock.
            yield from list(look())

    def _finding(self, what: str, where: str, advice: str, done: str) -> Finding:
        return Finding(
            what=what, where=where, action=done if self._repair else advice, repaired=self._repair
        )

    def _set_apart(self, directory: str, name: str, what: str, reason: str) -> Finding:
        """Move what has no place to corrupt/, if it is to be repaired; return what is told."""
        if self._repair:
            self._move_to_corrupt(directory, name, reason)
        where = name if directory == ROOT else f"{directory}/{name}"
        return self._finding(what, where, "--repair moves it to corrupt/", f"{reason}; {_ASIDE}")

    # --- the root ---

    def _check_root(self) -> Iterator[Finding]:
        for name in list(self._names(ROOT)):
            if name in DIRECTORIES or name in FOREIGN:
                continue
            if name not in FILES:
                yield Finding(what="foreign file", where=name, action="left alone", note=True)
            else:
                # A hand may stop the workers by `touch stop_workers`.
                yield from self._check_file(ROOT, name, any_mode=name == "stop_workers")
        if self._format_problem:
            yield from self._repair_format()
        yield from self._check_config()
        yield from self._check_stop()

    def _repair_format(self) -> Iterator[Finding]:
        advice = f"it must hold the number {FORMAT}"
        if self._exists(self._root_fd, "format") and not self._is_ours(ROOT, "format"):
            yield Finding(what="bad format", where="format", action=advice)
            return
        if self._repair:
            if "broken" in self._format_problem:
                self._move_to_corrupt(ROOT, "format", self._format_problem)
            self._write_root_file("format", f"{FORMAT}\n".encode())
        yield self._finding("bad format", "format", advice, "was written anew")

    def _check_config(self) -> Iterator[Finding]:
        try:
            self.settings()
            return
        except ConfigError:
            pass
        if not self._is_ours(ROOT, "config.json"):
            return
        with self._moving_into_pending():
            try:
                self.settings()  # somebody has set it right meanwhile
            except ConfigError as error:
                if self._repair:
                    good = self._good_settings()
                    self._move_to_corrupt(ROOT, "config.json", str(error))
                    self.change_config(lambda _: good)
                reason = str(error).removeprefix(f"{self.location}/config.json")
                yield self._finding(
                    "bad config",
                    "config.json",
                    f"{reason.lstrip(': ')}",
                    f"{reason.lstrip(': ')}; it {_ASIDE}, what could be read was kept",
                )

    def _good_settings(self) -> dict[str, object]:
        good: dict[str, object] = {}
        try:
            document = self.read_config()
        except ConfigError:
            return good
        for key, value in document.items():
            try:
                parse_value(key, str(value))
            except ConfigError:
                continue
            if isinstance(value, str | int | float) and not isinstance(value, bool):
                good[key] = value
        return good

    def _check_stop(self) -> Iterator[Finding]:
        fd = files.open_document(self._root_fd, "stop_workers")
        if fd is None:
            return
        try:
            age = time.time() - os.fstat(fd).st_mtime
            try:
                data = files.read_all(fd, 4096)
                if data.strip():
                    parse_object(data)
            except BadDocument as error:
                if not 0 <= age < _STILL_BEING_WRITTEN_SECONDS:
                    yield self._set_apart(ROOT, "stop_workers", "bad request to stop", str(error))
        finally:
            os.close(fd)

    # --- files, whatever they hold ---

    def _is_ours(self, directory: str, name: str) -> bool:
        """Tell whether a name is that of a regular file of this user."""
        try:
            status = os.stat(name, dir_fd=self._fd(directory), follow_symlinks=False)
        except FileNotFoundError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()

    def _check_file(
        self, directory: str, name: str, *, any_mode: bool = False
    ) -> Iterator[Finding]:
        """Check that a file is a regular one that is this user's alone."""
        where = name if directory == ROOT else f"{directory}/{name}"
        try:
            status = os.stat(name, dir_fd=self._fd(directory), follow_symlinks=False)
        except FileNotFoundError:
            return
        mode = stat.S_IMODE(status.st_mode)
        if status.st_uid != os.geteuid():
            yield Finding(
                what=f"belongs to user {status.st_uid}", where=where, action="take it away"
            )
        elif not stat.S_ISREG(status.st_mode):
            yield self._set_apart(directory, name, "no regular file", "it is no regular file")
        elif mode != files.FILE_MODE and not any_mode:
            if self._repair:
                if not files.set_mode(name, files.FILE_MODE, status, self._fd(directory)):
                    return  # it has moved on, and is met there
            elif not self._exists(self._fd(directory), name):
                return
            yield _mode_finding(mode, where, "0600", repaired=self._repair)

    # --- documents ---

    def _check_jobs(self) -> Iterator[Finding]:
        """Check each document, and take note of ids that are met twice."""
        for state in State:
            if state is State.BLOCKED:
                yield from self._check_blocked_names()
                continue
            for name in list(self._names(state)):
                if state is State.PENDING and is_stranger(name):
                    # It is adopted, whatever its mode, unless nobody may read it.
                    if self._is_ours(state, name) and not self._is_document(state, name):
                        yield from self._check_file(state, name)
                    continue
                job_id = id_in_name(state, name)
                if job_id is not None:
                    yield from self._check_job(state, name, job_id)
                elif state is State.PROCESSING and name.endswith(".json"):
                    yield from self._check_attemptless(name)
                else:
                    yield self._foreign(state, name)

    def _check_blocked_names(self) -> Iterator[Finding]:
        parents = set(self._parents())
        for name in list(self._names(State.BLOCKED)):
            fd = self._open_parent(name) if name in parents else None
            if fd is None:
                if self._exists(self._fd(State.BLOCKED), name):
                    yield self._foreign(State.BLOCKED, name)
                continue
            try:
                children = os.listdir(fd)
            finally:
                os.close(fd)
            for child in children:
                job_id = parse_filed(child)
                if job_id is None:
                    yield self._foreign(State.BLOCKED, f"{name}/{child}")
                else:
                    yield from self._check_job(State.BLOCKED, f"{name}/{child}", job_id)

    @staticmethod
    def _foreign(directory: str, name: str) -> Finding:
        return Finding(
            what="foreign file", where=f"{directory}/{name}", action="left alone", note=True
        )

    def _check_job(self, state: State, name: str, job_id: str) -> Iterator[Finding]:
        yield from self._check_file(state, name)
        if not self._is_ours(state, name):
            return
        if self._problem(state, name, job_id) is not None:
            finding = self._check_job_locked(state, name, job_id)
            if finding is not None:
                yield finding
        where = f"{state}/{name}"
        if self._places.setdefault(job_id, where) != where:
            self._met_twice.add(job_id)

    def _problem(self, state: State, name: str, job_id: str) -> Exception | str | None:
        """Return what is wrong with a document that is not locked, or moves; None for nothing."""
        fd = files.open_document(self._fd(state), name)
        if fd is None:
            return None
        try:
            return self._problem_in(fd, state, job_id)[0]
        finally:
            os.close(fd)

    def _problem_in(
        self, fd: int, state: State, job_id: str
    ) -> tuple[Exception | str | None, Job | None]:
        try:
            job = self._decode(files.read_all(fd, MAX_DOCUMENT_BYTES), job_id, utc_now())
        except NewerSchema as error:
            return error, None
        except BadDataError as error:
            return error, None
        except ConfigError:
            return None, None  # what it lacks is in a config that is broken, which was told
        # A claim leaves the document as it is, and recovery goes by the name.
        if state is not State.PROCESSING and job.id != job_id:
            return f"the document says that it is job {job.id}", job
        if state in FINISHED and job.state is not state:
            return f"the document says that it is {job.state}", job
        return None, job

    def _check_job_locked(self, state: State, name: str, job_id: str) -> Finding | None:
        where = f"{state}/{name}"
        with self._locked(state, name) as fd:
            if fd is None:
                return None
            problem, job = self._problem_in(fd, state, job_id)
            status = os.fstat(fd)
            age = time.time() - status.st_mtime
            if isinstance(problem, NewerSchema):
                return Finding(what="newer schema", where=where, action="upgrade queuectl")
            if isinstance(problem, Exception):
                if state in WAITING and 0 <= age < _STILL_BEING_WRITTEN_SECONDS:
                    return None
                return self._set_apart(state, name, "unreadable", str(problem))
            if problem is None or job is None:
                return None
            if self._repair:
                job = self._as_placed(job, state, name, job_id)
                recorded_fd = self._record_in_place(state, name, job)
                try:
                    os.utime(recorded_fd, ns=(status.st_atime_ns, status.st_mtime_ns))
                finally:
                    os.close(recorded_fd)
            return self._finding(
                "wrong document", where, f"{problem}; the name decides", f"{problem}; was set right"
            )

    def _check_attemptless(self, name: str) -> Iterator[Finding]:
        """Find a document in processing/ that no worker has put there, and none will find."""
        yield from self._check_file(State.PROCESSING, name)
        with self._locked(State.PROCESSING, name) as fd:
            if fd is None:
                return
            advice = "move it to pending/"
            if self._repair:
                if self._exists(self._fd(State.PENDING), name):
                    self._move_to_corrupt(State.PROCESSING, name, "it is no attempt")
                    advice = _ASIDE
                else:
                    with self._moving_into_pending():
                        self._move(State.PROCESSING, name, State.PENDING, name)
            yield self._finding(
                "no attempt", f"{State.PROCESSING}/{name}", advice, "was moved to pending/"
            )

    # --- a job in two places ---

    def _check_met_twice(self) -> Iterator[Finding]:
        """Find jobs that lie in two places at the same time (rule 1)."""
        if not self._met_twice:
            return
        with self._moving_into_pending():
            places: dict[str, list[tuple[State, str]]] = {}
            for state in State:
                for job_id, name in self._identified(state):
                    is_named = state is not State.PENDING or is_pending_name(name)
                    if job_id in self._met_twice and is_named:
                        places.setdefault(job_id, []).append((state, name))
            for job_id in sorted(places):
                if len(places[job_id]) > 1:
                    yield from self._check_copies(job_id, places[job_id])

    def _check_copies(self, job_id: str, places: list[tuple[State, str]]) -> Iterator[Finding]:
        opened: list[_Copy] = []
        try:
            inodes: set[tuple[int, int]] = set()
            for state, name in places:
                fd = files.open_document(self._fd(state), name)
                if fd is None:
                    continue
                status = os.fstat(fd)
                inode = (status.st_dev, status.st_ino)
                held = inode not in inodes and not files.lock(fd)
                opened.append(
                    _Copy(state, name, fd, held, inode in inodes, self._rank(fd, state, job_id))
                )
                inodes.add(inode)
            # RACE: what we hold cannot move any more, so what is there now is there at once. See
            # test_a_job_that_moves_meanwhile_is_not_in_two_places.
            copies = [
                each
                for each in opened
                if files.names_inode(self._fd(each.state), each.name, os.fstat(each.fd))
            ]
            yield from self._settle_copies(copies)
        finally:
            for each in opened:
                os.close(each.fd)

    def _rank(self, fd: int, state: State, job_id: str) -> tuple[int, float, int]:
        """Return what decides which of two documents is kept: the longer history, the later one."""
        order = list(State).index(state)
        _, job = self._problem_in(fd, state, job_id)
        if job is None:
            return -1, 0.0, order
        return len(job.history) + job.history_omitted, job.updated_at.timestamp(), order

    def _settle_copies(self, copies: list[_Copy]) -> Iterator[Finding]:
        if len(copies) < 2:
            return
        kept = max(copies, key=lambda each: (each.held, not each.same, each.rank))
        for copy in copies:
            if copy is kept:
                continue
            what = "a job in two places"
            if copy.held:
                yield Finding(
                    what=what, where=copy.where, action=f"{kept.where} runs, too: end one of them"
                )
            elif copy.same:
                if self._repair:
                    os.unlink(copy.name, dir_fd=self._fd(copy.state))
                yield self._finding(
                    what, copy.where, f"it is {kept.where} as well", f"{kept.where} is kept"
                )
            else:
                reason = f"the job is in {kept.where}, which is " + (
                    "held" if kept.held else "the later one"
                )
                yield self._set_apart(copy.state, copy.name, what, reason)

    # --- attempts that belong to nobody ---

    def _check_processing(self) -> Iterator[Finding]:
        """Find documents in processing/ that nobody holds (rule 8)."""
        found: dict[tuple[str, int], tuple[str, str, str]] = {}
        for name in list(self._names(State.PROCESSING)):
            parsed = parse_processing(name)
            if parsed is None:
                continue
            with self._locked(State.PROCESSING, name) as fd:
                if fd is None:
                    continue
                _, job = self._problem_in(fd, State.PROCESSING, parsed[0])
                if job is None:
                    continue
                what = "attempt of nobody"
                advice = "a worker, or --repair, records it as lost"
                if job.next_attempt > parsed[1]:
                    what = "ended attempt that did not move on"
                    advice = f"a worker, or --repair, moves it to {job.state}/"
                found[parsed] = (what, f"{State.PROCESSING}/{name}", advice)
        if not found or not self._repair:
            for what, where, advice in found.values():
                yield Finding(what=what, where=where, action=advice)
            return
        report = self.recover(self._decide)
        for each in report.recovered:
            key = (each.job.id, each.attempt)
            what, where, _ = found.pop(key, ("attempt of nobody", each.job.id, ""))
            how = "was recorded as lost" if each.lost else "was recorded"
            action = f"{how} and moved to {each.job.state}/"
            yield Finding(what=what, where=where, action=action, repaired=True)
        # RACE: what is left was recovered by a worker meanwhile.
        if report.problems:
            raise StoreError(report.problems[0])

    def _decide(self, job: Job, attempt: Attempt) -> Job:
        return after_attempt(job, attempt, self.settings(), utc_now(), random.random())

    # --- what belongs to a job ---

    def _check_parents(self) -> Iterator[Finding]:
        """Find jobs that wait for one that is gone."""
        parents = list(self._parents())
        if not set(parents) - self.find(parents).keys():
            return
        with self._moving_into_pending():
            gone = sorted(set(parents) - self.find(parents).keys())
            for parent in gone:
                for job_id in list(self._children(parent)):
                    finding = self._check_orphan(parent, job_id)
                    if finding is not None:
                        yield finding

    def _check_orphan(self, parent: str, job_id: str) -> Finding | None:
        name = blocked_name(parent, job_id)
        with self._locked(State.BLOCKED, name) as fd:
            if fd is None:
                return None
            problem, job = self._problem_in(fd, State.BLOCKED, job_id)
            if problem is not None or job is None:
                return None
            filed = filed_name(job_id)
            if self._exists(self._fd(State.CANCELLED), filed):
                return None  # it is in two places, which was told
            if self._repair:
                self._move(State.BLOCKED, name, State.CANCELLED, filed)
                job = job._replace(id=job_id, state=State.CANCELLED, updated_at=utc_now())
                os.close(self._record_in_place(State.CANCELLED, filed, job))
        return self._finding(
            f"waits for {parent}, which is gone",
            f"{State.BLOCKED}/{name}",
            f"'queuectl cancel {job_id}', as --repair does",
            f"was cancelled; 'queuectl retry {job_id}' runs it",
        )

    def _check_logs(self) -> Iterator[Finding]:
        """Find logs that no job has; a job may well have no log."""
        logs: dict[str, list[str]] = {}
        for name in list(self._names("logs")):
            parsed = parse_log_name(name)
            if parsed is None:
                yield self._foreign("logs", name)
                continue
            yield from self._check_file("logs", name)
            logs.setdefault(parsed[0], []).append(name)
        # After the logs: who has one was there by then, and jobs only move forward.
        for job_id in self.find(logs):
            del logs[job_id]
        for job_id in self._corrupt_ids() & logs.keys():
            del logs[job_id]
        if not logs:
            return
        with self._moving_into_pending():
            for job_id in logs.keys() - self.find(logs).keys():
                for name in logs[job_id]:
                    # A purge deletes the logs before the job.
                    if self._exists(self._fd("logs"), name):
                        reason = f"there is no job {job_id}"
                        yield self._set_apart("logs", name, "log of no job", reason)

    # --- what processes leave behind ---

    def _check_tmp(self) -> Iterator[Finding]:
        owners = {str(record.pid) for record in self.workers()}
        for name in list(self._names("tmp")):
            parts = name.split(".")
            if parts[0] == "spare" and parts[1:2] and parts[1] in owners:
                continue  # a live worker writes to it again when there is a job
            if name.startswith(LEFT):
                continue  # the next worker takes it, or tidies it away
            with self._locked("tmp", name) as fd:
                if fd is None or time.time() - os.fstat(fd).st_mtime < ABANDONED_SECONDS:
                    continue
                if self._repair:
                    os.unlink(name, dir_fd=self._fd("tmp"))
            yield self._finding(
                "abandoned file", f"tmp/{name}", "a worker, or --repair, removes it", "was removed"
            )

    def _is_directory(self, directory: str, name: str) -> bool:
        try:
            status = os.stat(name, dir_fd=self._fd(directory), follow_symlinks=False)
        except FileNotFoundError:
            return False
        return stat.S_ISDIR(status.st_mode)

    def _check_workers(self) -> Iterator[Finding]:
        """Find what workers left that are gone: a record that can be locked, a FIFO without one."""
        stale = []
        for name in list(self._names("workers")):
            owner = channel_owner(name)
            if owner is not None:
                if self._is_directory("workers", name):
                    yield self._foreign("workers", name)
                    continue
                is_alone = not self._exists(self._fd("workers"), filed_name(owner))
                if is_alone and not is_read(self._fd("workers"), owner):
                    stale.append(name)
            elif not name.endswith(".json"):
                yield self._foreign("workers", name)
            else:
                yield from self._check_file("workers", name)
                with self._locked("workers", name) as fd:
                    if fd is not None and not self._tells_of_a_running_job(fd):
                        stale.append(name)
        if stale and self._repair:
            self.tidy()
        for name in stale:
            # RACE: it may have been removed by its worker, which has just left.
            if self._repair or self._exists(self._fd("workers"), name):
                yield self._finding(
                    "record of a worker that is gone",
                    f"workers/{name}",
                    "a worker, or --repair, removes it",
                    "was removed",
                )

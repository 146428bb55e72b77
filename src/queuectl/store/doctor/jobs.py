"""Check each document by itself."""

import os
import time
from collections.abc import Iterator

from queuectl.document import NewerSchema
from queuectl.job import WAITING, State
from queuectl.store import files
from queuectl.store.doctor.case import ASIDE, Case, Finding, foreign
from queuectl.store.documents import STILL_BEING_WRITTEN_SECONDS, as_placed
from queuectl.store.names import id_in_name, is_stranger, parse_filed


def check_jobs(case: Case) -> Iterator[Finding]:
    """Check each document, and take note of ids that are met twice."""
    for state in State:
        if state is State.BLOCKED:
            yield from _check_blocked_names(case)
            continue
        for name in list(case.directory.names(state)):
            if state is State.PENDING and is_stranger(name):
                # It is adopted, whatever its mode, unless nobody may read it.
                if case.is_ours(state, name) and not case.documents.is_document(state, name):
                    yield from case.check_file(state, name)
                continue
            job_id = id_in_name(state, name)
            if job_id is not None:
                yield from _check_job(case, state, name, job_id)
            elif state is State.PROCESSING and name.endswith(".json"):
                yield from _check_attemptless(case, name)
            else:
                yield foreign(state, name)


def _check_blocked_names(case: Case) -> Iterator[Finding]:
    parents = set(case.core.index.parents())
    for name in list(case.directory.names(State.BLOCKED)):
        parent_fd = case.core.index.open_parent(name) if name in parents else None
        with files.closing(parent_fd) as fd:
            children = [] if fd is None else os.listdir(fd)
        if parent_fd is None and case.directory.exists(State.BLOCKED, name):
            yield foreign(State.BLOCKED, name)
        for child in children:
            job_id = parse_filed(child)
            if job_id is None:
                yield foreign(State.BLOCKED, f"{name}/{child}")
            else:
                yield from _check_job(case, State.BLOCKED, f"{name}/{child}", job_id)


def _check_job(case: Case, state: State, name: str, job_id: str) -> Iterator[Finding]:
    yield from case.check_file(state, name)
    if not case.is_ours(state, name):
        return
    if _problem(case, state, name, job_id) is not None:
        finding = _check_job_locked(case, state, name, job_id)
        if finding is not None:
            yield finding
    where = f"{state}/{name}"
    if case.places.setdefault(job_id, where) != where:
        case.met_twice.add(job_id)


def _problem(case: Case, state: State, name: str, job_id: str) -> Exception | str | None:
    """Return what is wrong with a document that is not locked, or moves; None for nothing."""
    with files.closing(files.open_document(case.directory.fd(state), name)) as fd:
        return None if fd is None else case.problem_in(fd, state, job_id)[0]


def _check_job_locked(case: Case, state: State, name: str, job_id: str) -> Finding | None:
    where = f"{state}/{name}"
    with case.documents.locked(state, name) as fd:
        if fd is None:
            return None
        problem, job = case.problem_in(fd, state, job_id)
        status = os.fstat(fd)
        age = time.time() - status.st_mtime
        if isinstance(problem, NewerSchema):
            return Finding("newer schema", where, "upgrade queuectl")
        if isinstance(problem, Exception):
            if state in WAITING and 0 <= age < STILL_BEING_WRITTEN_SECONDS:
                return None
            return case.set_apart(state, name, "unreadable", str(problem))
        if problem is None or job is None:
            return None
        if case.repair:
            job = as_placed(job, state, name, job_id)
            with files.closing(case.documents.record(state, name, job)) as recorded_fd:
                os.utime(recorded_fd, ns=(status.st_atime_ns, status.st_mtime_ns))
        return case.finding(
            "wrong document", where, f"{problem}; the name decides", f"{problem}; was set right"
        )


def _check_attemptless(case: Case, name: str) -> Iterator[Finding]:
    """Find a document in processing/ that no worker has put there, and none will find."""
    yield from case.check_file(State.PROCESSING, name)
    with case.documents.locked(State.PROCESSING, name) as fd:
        if fd is None:
            return
        advice = "move it to pending/"
        if case.repair:
            if case.directory.exists(State.PENDING, name):
                case.documents.set_aside(State.PROCESSING, name, "it is no attempt")
                advice = ASIDE
            else:
                with case.core.lock.held():
                    case.documents.move(State.PROCESSING, name, State.PENDING, name)
        yield case.finding(
            "no attempt", f"{State.PROCESSING}/{name}", advice, "was moved to pending/"
        )

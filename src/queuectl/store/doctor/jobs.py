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
    with files.closing(files.open_document(case.directory.fd(state), name)) as fd:
        problem = None if fd is None else case.problem_in(fd, state, job_id)[0]
    if problem is not None:  # unless it moves
        yield from _check_job_locked(case, state, name, job_id)
    where = f"{state}/{name}"
    if case.places.setdefault(job_id, where) != where:
        case.met_twice.add(job_id)


def _check_job_locked(case: Case, state: State, name: str, job_id: str) -> Iterator[Finding]:
    where = f"{state}/{name}"
    with case.documents.locked(state, name) as fd:
        if fd is None:
            return
        problem, job = case.problem_in(fd, state, job_id)
        status = os.fstat(fd)
        age = time.time() - status.st_mtime
        if isinstance(problem, NewerSchema):
            yield Finding("newer schema", where, "upgrade queuectl")
        elif isinstance(problem, Exception):
            if state not in WAITING or not 0 <= age < STILL_BEING_WRITTEN_SECONDS:
                yield case.set_apart(state, name, "unreadable", str(problem))
        elif problem is not None and job is not None:
            if case.repair:
                job = as_placed(job, state, name, job_id)
                with files.closing(case.documents.record(state, name, job)) as recorded_fd:
                    os.utime(recorded_fd, ns=(status.st_atime_ns, status.st_mtime_ns))
            advice, done = f"{problem}; the name decides", f"{problem}; was set right"
            yield case.finding("wrong document", where, advice, done)


def _check_attemptless(case: Case, name: str) -> Iterator[Finding]:
    """Find a document in processing/ that no worker has put there, and none will find."""
    yield from case.check_file(State.PROCESSING, name)
    with case.documents.locked(State.PROCESSING, name) as fd:
        if fd is None:
            return
        done = "was moved to pending/"
        if case.repair:
            if case.directory.exists(State.PENDING, name):
                case.documents.set_aside(State.PROCESSING, name, "it is no attempt")
                done = f"it is no attempt; {ASIDE}"
            else:
                with case.core.lock.held():
                    case.documents.move(State.PROCESSING, name, State.PENDING, name)
        where = f"{State.PROCESSING}/{name}"
        yield case.finding("no attempt", where, "move it to pending/", done)

"""Find jobs that are in two places at the same time (rule 1), and keep one of them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from queuectl.job import State
from queuectl.store import files
from queuectl.store.doctor.case import Case, Finding
from queuectl.store.names import is_pending_name


@dataclass(frozen=True, slots=True)
class _Copy:
    """One of the documents of a job that is in two places."""

    state: State
    name: str
    fd: int
    held: bool
    same: bool  # another name of a file that was met before
    rank: tuple[int, float, int]

    @property
    def where(self) -> str:
        """Return its path inside the store."""
        return f"{self.state}/{self.name}"


def check_met_twice(case: Case) -> Iterator[Finding]:
    """Find jobs that lie in two places at the same time (rule 1)."""
    if not case.met_twice:
        return
    with case.core.lock.held():
        places: dict[str, list[tuple[State, str]]] = {}
        for state in State:
            for job_id, name in case.core.index.identified(state):
                is_named = state is not State.PENDING or is_pending_name(name)
                if job_id in case.met_twice and is_named:
                    places.setdefault(job_id, []).append((state, name))
        for job_id in sorted(places):
            if len(places[job_id]) > 1:
                yield from _check_copies(case, job_id, places[job_id])


def _check_copies(case: Case, job_id: str, places: list[tuple[State, str]]) -> Iterator[Finding]:
    opened: list[_Copy] = []
    try:
        inodes: set[tuple[int, int]] = set()
        for state, name in places:
            fd = files.open_document(case.directory.fd(state), name)
            if fd is None:
                continue
            status = os.fstat(fd)
            inode = (status.st_dev, status.st_ino)
            held = inode not in inodes and not files.lock(fd)
            opened.append(
                _Copy(state, name, fd, held, inode in inodes, _rank(case, fd, state, job_id))
            )
            inodes.add(inode)
        # RACE: what we hold cannot move any more, so what is there now is there at once. See
        # test_a_job_that_moves_meanwhile_is_not_in_two_places.
        copies = [
            each
            for each in opened
            if files.names_inode(case.directory.fd(each.state), each.name, os.fstat(each.fd))
        ]
        yield from _settle_copies(case, copies)
    finally:
        for each in opened:
            os.close(each.fd)


def _rank(case: Case, fd: int, state: State, job_id: str) -> tuple[int, float, int]:
    """Return what decides which of two documents is kept: the longer history, the later one."""
    order = list(State).index(state)
    _, job = case.problem_in(fd, state, job_id)
    if job is None:
        return -1, 0.0, order
    return len(job.history) + job.history_omitted, job.updated_at.timestamp(), order


def _settle_copies(case: Case, copies: list[_Copy]) -> Iterator[Finding]:
    if len(copies) < 2:
        return
    kept = max(copies, key=lambda each: (each.held, not each.same, each.rank))
    for copy in copies:
        if copy is kept:
            continue
        what = "a job in two places"
        if copy.held:
            yield Finding(what, copy.where, f"{kept.where} runs, too: end one of them")
        elif copy.same:
            if case.repair:
                os.unlink(copy.name, dir_fd=case.directory.fd(copy.state))
            advice = f"it is {kept.where} as well"
            yield case.finding(what, copy.where, advice, f"{kept.where} is kept")
        else:
            how = "held" if kept.held else "the later one"
            reason = f"the job is in {kept.where}, which is {how}"
            yield case.set_apart(copy.state, copy.name, what, reason)

"""Find what belongs to a job that is gone: blocked jobs that wait for it, and its logs."""

import os
from collections.abc import Iterator

from queuectl.clock import utc_now
from queuectl.job import State
from queuectl.store.doctor.case import Case, Finding, foreign
from queuectl.store.logs import parse_log_name
from queuectl.store.names import blocked_name, filed_name


def check_parents(case: Case) -> Iterator[Finding]:
    """Find jobs that wait for one that is gone."""
    parents = list(case.core.index.parents())
    if not set(parents) - case.lookup.find(parents).keys():
        return
    with case.core.lock.held():
        gone = sorted(set(parents) - case.lookup.find(parents).keys())
        for parent in gone:
            for job_id in list(case.core.index.children(parent)):
                yield from _check_orphan(case, parent, job_id)


def _check_orphan(case: Case, parent: str, job_id: str) -> Iterator[Finding]:
    name, filed = blocked_name(parent, job_id), filed_name(job_id)
    with case.documents.locked(State.BLOCKED, name) as fd:
        if fd is None:
            return
        problem, job = case.problem_in(fd, State.BLOCKED, job_id)
        # If it is in cancelled/ as well, it was reported as being in two places.
        if problem is not None or job is None or case.directory.exists(State.CANCELLED, filed):
            return
        if case.repair:
            case.documents.move(State.BLOCKED, name, State.CANCELLED, filed)
            job = job._replace(id=job_id, state=State.CANCELLED, updated_at=utc_now())
            os.close(case.documents.record(State.CANCELLED, filed, job))
    yield case.finding(
        f"waits for {parent}, which is gone",
        f"{State.BLOCKED}/{name}",
        f"'queuectl cancel {job_id}', as --repair does",
        f"was cancelled; 'queuectl retry {job_id}' runs it",
    )


def check_logs(case: Case) -> Iterator[Finding]:
    """Find logs that no job has; a job may well have no log."""
    logs: dict[str, list[str]] = {}
    for name in list(case.directory.names("logs")):
        parsed = parse_log_name(name)
        if parsed is None:
            yield foreign("logs", name)
            continue
        yield from case.check_file("logs", name)
        logs.setdefault(parsed[0], []).append(name)
    # After the logs: who has one was there by then, and jobs only move forward.
    for job_id in case.lookup.find(logs).keys() | case.store.purging.corrupt_ids() & logs.keys():
        del logs[job_id]
    if not logs:
        return
    with case.core.lock.held():
        for job_id in logs.keys() - case.lookup.find(logs).keys():
            for name in logs[job_id]:
                # A purge deletes the logs before the job.
                if case.directory.exists("logs", name):
                    reason = f"there is no job {job_id}"
                    yield case.set_apart("logs", name, "log of no job", reason)

"""Find attempts in progress that belong to nobody (rule 8), and recover them."""

import random
from collections.abc import Iterator
from functools import partial

from queuectl.clock import utc_now
from queuectl.errors import StoreError
from queuectl.job import Attempt, Job, State
from queuectl.policy import after_attempt
from queuectl.store.doctor.case import Case, Finding
from queuectl.store.names import parse_processing


def check_processing(case: Case) -> Iterator[Finding]:
    """Find documents in processing/ that nobody holds (rule 8)."""
    found: dict[tuple[str, int], tuple[str, str, str]] = {}
    for name in list(case.directory.names(State.PROCESSING)):
        parsed = parse_processing(name)
        if parsed is None:
            continue
        with case.documents.locked(State.PROCESSING, name) as fd:
            if fd is None:
                continue
            _, job = case.problem_in(fd, State.PROCESSING, parsed[0])
            if job is None:
                continue
            what = "attempt of nobody"
            advice = "a worker, or --repair, records it as lost"
            if job.next_attempt > parsed[1]:
                what = "ended attempt that did not move on"
                advice = f"a worker, or --repair, moves it to {job.state}/"
            found[parsed] = (what, f"{State.PROCESSING}/{name}", advice)
    if not found or not case.repair:
        for what, where, advice in found.values():
            yield Finding(what, where, advice)
        return
    report = case.store.pool.recover(partial(_decide, case))
    for each in report.recovered:
        key = (each.job.id, each.attempt)
        what, where, _ = found.pop(key, ("attempt of nobody", each.job.id, ""))
        how = "was recorded as lost" if each.lost else "was recorded"
        yield Finding(what, where, f"{how} and moved to {each.job.state}/", repaired=True)
    # RACE: what is left was recovered by a worker meanwhile.
    if report.problems:
        raise StoreError(report.problems[0])


def _decide(case: Case, job: Job, attempt: Attempt) -> Job:
    return after_attempt(job, attempt, case.core.settings.current(), utc_now(), random.random())

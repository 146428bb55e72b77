"""Decide what becomes of a job after an attempt: pure functions of job, attempt, settings, now."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime

from queuectl.clock import later
from queuectl.codes import includes
from queuectl.config import Settings
from queuectl.job import FINISHED, Attempt, Job, Outcome, State


def backoff_seconds(attempts: int, settings: Settings, fraction: float) -> float:
    """Return how long a job waits after its failed attempt number ``attempts``.

    Units: seconds; ``fraction`` is a random number from 0 up to 1. The jitter comes off after the
    cap, so that jobs at the ceiling do not all come back at once.
    Source: min(base ** attempts, cap), exponential backoff with a proportional jitter.
    """
    try:
        delay = min(settings.backoff_base**attempts, settings.backoff_max)
    except OverflowError:
        delay = settings.backoff_max
    return delay * (1 - settings.backoff_jitter * fraction)


def after_attempt(
    job: Job, attempt: Attempt, settings: Settings, now: datetime, fraction: float
) -> Job:
    """Return the job as it stands after an attempt: completed, cancelled, dead, or pending again.

    A failed attempt is counted; below max_retries (0 is taken as 1) the job is pending again, due
    after the backoff, unless its exit code forbids that; else it is dead.
    """
    job = job.with_attempt(attempt)
    if attempt.outcome is Outcome.SUCCEEDED:
        return job._replace(updated_at=now, state=State.COMPLETED)
    if attempt.outcome is Outcome.CANCELLED:
        return job._replace(updated_at=now, state=State.CANCELLED)
    job = job._replace(updated_at=now, attempts=job.attempts + 1)
    if job.attempts >= job.max_retries or not is_worth_retrying(job, attempt):
        return job._replace(state=State.DEAD)
    run_at = later(now, backoff_seconds(job.attempts, settings, fraction))
    return job._replace(state=State.PENDING, run_at=run_at)


def is_worth_retrying(job: Job, attempt: Attempt) -> bool:
    """Tell whether the job's rules about exit codes allow another attempt after a failed one.

    One that has no exit code of its own (killed by a signal, timed out, lost, not started) says
    nothing about the next; it is always allowed. A code in both rules is not retried.
    """
    code = attempt.exit_code
    if code is None or attempt.outcome not in (Outcome.FAILED, Outcome.NOT_FOUND):
        return True
    if job.no_retry_on is not None and includes(job.no_retry_on, code):
        return False
    return job.retry_on is None or includes(job.retry_on, code)


def retried(job: Job, now: datetime) -> Job:
    """Return the job as a person's retry makes it: pending, due now, attempts 0, history kept."""
    return job._replace(state=State.PENDING, attempts=0, run_at=now, updated_at=now)


def find_circle(waiting: Mapping[str, Sequence[str]]) -> list[str]:
    """Return jobs of which each waits for the next, and the last for the first.

    ``waiting`` has the parents of each job that waits. Where there is no circle, the list is empty.
    """
    seen: set[str] = set()
    for start in waiting:
        path: dict[str, Iterator[str]] = {}
        each: str | None = None if start in seen else start
        while each is not None:
            if each in path:
                ids = list(path)
                return ids[ids.index(each) :]
            if each in waiting and each not in seen:
                seen.add(each)
                path[each] = iter(waiting[each])
            each = None
            while path and each is None:
                last = next(reversed(path))
                each = next(path[last], None)
                if each is None:
                    del path[last]
    return []


def waits_for(
    job: Job, state_of: Callable[[str], State | None], under: str | None = None
) -> str | None:
    """Return the first parent that a job still waits for, None if it may run.

    Those in ``after`` must have completed; of the others, any end will do. Who is in both must have
    completed. A parent whose state is not known has not ended. ``under`` is the parent that it
    waits for already, and goes on waiting for, whatever happens to the others, until that lets it
    go: so what is seen of a blocked job does not depend on who looked at it last.
    """
    parents = (*job.after, *job.after_any)
    if under in parents:
        parents = (under, *parents)
    return next((each for each in parents if not _is_met(job, each, state_of(each))), None)


def _is_met(job: Job, parent: str, state: State | None) -> bool:
    if parent in job.after:
        return state is State.COMPLETED
    return state in FINISHED

"""The decisions about a job: what follows an attempt, and what it waits for. Pure functions."""

from collections.abc import Callable, Collection, Container, Mapping, Sequence
from datetime import datetime

from queuectl.clock import later
from queuectl.codes import includes
from queuectl.config import Settings
from queuectl.errors import CircularWait, UnknownParent
from queuectl.job import FINISHED, Attempt, Job, State

_SLACK_SECONDS = 10.0  # what a clock that is set right again and again may go back by
_AT_ONCE_SECONDS = 2.0  # jobs of one batch are due a microsecond after each other


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

    A failed attempt counts. While attempts are left, the job is pending again, due after the
    backoff, unless its exit code forbids that; otherwise it is dead.
    """
    state, attempts, run_at = attempt.meaning.state, job.attempts, job.run_at
    if state is None:
        attempts += 1
        if attempts >= attempts_allowed(job) or not is_worth_retrying(job, attempt):
            state = State.DEAD
        else:
            state = State.PENDING
            run_at = later(now, backoff_seconds(attempts, settings, fraction))
    return job.with_attempt(attempt, state=state, attempts=attempts, run_at=run_at, updated_at=now)


def attempts_allowed(job: Job) -> int:
    """Return how many attempts a job gets: max_retries, and at least one."""
    return max(job.max_retries, 1)


def attempts_used(job: Job) -> int:
    """Return how many attempts a job has used since it was added or last retried by a person.

    ``attempts`` counts failures; one more attempt is running, or completed or cancelled the job.
    """
    if job.state is State.PROCESSING:
        return min(job.attempts + 1, attempts_allowed(job))
    last = job.history[-1].meaning.state if job.history else None
    return job.attempts + (last is job.state)


def is_worth_retrying(job: Job, attempt: Attempt) -> bool:
    """Return whether the job's rules about exit codes allow another attempt after a failed one.

    They judge exit codes of commands only: after a signal, a timeout, a loss or a failed start
    another attempt is always allowed. A code that is in both rules is not retried.
    """
    code = attempt.exit_code
    if code is None or attempt.meaning.shell_code is not None:
        return True
    if job.no_retry_on is not None and includes(job.no_retry_on, code):
        return False
    return job.retry_on is None or includes(job.retry_on, code)


def put_off_by_clock(job: Job, now: datetime) -> float | None:
    """Return for how many seconds a pending job is to wait, after the clock was set back.

    None if no clock was: only a job that was recorded later than now proves that. Nor is an instant
    or a delay that a person asked for touched: nobody knows by which clock they meant it. What was
    to run at once, or after a backoff, was due that long after it was recorded.
    """
    waits_seconds = (job.run_at - job.updated_at).total_seconds()
    if (job.updated_at - now).total_seconds() <= _SLACK_SECONDS or waits_seconds < 0:
        return None  # that due time comes from this repair, or from a person who renamed the file
    if waits_seconds <= _AT_ONCE_SECONDS:
        return 0.0
    return waits_seconds if job.attempts else None


def retried(job: Job, now: datetime) -> Job:
    """Return the job as a person's retry makes it: pending, due now, attempts 0, history kept."""
    return job._replace(state=State.PENDING, attempts=0, run_at=now, updated_at=now)


def without_missing_parents(job: Job, found: Container[str]) -> Job:
    """Return the job without the parents that are not found: they may have been purged."""
    return job._replace(
        after=tuple(each for each in job.after if each in found),
        after_any=tuple(each for each in job.after_any if each in found),
    )


def places(jobs: Collection[Job], found: Mapping[str, State]) -> dict[str, str]:
    """Return which new jobs have to wait, each with the parent that it is placed under.

    ``found`` says where the jobs are that exist; a job may also wait for another new one.
    Raises: UnknownParent, CircularWait.
    """
    known = {**found, **{job.id: State.PENDING for job in jobs}}
    places = {}
    waiting = {}
    for job in jobs:
        for parent in job.parents:
            if parent not in known:
                raise UnknownParent(job.id, parent)
        under = waits_for(job, known.get)
        if under is not None:
            places[job.id] = under
            waiting[job.id] = job.parents
    circle = find_circle(waiting)
    if circle:
        raise CircularWait(circle)
    return places


def find_circle(waiting: Mapping[str, Sequence[str]]) -> list[str]:
    """Return jobs that wait in a circle, each for the next; ``waiting`` maps jobs to parents."""
    from graphlib import CycleError, TopologicalSorter

    sorter: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(waiting, ()))
    for each, parents in waiting.items():
        for parent in parents:
            sorter.add(parent, each)
    try:
        sorter.prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle[:-1]
    return []


def waits_for(
    job: Job, state_of: Callable[[str], State | None], under: str | None = None
) -> str | None:
    """Return the first parent that a job still waits for, None if it may run.

    A parent in ``after`` must have completed, also if it is in ``after_any``; of the others, any
    end will do. A parent of unknown state has not ended. ``under`` is the parent that the job is
    blocked by already, and stays blocked by until that one releases it: so what is seen of a
    blocked job does not depend on who looked at it last.
    """
    parents = job.parents
    if under in parents:
        parents = (under, *parents)
    return next((each for each in parents if not _is_met(job, each, state_of(each))), None)


def _is_met(job: Job, parent: str, state: State | None) -> bool:
    return state is State.COMPLETED if parent in job.after else state in FINISHED

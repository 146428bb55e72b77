"""What becomes of a job after an attempt, as pure functions decide it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.jobs import NOON, make_job

from queuectl.clock import later
from queuectl.config import Settings
from queuectl.job import Attempt, Job, Outcome, State
from queuectl.policy import after_attempt, attempts_used, backoff_seconds, find_circle, retried

FAILURES = [outcome for outcome in Outcome if outcome not in (Outcome.SUCCEEDED, Outcome.CANCELLED)]


def attempt(outcome: Outcome, number: int = 1) -> Attempt:
    """Return the record of an attempt that ended so."""
    return Attempt(
        number=number,
        worker="w-abcd",
        started_at=NOON,
        finished_at=later(NOON, 1.5),
        duration_seconds=1.5,
        exit_code=None,
        signal=None,
        outcome=outcome,
        log=f"a.{number}.log",
    )


def decided(job: Job, outcome: Outcome, **settings: float) -> Job:
    """Return the job after one more attempt."""
    values = Settings(**settings)  # type: ignore[arg-type]
    return after_attempt(job, attempt(outcome, job.next_attempt), values, NOON, 0.5)


@pytest.mark.parametrize(
    ("attempts", "seconds"),
    [(1, 2.0), (2, 4.0), (3, 8.0), (11, 2048.0), (12, 3600.0), (1000, 3600.0), (10**9, 3600.0)],
)
def test_backoff_doubles_up_to_an_hour(attempts: int, seconds: float) -> None:
    """The wait is base to the power of attempts, and backoff-max at most, however many."""
    assert backoff_seconds(attempts, Settings(), 0.0) == seconds


def test_backoff_of_base_one_is_a_second_each_time() -> None:
    """A base of 1 means the same short wait after every attempt."""
    assert {backoff_seconds(n, Settings(backoff_base=1.0), 0.0) for n in (1, 5, 900)} == {1.0}


@pytest.mark.parametrize(("fraction", "seconds"), [(0.0, 3600.0), (0.5, 2700.0), (1.0, 1800.0)])
def test_jitter_comes_off_after_the_cap(fraction: float, seconds: float) -> None:
    """Jobs at the ceiling do not come back all at once."""
    assert backoff_seconds(40, Settings(backoff_jitter=0.5), fraction) == seconds


def test_success_completes_and_does_not_count() -> None:
    """A job that succeeded is completed; its failed attempts stay as they were."""
    job = decided(make_job("a", attempts=2), Outcome.SUCCEEDED)
    assert (job.state, job.attempts, job.updated_at) == (State.COMPLETED, 2, NOON)
    assert [each.outcome for each in job.history] == [Outcome.SUCCEEDED]


def test_cancelled_attempt_is_recorded_and_does_not_count() -> None:
    """A cancelled job stays so, whatever attempts are left."""
    job = decided(make_job("a"), Outcome.CANCELLED)
    assert (job.state, job.attempts, len(job.history)) == (State.CANCELLED, 0, 1)


@pytest.mark.parametrize("outcome", FAILURES)
def test_every_other_outcome_is_a_failure(outcome: Outcome) -> None:
    """Whatever went wrong counts as an attempt, and the job is due again after the backoff."""
    job = decided(make_job("a"), outcome)
    assert (job.state, job.attempts, job.run_at) == (State.PENDING, 1, later(NOON, 2.0))
    assert job.history[-1].outcome is outcome


@pytest.mark.parametrize("outcome", FAILURES)
def test_last_failure_is_death(outcome: Outcome) -> None:
    """A job is dead when it has failed max_retries times."""
    job = decided(make_job("a", attempts=2), outcome)
    assert (job.state, job.attempts) == (State.DEAD, 3)


@pytest.mark.parametrize("max_retries", [0, 1])
def test_no_retries_is_one_run(max_retries: int) -> None:
    """Both 0 and 1 mean that a job runs once."""
    assert decided(make_job("a", max_retries=max_retries), Outcome.FAILED).state is State.DEAD


def test_job_that_was_moved_out_of_the_dead_has_one_more_run() -> None:
    """A job whose attempts are used up already dies of its next failure."""
    job = decided(make_job("a", attempts=7), Outcome.FAILED)
    assert (job.state, job.attempts) == (State.DEAD, 8)


def test_history_keeps_its_first_and_its_last_attempts() -> None:
    """However often a job runs, its document stays small, and the count of attempts true."""
    job = make_job("a", max_retries=1_000_000)
    for _ in range(5_000):
        job = decided(job, Outcome.FAILED)
    assert [each.number for each in job.history] == [*range(1, 11), *range(4_961, 5_001)]
    assert (job.attempts, job.history_omitted, job.next_attempt) == (5_000, 4_950, 5_001)


def test_history_of_an_older_version_is_shortened_by_the_next_attempt() -> None:
    """It may hold any number, and none is counted twice."""
    attempts = tuple(attempt(Outcome.FAILED, number) for number in range(1, 301))
    job = decided(make_job("a", history=attempts, attempts=300), Outcome.SUCCEEDED)
    assert (len(job.history), job.history_omitted, job.next_attempt) == (50, 251, 302)
    assert job.history[-1].outcome is Outcome.SUCCEEDED


def test_backoff_beyond_the_calendar_ends_with_it() -> None:
    """A wait that no calendar holds is one until its last instant."""
    last = datetime.max.replace(tzinfo=UTC)
    now = last - timedelta(seconds=1)
    job = after_attempt(make_job("a"), attempt(Outcome.FAILED), Settings(), now, 0.0)
    assert job.run_at == last


def test_retry_by_a_person_starts_anew_and_forgets_nothing() -> None:
    """A retried job is due now with all its attempts, and its history goes on."""
    job = make_job("a", max_retries=1)
    job = retried(decided(job, Outcome.FAILED), later(NOON, 9))
    assert (job.state, job.attempts, job.run_at, job.updated_at, job.next_attempt) == (
        State.PENDING,
        0,
        later(NOON, 9),
        later(NOON, 9),
        2,
    )


@pytest.mark.parametrize(
    ("changes", "used"),
    [
        ({}, 0),
        ({"attempts": 2}, 2),
        ({"state": State.PROCESSING, "attempts": 2}, 3),
        ({"state": State.PROCESSING, "attempts": 3}, 3),
        ({"state": State.DEAD, "attempts": 3, "history": (attempt(Outcome.FAILED),)}, 3),
        ({"state": State.COMPLETED, "attempts": 1, "history": (attempt(Outcome.SUCCEEDED),)}, 2),
        ({"state": State.CANCELLED, "attempts": 1, "history": (attempt(Outcome.CANCELLED),)}, 2),
        ({"state": State.CANCELLED, "attempts": 1, "history": (attempt(Outcome.FAILED),)}, 1),
    ],
)
def test_used_attempts_include_one_that_did_not_fail(changes: dict[str, Any], used: int) -> None:
    """An attempt that runs, or completed or cancelled the job, counts beside the failed ones."""
    assert attempts_used(make_job("a", max_retries=3, **changes)) == used


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdefg"), max_size=3)))
def test_a_circle_is_found_where_there_is_one(waiting: dict[str, list[str]]) -> None:
    """Jobs that wait for each other are named; without them, all can run in some order."""
    circle = find_circle(waiting)
    for each, following in zip(circle, circle[1:] + circle[:1], strict=True):
        assert following in waiting[each]
    left = dict(waiting)
    while free := [each for each, parents in left.items() if not left.keys() & parents]:
        for each in free:
            del left[each]
    assert bool(left) == bool(circle)


def test_a_long_chain_is_no_circle() -> None:
    """How deep jobs may wait for each other is not left to the stack."""
    chain = {str(each): [str(each + 1)] for each in range(20_000)}
    assert find_circle(chain) == []
    assert len(find_circle(chain | {"20000": ["0"]})) == 20_001

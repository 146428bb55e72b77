"""When ended jobs are settled: long ones at once, short ones several together."""

import random
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from tests.jobs import NOON, SETTINGS, make_job

from queuectl.errors import StoreError
from queuectl.job import Attempt, Job, Outcome
from queuectl.policy import after_attempt
from queuectl.store.base import Claim
from queuectl.worker import Settler


class Recorder:
    """Be a store that only tells what was settled together."""

    gone: Sequence[Claim] = ()

    def __init__(self) -> None:
        """Have nothing settled."""
        self.batches: list[list[str]] = []
        self.is_full = False

    def begin_settle(self, settlements: Sequence[tuple[Any, Job]]) -> "Recorder":
        """Take note of a batch, unless there is no room."""
        if self.is_full:
            raise StoreError("no room")
        self.batches.append([job.id for _, job in settlements])
        return self

    def sync(self) -> None:
        """Be durable."""

    def finish(self) -> None:
        """Be in place."""


class Nobody:
    """Hear what nobody needs to."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Do nothing, whatever is asked."""
        return lambda *_: None


@pytest.fixture
def store() -> Recorder:
    """Return what tells what was settled."""
    return Recorder()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the seconds of a clock that stands still."""
    now = [1000.0]
    monkeypatch.setattr("queuectl.worker.time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def settler(store: Recorder, clock: list[float]) -> Settler:
    """Return one that has nothing to settle."""
    del clock
    nobody = cast("Any", Nobody())
    return Settler(cast("Any", store), nobody, nobody, nobody)


def end(settler: Settler, job_id: str, seconds: float | None) -> None:
    """Let a job's only attempt have taken so long."""
    attempt = Attempt(1, "w", NOON, NOON, seconds, 0, None, Outcome.SUCCEEDED, "log")
    job = after_attempt(make_job(job_id), attempt, SETTINGS, NOON, random.random())
    settler.add(cast("Any", None), job)


def test_long_attempt_is_settled_as_soon_as_the_next_one_runs(
    settler: Settler, store: Recorder
) -> None:
    """Its record does not wait for others: a kill in that time would run all of it again."""
    end(settler, "long", 0.02)
    assert settler.go_on() is None
    assert store.batches == [["long"]]


def test_short_attempts_wait_for_each_other(
    settler: Settler, store: Recorder, clock: list[float]
) -> None:
    """Until nothing has ended for 20 ms, or the first has waited for 50."""
    end(settler, "a", 0.001)
    assert settler.go_on() == pytest.approx(0.02)
    clock[0] += 0.019
    end(settler, "b", 0.0199)
    assert settler.go_on() == pytest.approx(0.02)
    clock[0] += 0.019
    end(settler, "c", 0.001)
    assert settler.go_on() == pytest.approx(0.012)
    clock[0] += 0.013
    assert settler.go_on() is None
    assert store.batches == [["a", "b", "c"]]


def test_long_attempt_takes_the_short_ones_with_it(settler: Settler, store: Recorder) -> None:
    """One sync serves all that have ended, whichever of them was the last."""
    end(settler, "a", 0.001)
    end(settler, "long", 5.0)
    end(settler, "b", 0.001)
    settler.go_on()
    assert store.batches == [["a", "long", "b"]]
    end(settler, "c", 0.001)
    settler.go_on()
    assert len(store.batches) == 1


def test_attempt_whose_length_nobody_saw_is_settled_at_once(
    settler: Settler, store: Recorder
) -> None:
    """It may have been long."""
    end(settler, "unknown", None)
    settler.go_on()
    assert store.batches == [["unknown"]]


def test_long_attempts_that_cannot_be_settled_wait_a_second(
    settler: Settler, store: Recorder, clock: list[float]
) -> None:
    """However many there are by then, a full disk is not asked again and again."""
    store.is_full = True
    end(settler, "a", 1.0)
    assert settler.go_on() == pytest.approx(1.0)
    end(settler, "b", 1.0)
    assert settler.keeps
    assert settler.go_on() == pytest.approx(1.0)
    store.is_full = False
    clock[0] += 1.0
    assert settler.go_on() is None
    assert not settler.keeps
    assert store.batches == [["a", "b"]]


def test_many_short_attempts_do_not_wait(settler: Settler, store: Recorder) -> None:
    """A batch is no larger than what one sync takes with ease."""
    for number in range(127):
        end(settler, f"job{number}", 0.001)
    settler.go_on()
    assert store.batches == []
    end(settler, "last", 0.001)
    settler.go_on()
    assert [len(batch) for batch in store.batches] == [128]

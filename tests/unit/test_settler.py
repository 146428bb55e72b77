"""When ended jobs are settled: long ones at once, short ones several together."""

import errno
import os
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest
from tests.jobs import NOON, SETTINGS, make_job

from queuectl.errors import StoreError
from queuectl.job import Attempt, Job, Outcome
from queuectl.policy import after_attempt
from queuectl.store.worker_protocol import Claim
from queuectl.worker.settler import Settler


class Recorder:
    """Be a store that only tells what was settled together."""

    gone: Sequence[Claim] = ()
    left: Sequence[Claim] = ()

    def __init__(self) -> None:
        """Have nothing settled."""
        self.batches: list[list[str]] = []
        self.is_full = False
        self.has_room_for = 1000
        self.reason: OSError | None = None
        self.refused = ""  # the job that cannot be settled

    def begin_settle(self, settlements: Sequence[tuple[Any, Job]]) -> "Recorder":
        """Take note of a batch, unless there is no room."""
        if self.is_full or self.refused in [job.id for _, job in settlements]:
            raise StoreError("no room") from self.reason
        self.batches.append([job.id for _, job in settlements][: self.has_room_for])
        self.left = [claim for claim, _ in settlements][self.has_room_for :]
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
    monkeypatch.setattr("queuectl.worker.settler.time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def settler(store: Recorder, clock: list[float]) -> Iterator[Settler]:
    """Return one that has nothing to settle."""
    del clock
    nobody = cast("Any", Nobody())
    made = Settler(cast("Any", store), nobody, nobody, nobody, nobody)
    yield made
    made.free_reserve()


def end(settler: Settler, job_id: str, seconds: float | None) -> None:
    """Let a job's only attempt have taken so long."""
    attempt = Attempt(1, "w", NOON, NOON, seconds, 0, None, Outcome.SUCCEEDED, "log")
    job = after_attempt(make_job(job_id), attempt, SETTINGS, NOON, random.random())
    settler.add(cast("Any", object()), job)


def test_long_attempt_is_settled_as_soon_as_the_next_one_runs(
    settler: Settler, store: Recorder
) -> None:
    """Its record does not wait for others: a kill in that time would run all of it again."""
    end(settler, "long", 0.02)
    assert settler.poll() is None
    assert store.batches == [["long"]]


def test_short_attempts_wait_for_each_other(
    settler: Settler, store: Recorder, clock: list[float]
) -> None:
    """Until nothing has ended for 20 ms, or the first has waited for 50."""
    end(settler, "a", 0.001)
    assert settler.poll() == pytest.approx(0.02)
    clock[0] += 0.019
    end(settler, "b", 0.0199)
    assert settler.poll() == pytest.approx(0.02)
    clock[0] += 0.019
    end(settler, "c", 0.001)
    assert settler.poll() == pytest.approx(0.012)
    clock[0] += 0.013
    assert settler.poll() is None
    assert store.batches == [["a", "b", "c"]]


def test_long_attempt_takes_the_short_ones_with_it(settler: Settler, store: Recorder) -> None:
    """One sync serves all that have ended, whichever of them was the last."""
    end(settler, "a", 0.001)
    end(settler, "long", 5.0)
    end(settler, "b", 0.001)
    settler.poll()
    assert store.batches == [["a", "long", "b"]]
    end(settler, "c", 0.001)
    settler.poll()
    assert len(store.batches) == 1


def test_job_that_cannot_be_settled_holds_up_no_other(settler: Settler, store: Recorder) -> None:
    """It is tried again behind the others."""
    store.refused = "b"
    for job_id in "abcd":
        end(settler, job_id, 1.0)
    for _ in range(8):
        settler.settle_now()
    assert sorted(each for batch in store.batches for each in batch) == ["a", "c", "d"]
    assert settler.is_stuck
    store.refused = ""
    settler.settle_now()
    assert not settler.is_stuck
    assert not settler.has_pending_results


def test_attempt_whose_length_nobody_saw_is_settled_at_once(
    settler: Settler, store: Recorder
) -> None:
    """It may have been long."""
    end(settler, "unknown", None)
    settler.poll()
    assert store.batches == [["unknown"]]


def test_long_attempts_that_cannot_be_settled_wait_a_second(
    settler: Settler, store: Recorder, clock: list[float]
) -> None:
    """However many there are by then, a full disk is not asked again and again."""
    store.is_full = True
    end(settler, "a", 1.0)
    assert settler.poll() == pytest.approx(1.0)
    end(settler, "b", 1.0)
    assert settler.is_stuck
    assert settler.poll() == pytest.approx(1.0)
    store.is_full = False
    clock[0] += 1.0
    assert settler.poll() == 0.0
    assert not settler.is_stuck
    assert settler.poll() is None
    assert store.batches == [["a"], ["b"]]


def test_many_short_attempts_do_not_wait(settler: Settler, store: Recorder) -> None:
    """A batch is no larger than what one sync takes with ease."""
    for number in range(127):
        end(settler, f"job{number}", 0.001)
    settler.poll()
    assert store.batches == []
    end(settler, "last", 0.001)
    settler.poll()
    assert [len(batch) for batch in store.batches] == [128]


def test_no_job_is_taken_beside_many_that_are_not_settled(
    settler: Settler, store: Recorder
) -> None:
    """A kill would run all of them again, and each keeps a descriptor."""
    store.is_full = True
    for number in range(127):
        end(settler, f"job{number}", 0.001)
    assert not settler.is_full()
    end(settler, "last", 0.001)
    assert settler.is_full()
    settler.poll()
    assert settler.is_full()


def test_no_job_is_taken_beside_one_that_has_waited_for_long(
    settler: Settler, store: Recorder, clock: list[float]
) -> None:
    """However few there are: the disk has not answered for half a second."""
    store.is_full = True
    end(settler, "a", 1.0)
    settler.poll()
    clock[0] += 0.49
    assert not settler.is_full()
    clock[0] += 0.01
    assert settler.is_full()
    store.is_full = False
    settler.settle_now()
    assert not settler.is_full()


def test_what_fits_is_settled_and_the_rest_tried_at_once(settler: Settler, store: Recorder) -> None:
    """A disk that has room for some has room for the others in what those leave."""
    store.has_room_for = 2
    for job_id in "abcde":
        end(settler, job_id, 1.0)
    while settler.poll() is not None:
        assert settler.is_stuck
    assert store.batches == [["a", "b"], ["c", "d"], ["e"]]
    assert not settler.is_stuck


def test_after_a_failure_fewer_are_tried_and_then_more(
    settler: Settler, store: Recorder, clock: list[float]
) -> None:
    """What failed may have failed for their number."""
    store.is_full = True
    for number in range(8):
        end(settler, str(number), 1.0)
    for _ in range(2):
        settler.poll()
        clock[0] += 1.0
    store.is_full = False
    while settler.poll() is not None:
        pass
    assert [len(batch) for batch in store.batches] == [2, 4, 2]


def test_what_no_descriptor_is_left_for_takes_those_kept_for_it(
    settler: Settler, store: Recorder
) -> None:
    """It is tried again with them at once, and a failure then waits as any other."""
    settler.reserve(1)
    kept = list(settler._reserve)
    store.is_full = True
    store.reason = OSError(errno.EMFILE, "no descriptor")
    end(settler, "a", 1.0)
    assert settler.poll() == 0.0
    assert settler.poll() == pytest.approx(1.0)
    for fd in kept:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    store.is_full = False
    settler.settle_now()
    assert sorted(settler._reserve) == kept
    settler.free_reserve()


@pytest.mark.parametrize(("limit", "most"), [(1024, 128), (120, 23), (60, 1), (-1, 128)])
def test_the_bound_leaves_room_for_what_runs(
    settler: Settler, monkeypatch: pytest.MonkeyPatch, limit: int, most: int
) -> None:
    """Sixteen workers have a descriptor each for a lock, for an end and for a log."""
    monkeypatch.setattr("queuectl.worker.settler.os.sysconf", lambda _: limit)
    monkeypatch.setattr("queuectl.worker.settler.os.open", lambda *_: 24)
    settler.reserve(16)
    assert settler._max_pending == most
    settler._reserve.clear()  # they are not really open

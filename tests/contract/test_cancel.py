"""How jobs are cancelled and waited for, whatever the store is made of."""

import select
import threading
from collections.abc import Iterator

import pytest
from tests.cancelling import Cancelling, asked, claim_and_say, first_end
from tests.jobs import (
    LATER,
    claim_next,
    claimed,
    decide,
    drain,
    ended,
    fail_for_good,
    make_job,
    make_jobs,
    settle,
)
from tests.stores import Place

from queuectl.clock import later, utc_now
from queuectl.errors import JobNotFound
from queuectl.job import Job, Outcome, State
from queuectl.store.protocol import Store
from queuectl.store.worker_protocol import Claim


def cancel(store: Store, *job_ids: str) -> dict[str, State | None]:
    """Cancel jobs and return what is told of each."""
    return dict(store.cancel(job_ids))


@pytest.fixture
def worker(place: Place) -> Iterator[Store]:
    """Return a store that is used by a registered worker."""
    store = place.open()
    store.queue.register("w-1", utc_now())
    yield store
    store.queue.unregister()


def test_waiting_job_is_cancelled_and_never_claimed(store: Store) -> None:
    """Its state is recorded as well; another one is left as it is."""
    store.add(make_jobs("a", "b"))
    assert cancel(store, "a") == {"a": State.CANCELLED}
    job = store.get("a")
    assert (job.state, job.attempts, job.history) == (State.CANCELLED, 0, ())
    assert drain(store) == ["b"]


def test_job_that_waits_for_its_next_attempt_is_cancelled(store: Store) -> None:
    """What its attempts were is kept."""
    store.add([make_job("a")])
    settle(store, [ended(claimed(store), Outcome.FAILED)])
    assert cancel(store, "a") == {"a": State.CANCELLED}
    job = store.get("a")
    assert ([each.outcome for each in job.history], job.attempts) == ([Outcome.FAILED], 1)
    assert claim_next(store, LATER) is None


def test_nothing_is_cancelled_where_one_does_not_exist(store: Store) -> None:
    """The ids are looked for before the first job is cancelled."""
    store.add([make_job("a")])
    with pytest.raises(JobNotFound, match="no such job: nope"):
        cancel(store, "a", "nope")
    assert store.get("a").state is State.PENDING


def test_what_has_ended_is_told_and_left(store: Store) -> None:
    """Completed and dead jobs stay so; a cancelled one is told as cancelled again."""
    store.add(make_jobs("done", "bad", "stopped"))
    settle(store, [ended(claimed(store))])
    fail_for_good(store)
    assert cancel(store, "stopped") == {"stopped": State.CANCELLED}
    before = [store.get(each) for each in ("done", "bad", "stopped")]
    assert cancel(store, "done", "bad", "stopped") == {
        "done": State.COMPLETED,
        "bad": State.DEAD,
        "stopped": State.CANCELLED,
    }
    assert [store.get(each) for each in ("done", "bad", "stopped")] == before


def test_cancelled_job_can_be_retried(store: Store) -> None:
    """It is as new, and its id is its own."""
    store.add([make_job("a")])
    cancel(store, "a")
    assert store.retry("a", [State.CANCELLED], LATER).state is State.PENDING
    assert drain(store) == ["a"]
    assert store.get("a").state is State.COMPLETED


def test_running_job_is_cancelled_when_its_worker_says_so(place: Place, worker: Store) -> None:
    """The worker is asked, and nobody is told that it is cancelled before it is settled."""
    worker.add([make_job("a")])
    claim = claimed(worker)
    cancelling = Cancelling(place, "a")
    assert asked(worker, claim)
    assert cancelling.told == {}
    settle(worker, [ended(claim, Outcome.CANCELLED)])
    assert cancelling.wait() == {"a": State.CANCELLED}
    assert [each.outcome for each in worker.get("a").history] == [Outcome.CANCELLED]


def test_several_running_jobs_are_asked_for_at_once(place: Place, worker: Store) -> None:
    """None has to wait until the one before it has ended."""
    second = place.open()
    second.queue.register("w-2", utc_now())
    worker.add(make_jobs("a", "b"))
    claims = [claimed(worker), claimed(second)]
    cancelling = Cancelling(place, "a", "b")
    assert asked(second, claims[1])
    assert asked(worker, claims[0])
    settle(second, [ended(claims[1], Outcome.CANCELLED)])
    settle(worker, [ended(claims[0], Outcome.CANCELLED)])
    assert cancelling.wait() == {"a": State.CANCELLED, "b": State.CANCELLED}
    second.queue.unregister()


def test_job_that_completes_before_it_is_ended_is_told(place: Place, worker: Store) -> None:
    """RACE: the command ends by itself when the worker is asked."""
    worker.add([make_job("a")])
    claim = claimed(worker)
    cancelling = Cancelling(place, "a")
    assert asked(worker, claim)
    settle(worker, [ended(claim)])
    assert cancelling.wait() == {"a": State.COMPLETED}


def test_job_that_fails_before_it_is_ended_is_not_run_again(place: Place, worker: Store) -> None:
    """RACE: it is pending again, for its next attempt, and is cancelled there."""
    worker.add([make_job("a")])
    claim = claimed(worker)
    cancelling = Cancelling(place, "a")
    assert asked(worker, claim)
    settle(worker, [ended(claim, Outcome.FAILED)])
    assert cancelling.wait() == {"a": State.CANCELLED}
    assert [each.outcome for each in worker.get("a").history] == [Outcome.FAILED]


def test_job_that_is_given_back_is_cancelled(place: Place, worker: Store) -> None:
    """RACE: the worker is stopped now, and puts the job back before it reads the request."""
    worker.add([make_job("a")])
    claim = claimed(worker)
    cancelling = Cancelling(place, "a")
    assert asked(worker, claim)
    worker.queue.give_back(claim)
    assert cancelling.wait() == {"a": State.CANCELLED}
    assert worker.get("a").history == ()


def test_job_whose_worker_dies_is_cancelled(place: Place, store: Store) -> None:
    """Nobody has to recover it first; its attempt is lost."""
    store.add([make_job("a")])
    place.process_that(claim_and_say)
    assert store.get("a").state is State.PROCESSING
    assert cancel(store, "a") == {"a": State.CANCELLED}
    assert [each.outcome for each in store.get("a").history] == [Outcome.LOST]
    assert store.pool.recover(decide).recovered == []


def test_request_for_another_attempt_is_not_taken_for_this_one(place: Place, worker: Store) -> None:
    """It came when that one had ended."""
    worker.add(make_jobs("a", "b"))
    first = claimed(worker)
    cancelling = Cancelling(place, "a")
    fd = worker.queue.control_fd()
    assert fd is not None
    assert select.select([fd], [], [], 20)[0]
    settle(worker, [ended(first)])
    second = claimed(worker)
    assert not worker.queue.cancel_requested(second)
    assert cancelling.wait() == {"a": State.COMPLETED}
    settle(worker, [ended(second)])


# --- waiting ---


def test_jobs_that_have_ended_are_told_in_the_order_of_their_ends(store: Store) -> None:
    """All of them, as they were recorded."""
    jobs = make_jobs("z", "m", "a")
    store.add(jobs)
    claims = [claimed(store) for _ in range(3)]
    for index, claim in enumerate(claims):
        settle(store, [settle_at(claim, index)])
    assert [job.id for job in store.ends(["a", "m", "z"], 20.0)] == ["z", "m", "a"]
    assert next(iter(store.ends(["m"], 20.0))) == store.get("m")


def settle_at(claim: Claim, seconds: int) -> tuple[Claim, Job]:
    """Return what settles a claim at one time after another."""
    claim, job = ended(claim)
    return claim, job._replace(updated_at=later(job.updated_at, seconds))


def test_a_wait_is_over_when_its_time_is(store: Store) -> None:
    """What has ended by then is told; jobs that wait or run are not."""
    store.add(make_jobs("a", "b", "c"))
    settle(store, [ended(claimed(store))])
    claim = claimed(store)
    assert [job.id for job in store.ends(["c", "b", "a"], 0.01)] == ["a"]
    store.queue.give_back(claim)


def test_a_wait_goes_on_through_retries(place: Place, store: Store) -> None:
    """A job that failed and is to run again has not ended."""
    store.add([make_job("a")])
    told: list[Job] = []
    waiter = place.open()
    thread = threading.Thread(target=lambda: told.append(first_end(waiter, "a")))
    thread.start()
    for _ in range(2):
        settle(store, [ended(claimed(store), Outcome.FAILED)])
        assert told == []
    settle(store, [ended(claimed(store), Outcome.FAILED)])
    thread.join(20)
    assert [(job.state, len(job.history)) for job in told] == [(State.DEAD, 3)]


def test_a_cancelled_job_is_an_end_to_wait_for(store: Store) -> None:
    """It comes to no other."""
    store.add([make_job("a")])
    cancel(store, "a")
    assert first_end(store, "a").state is State.CANCELLED


def test_a_job_that_does_not_exist_is_not_waited_for(store: Store) -> None:
    """Nobody knows whether it ever will."""
    with pytest.raises(JobNotFound, match="no such job: nope"):
        first_end(store, "nope")


def test_find_tells_where_jobs_are(store: Store) -> None:
    """Those that do not exist, and what is no id, are left out."""
    store.add(make_jobs("done", "running", "waiting"))
    settle(store, [ended(claimed(store))])
    claim = claimed(store)
    found = store.find(["waiting", "done", "nope", "../done", "", "a\0", "running"])
    assert {job_id: entry.state for job_id, entry in found.items()} == {
        "done": State.COMPLETED,
        "running": State.PROCESSING,
        "waiting": State.PENDING,
    }
    assert found["running"].attempt == 1
    assert all(store.read(entry) == store.get(entry.id) for entry in found.values())
    store.queue.give_back(claim)

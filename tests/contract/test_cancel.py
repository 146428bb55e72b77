"""How jobs are cancelled and waited for, whatever the store is made of."""

import os
import select
import signal
import threading
from collections.abc import Iterator

import pytest
from tests.contract.conftest import Place
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
)

from queuectl.clock import later, utc_now
from queuectl.errors import JobNotFound
from queuectl.job import Job, Outcome, State
from queuectl.store import files, holders
from queuectl.store.base import Claim, Store
from queuectl.store.lookup import Lookup


def cancel(store: Store, *job_ids: str) -> dict[str, State | None]:
    """Cancel jobs and return what is told of each."""
    return dict(store.cancel(job_ids))


class Cancelling:
    """Cancel jobs in a thread, through a store of its own."""

    def __init__(self, place: Place, *job_ids: str) -> None:
        """Begin."""
        self._store = place.open()
        self._job_ids = job_ids
        self.told: dict[str, State | None] = {}
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.told.update(self._store.cancel(self._job_ids))

    def wait(self) -> dict[str, State | None]:
        """Return what is told of each when all are cancelled."""
        self._thread.join(20)
        assert not self._thread.is_alive(), "the jobs are not cancelled"
        return self.told


@pytest.fixture
def worker(place: Place) -> Iterator[Store]:
    """Return a store that is used by a registered worker."""
    store = place.open()
    store.register("w-1", utc_now())
    yield store
    store.unregister()


def asked(worker: Store, claim: Claim) -> bool:
    """Wait until the worker is asked for something; return whether it is to end this attempt."""
    fd = worker.control_fd()
    assert fd is not None
    assert select.select([fd], [], [], 20)[0], "the worker is not asked"
    return worker.cancel_requested(claim)


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
    store.settle([ended(claimed(store), Outcome.FAILED)])
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
    store.settle([ended(claimed(store))])
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
    worker.settle([ended(claim, Outcome.CANCELLED)])
    assert cancelling.wait() == {"a": State.CANCELLED}
    assert [each.outcome for each in worker.get("a").history] == [Outcome.CANCELLED]


def test_running_job_is_asked_for_though_its_worker_came_to_it_late(
    place: Place, worker: Store
) -> None:
    """RACE: a worker that has claimed a job says so a moment later."""
    worker.add([make_job("a")])
    claim = claimed(worker)
    worker.unregister()  # as if it had not yet told what it runs
    cancelling = Cancelling(place, "a")
    worker.register("w-1", utc_now())
    worker.core.registry.note("w-1", ("a", 1), utc_now())  # type: ignore[attr-defined]
    assert asked(worker, claim)
    worker.settle([ended(claim, Outcome.CANCELLED)])
    assert cancelling.wait() == {"a": State.CANCELLED}


def test_several_running_jobs_are_asked_for_at_once(place: Place, worker: Store) -> None:
    """None has to wait until the one before it has ended."""
    second = place.open()
    second.register("w-2", utc_now())
    worker.add(make_jobs("a", "b"))
    claims = [claimed(worker), claimed(second)]
    cancelling = Cancelling(place, "a", "b")
    assert asked(second, claims[1])
    assert asked(worker, claims[0])
    second.settle([ended(claims[1], Outcome.CANCELLED)])
    worker.settle([ended(claims[0], Outcome.CANCELLED)])
    assert cancelling.wait() == {"a": State.CANCELLED, "b": State.CANCELLED}
    second.unregister()


def test_job_that_completes_before_it_is_ended_is_told(place: Place, worker: Store) -> None:
    """RACE: the command ends by itself when the worker is asked."""
    worker.add([make_job("a")])
    claim = claimed(worker)
    cancelling = Cancelling(place, "a")
    assert asked(worker, claim)
    worker.settle([ended(claim)])
    assert cancelling.wait() == {"a": State.COMPLETED}


def test_job_that_fails_before_it_is_ended_is_not_run_again(place: Place, worker: Store) -> None:
    """RACE: it is pending again, for its next attempt, and is cancelled there."""
    worker.add([make_job("a")])
    claim = claimed(worker)
    cancelling = Cancelling(place, "a")
    assert asked(worker, claim)
    worker.settle([ended(claim, Outcome.FAILED)])
    assert cancelling.wait() == {"a": State.CANCELLED}
    assert [each.outcome for each in worker.get("a").history] == [Outcome.FAILED]


def test_job_that_is_given_back_is_cancelled(place: Place, worker: Store) -> None:
    """RACE: the worker is stopped now, and puts the job back before it reads the request."""
    worker.add([make_job("a")])
    claim = claimed(worker)
    cancelling = Cancelling(place, "a")
    assert asked(worker, claim)
    worker.give_back(claim)
    assert cancelling.wait() == {"a": State.CANCELLED}
    assert worker.get("a").history == ()


def test_job_whose_worker_dies_is_cancelled(place: Place, store: Store) -> None:
    """Nobody has to recover it first; its attempt is lost."""
    store.add([make_job("a")])
    place.process_that(claim_and_say)
    assert store.get("a").state is State.PROCESSING
    assert cancel(store, "a") == {"a": State.CANCELLED}
    assert [each.outcome for each in store.get("a").history] == [Outcome.LOST]
    assert store.recover(decide).recovered == []


def claim_and_say(store: Store) -> None:
    """Claim a job as a worker that dies then."""
    store.register("w-9", utc_now())
    claimed(store)


def test_job_that_was_recorded_by_a_dead_worker_is_as_it_was_recorded(
    place: Place, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It completed; what is asked for came too late."""
    store.add([make_job("a")])

    def record(other: Store) -> None:
        real_move = files.move_new

        def move(first_fd: int, first: str, second_fd: int, second: str) -> None:
            if second == "a.json":
                os._exit(0)
            real_move(first_fd, first, second_fd, second)

        files.move_new = move
        other.settle([ended(claimed(other))])

    place.process_that(record)
    assert store.get("a").state is State.PROCESSING
    assert cancel(store, "a") == {"a": State.COMPLETED}


def test_request_for_another_attempt_is_not_taken_for_this_one(place: Place, worker: Store) -> None:
    """It came when that one had ended."""
    worker.add(make_jobs("a", "b"))
    first = claimed(worker)
    cancelling = Cancelling(place, "a")
    fd = worker.control_fd()
    assert fd is not None
    assert select.select([fd], [], [], 20)[0]
    worker.settle([ended(first)])
    second = claimed(worker)
    assert not worker.cancel_requested(second)
    assert cancelling.wait() == {"a": State.COMPLETED}
    worker.settle([ended(second)])


def test_worker_that_left_in_order_leaves_nothing_to_ask(place: Place) -> None:
    """A live one has something to be asked through; none is left of one that was killed."""
    store = place.open()
    store.register("w-1", utc_now())
    assert store.control_fd() is not None
    other = place.open()
    other.tidy()
    assert store.workers()[0].name == "w-1"
    store.unregister()
    place.process_that(lambda killed: killed.register("w-9", utc_now()))
    other.tidy()
    assert os.listdir(place.path / "workers") == []


def test_job_that_is_dead_with_its_worker_is_told(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACE: a worker recovers it, for the last time, between the look and what follows."""
    store.add([make_job("a", max_retries=1)])
    place.process_that(claim_and_say)
    find = Lookup.find

    def find_then_recover(self: Lookup, job_ids: list[str]) -> object:
        found = find(self, job_ids)
        store.recover(decide)
        return found

    monkeypatch.setattr(Lookup, "find", find_then_recover)
    assert cancel(store, "a") == {"a": State.DEAD}


# --- waiting ---


def first_end(store: Store, *job_ids: str) -> Job:
    """Return the next of the jobs to end."""
    return next(iter(store.ends(job_ids, 20.0)))


def test_jobs_that_have_ended_are_told_in_the_order_of_their_ends(store: Store) -> None:
    """All of them, as they were recorded."""
    jobs = make_jobs("z", "m", "a")
    store.add(jobs)
    claims = [claimed(store) for _ in range(3)]
    for index, claim in enumerate(claims):
        store.settle([settle_at(claim, index)])
    assert [job.id for job in store.ends(["a", "m", "z"], 20.0)] == ["z", "m", "a"]
    assert next(iter(store.ends(["m"], 20.0))) == store.get("m")


def settle_at(claim: Claim, seconds: int) -> tuple[Claim, Job]:
    """Return what settles a claim at one time after another."""
    claim, job = ended(claim)
    return claim, job._replace(updated_at=later(job.updated_at, seconds))


def test_a_wait_is_over_when_its_time_is(store: Store) -> None:
    """What has ended by then is told; jobs that wait or run are not."""
    store.add(make_jobs("a", "b", "c"))
    store.settle([ended(claimed(store))])
    claim = claimed(store)
    assert [job.id for job in store.ends(["c", "b", "a"], 0.01)] == ["a"]
    store.give_back(claim)


def test_a_wait_goes_on_through_retries(place: Place, store: Store) -> None:
    """A job that failed and is to run again has not ended."""
    store.add([make_job("a")])
    told: list[Job] = []
    waiter = place.open()
    thread = threading.Thread(target=lambda: told.append(first_end(waiter, "a")))
    thread.start()
    for _ in range(2):
        store.settle([ended(claimed(store), Outcome.FAILED)])
        assert told == []
    store.settle([ended(claimed(store), Outcome.FAILED)])
    thread.join(20)
    assert [(job.state, len(job.history)) for job in told] == [(State.DEAD, 3)]


def test_a_wait_sleeps_while_other_jobs_end(
    place: Place, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the job itself makes it look; it does not go through the queue for the others."""
    store.add(make_jobs("a", *(f"j{index}" for index in range(50))))
    mine = claimed(store)
    assert mine.job.id == "a"
    waiter = place.open()
    looks: list[str] = []
    find = Lookup.find

    def counted(self: Lookup, job_ids: list[str]) -> object:
        looks.append("look")
        return find(self, job_ids)

    monkeypatch.setattr(Lookup, "find", counted)
    told: list[Job] = []
    thread = threading.Thread(target=lambda: told.append(first_end(waiter, "a")))
    thread.start()
    drain(store)
    assert told == []
    store.settle([ended(mine)])
    thread.join(20)
    assert [job.id for job in told] == ["a"]
    assert len(looks) <= 1


def test_a_job_that_ends_before_the_sleep_is_not_missed(
    place: Place, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACE: it ends between the look and the sleep."""
    store.add([make_job("a")])
    claim = claimed(store)
    waiter = place.open()
    find = Lookup.find

    def find_then_end(self: Lookup, job_ids: list[str]) -> object:
        found = find(self, job_ids)
        if claim.fd >= 0:  # type: ignore[attr-defined]
            store.settle([ended(claim)])
        return found

    monkeypatch.setattr(Lookup, "find", find_then_end)
    monkeypatch.setattr("queuectl.store.waiting._LOOK_SECONDS", 1000.0)
    assert first_end(waiter, "a").state is State.COMPLETED


def test_a_wait_works_where_the_kernel_tells_nothing(
    place: Place, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no inotify (or none left) it looks now and then."""
    monkeypatch.setattr("queuectl.store.watch.sys.platform", "plain")
    store.add([make_job("a")])
    claim = claimed(store)
    waiter = place.open()
    waiter.poll_seconds = 0.01
    told: list[Job] = []
    thread = threading.Thread(target=lambda: told.append(first_end(waiter, "a")))
    thread.start()
    store.settle([ended(claim)])
    thread.join(20)
    assert [job.state for job in told] == [State.COMPLETED]


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
    store.settle([ended(claimed(store))])
    claim = claimed(store)
    found = store.find(["waiting", "done", "nope", "../done", "", "a\0", "running"])
    assert {job_id: entry.state for job_id, entry in found.items()} == {
        "done": State.COMPLETED,
        "running": State.PROCESSING,
        "waiting": State.PENDING,
    }
    assert found["running"].attempt == 1
    assert all(store.read(entry) == store.get(entry.id) for entry in found.values())
    store.give_back(claim)


def test_what_outlives_its_timeout_is_signaled_once(
    place: Place, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its processes cannot be told apart for a moment, since somebody looks at it."""
    store.change_config(lambda document: document | {"kill-grace": "1h"})
    store.add([make_job("a", timeout_seconds=1.0)])
    claim = claimed(place.open())  # by a worker that is not registered, as one that is dead
    sent: list[int] = []
    seen: list[set[int] | None] = [{4711}, None, {4711}, {4711}, {4711}]
    monkeypatch.setattr(holders, "holders", lambda *_: seen.pop(0))
    monkeypatch.setattr(holders, "age_seconds", lambda _: 2.0)
    monkeypatch.setattr(holders, "groups_of", lambda pids: pids)
    monkeypatch.setattr(holders, "signal_groups", lambda _, *numbers: sent.extend(numbers))
    assert store.recover(decide).overdue == [("a", 1)]
    assert store.recover(decide).overdue == []
    assert store.recover(decide).overdue == []
    assert sent == [signal.SIGTERM, signal.SIGCONT]
    store.change_config(lambda document: document | {"kill-grace": "0.001s"})
    assert store.recover(decide).overdue == []
    assert sent == [signal.SIGTERM, signal.SIGCONT, signal.SIGKILL]
    # What was signaled is forgotten with the attempt: the next one is signaled, too.
    claim.free()  # type: ignore[attr-defined]
    monkeypatch.undo()
    assert [each.lost for each in store.recover(decide).recovered] == [True]
    claimed(place.open())
    monkeypatch.setattr(holders, "holders", lambda *_: {4711})
    monkeypatch.setattr(holders, "age_seconds", lambda _: 2.0)
    monkeypatch.setattr(holders, "signal_groups", lambda _, *numbers: sent.extend(numbers))
    assert place.open().recover(decide).overdue == [("a", 2)]


def test_worker_that_looks_for_lost_jobs_leaves_to_its_supervisor_what_is_overdue(
    place: Place, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker may become busy, and would not send SIGKILL."""
    store.add([make_job("a", timeout_seconds=1.0)])
    claimed(place.open())
    sent: list[int] = []
    monkeypatch.setattr(holders, "holders", lambda *_: {4711})
    monkeypatch.setattr(holders, "age_seconds", lambda _: 2.0)
    monkeypatch.setattr(holders, "groups_of", lambda pids: pids)
    monkeypatch.setattr(holders, "signal_groups", lambda _, *numbers: sent.extend(numbers))
    report = store.recover(decide, only_lost=True)
    assert (report.running, report.unowned, report.overdue, sent) == (1, 0, (), [])
    assert store.recover(decide).overdue == [("a", 1)]

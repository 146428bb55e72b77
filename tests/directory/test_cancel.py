"""How jobs are cancelled and waited for in a directory: moves, records, FIFOs and processes."""

import os
import signal
import threading

import pytest
from tests.cancelling import Cancelling, asked, claim_and_say, first_end
from tests.directory.conftest import Place
from tests.jobs import (
    claimed,
    decide,
    drain,
    ended,
    make_job,
    make_jobs,
    settle,
)

from queuectl.clock import utc_now
from queuectl.job import Job, Outcome, State
from queuectl.store import files, holders
from queuectl.store.lookup import Lookup
from queuectl.store.protocol import Store


def test_running_job_is_asked_for_though_its_worker_came_to_it_late(place: Place) -> None:
    """RACE: a worker that has claimed a job says so a moment later."""
    worker = place.open()
    worker.queue.register("w-1", utc_now())
    worker.add([make_job("a")])
    claim = claimed(worker)
    worker.queue.unregister()  # as if it had not yet told what it runs
    cancelling = Cancelling(place, "a")
    worker.queue.register("w-1", utc_now())
    worker.core.registry.note("w-1", ("a", 1), utc_now())  # type: ignore[attr-defined]
    assert asked(worker, claim)
    settle(worker, [ended(claim, Outcome.CANCELLED)])
    assert cancelling.wait() == {"a": State.CANCELLED}


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
        settle(other, [ended(claimed(other))])

    place.process_that(record)
    assert store.get("a").state is State.PROCESSING
    assert dict(store.cancel(["a"])) == {"a": State.COMPLETED}


def test_worker_that_left_in_order_leaves_nothing_to_ask(place: Place) -> None:
    """A live one has something to be asked through; none is left of one that was killed."""
    store = place.open()
    store.queue.register("w-1", utc_now())
    assert store.queue.control_fd() is not None
    other = place.open()
    other.pool.tidy()
    assert store.workers.live()[0].name == "w-1"
    store.queue.unregister()
    place.process_that(lambda killed: killed.queue.register("w-9", utc_now()))
    other.pool.tidy()
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
        store.pool.recover(decide)
        return found

    monkeypatch.setattr(Lookup, "find", find_then_recover)
    assert dict(store.cancel(["a"])) == {"a": State.DEAD}


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
    settle(store, [ended(mine)])
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
            settle(store, [ended(claim)])
        return found

    monkeypatch.setattr(Lookup, "find", find_then_end)
    monkeypatch.setattr("queuectl.store.waiting._LOOK_SECONDS", 1000.0)
    assert first_end(waiter, "a").state is State.COMPLETED


def test_a_wait_works_where_the_kernel_tells_nothing(
    place: Place, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no inotify (or none left) it looks now and then."""
    monkeypatch.setattr("queuectl.store.watch.sys.platform", "plain")
    monkeypatch.setattr("queuectl.store.waiting.POLL_SECONDS", 0.01)
    store.add([make_job("a")])
    claim = claimed(store)
    waiter = place.open()
    told: list[Job] = []
    thread = threading.Thread(target=lambda: told.append(first_end(waiter, "a")))
    thread.start()
    settle(store, [ended(claim)])
    thread.join(20)
    assert [job.state for job in told] == [State.COMPLETED]


def test_what_outlives_its_timeout_is_signaled_once(
    place: Place, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its processes cannot be told apart for a moment, since somebody looks at it."""
    store.config.change(lambda document: document | {"kill-grace": "1h"})
    store.add([make_job("a", timeout_seconds=1.0)])
    claim = claimed(place.open())  # by a worker that is not registered, as one that is dead
    sent: list[int] = []
    seen: list[set[int] | None] = [{4711}, None, {4711}, {4711}, {4711}]
    monkeypatch.setattr(holders, "holders", lambda *_: seen.pop(0))
    monkeypatch.setattr(holders, "age_seconds", lambda _: 2.0)
    monkeypatch.setattr(holders, "groups_of", lambda pids: pids)
    monkeypatch.setattr(holders, "signal_groups", lambda _, *numbers: sent.extend(numbers))
    assert store.pool.recover(decide).overdue == [("a", 1)]
    assert store.pool.recover(decide).overdue == []
    assert store.pool.recover(decide).overdue == []
    assert sent == [signal.SIGTERM, signal.SIGCONT]
    store.config.change(lambda document: document | {"kill-grace": "0.001s"})
    assert store.pool.recover(decide).overdue == []
    assert sent == [signal.SIGTERM, signal.SIGCONT, signal.SIGKILL]
    # What was signaled is forgotten with the attempt: the next one is signaled, too.
    claim.free()  # type: ignore[attr-defined]
    monkeypatch.undo()
    assert [each.lost for each in store.pool.recover(decide).recovered] == [True]
    claimed(place.open())
    monkeypatch.setattr(holders, "holders", lambda *_: {4711})
    monkeypatch.setattr(holders, "age_seconds", lambda _: 2.0)
    monkeypatch.setattr(holders, "signal_groups", lambda _, *numbers: sent.extend(numbers))
    assert place.open().pool.recover(decide).overdue == [("a", 2)]


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
    report = store.pool.recover(decide, only_lost=True)
    assert (report.running, report.unowned, report.overdue, sent) == (1, 0, (), [])
    assert store.pool.recover(decide).overdue == [("a", 1)]

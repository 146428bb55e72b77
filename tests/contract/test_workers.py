"""What workers do with a store: claim in order, settle, give back, recover, wait."""

import os
import select
import time
from collections.abc import Callable

import pytest
from tests.jobs import (
    LATER,
    NOON,
    attempt_of,
    claim_next,
    claimed,
    decide,
    drain,
    ended,
    make_job,
    make_jobs,
    settle,
)
from tests.stores import Place

from queuectl.clock import later
from queuectl.job import Job, Outcome, State
from queuectl.store.protocol import Store


def readable(fd: int | None) -> bool:
    """Tell whether a descriptor is readable at this moment."""
    assert fd is not None
    return bool(select.select([fd], [], [], 0)[0])


def test_one_worker_claims_in_the_order_that_the_entries_show(store: Store) -> None:
    """Priorities, due times and the order of enqueueing decide, and the list shows the same."""
    jobs = [
        make_job(f"j{index:02}", priority=(index * 7) % 4 + 3, run_at=later(NOON, index * 13 % 10))
        for index in range(60)
    ]
    store.add(jobs[:30])
    store.add(jobs[30:])
    order = [job.id for job in sorted(jobs, key=lambda job: (job.priority, job.run_at, job.id))]
    now = later(NOON, 20)
    assert [entry.id for entry in store.entries(State.PENDING, now)] == order
    assert drain(store, now) == order


def test_jobs_of_one_batch_run_in_its_order(store: Store) -> None:
    """Jobs that were enqueued together run one after the other, whatever their ids."""
    ids = ["z", "a", "m", "b", "y"]
    store.add(make_jobs(*ids))
    assert drain(store) == ids


def test_job_is_not_claimed_before_it_is_due(store: Store) -> None:
    """A job that is due later waits, and the store says until when."""
    store.add([make_job("a", run_at=later(NOON, 10)), make_job("b", run_at=later(NOON, 5))])
    assert claim_next(store, NOON) is None
    assert store.queue.next_due() == later(NOON, 5)
    assert claimed(store, later(NOON, 5)).job.id == "b"
    assert claim_next(store, later(NOON, 9.999999)) is None
    assert store.queue.next_due() == later(NOON, 10)
    assert claimed(store, later(NOON, 10)).job.id == "a"
    assert claim_next(store, LATER) is None
    assert store.queue.next_due() is None


def test_urgent_arrival_is_taken_next(place: Place) -> None:
    """A job of a better priority that comes later is taken before those that wait."""
    worker = place.open()
    place.open().add(make_jobs("a", "b", "c"))
    assert claimed(worker).job.id == "a"
    place.open().add([make_job("urgent", priority=0, run_at=later(NOON, 60))])
    assert drain(worker) == ["urgent", "b", "c"]


def test_two_workers_never_claim_the_same_job(place: Place) -> None:
    """Each job is claimed once, whoever asks."""
    place.open().add(make_jobs(*(f"j{n}" for n in range(20))))
    first, second = place.open(), place.open()
    claims = [claimed(worker) for _ in range(10) for worker in (first, second)]
    assert claim_next(first, LATER) is None
    assert claim_next(second, LATER) is None
    assert len({claim.job.id for claim in claims}) == 20


def test_first_jobs_are_claimed_one_for_each_worker(store: Store) -> None:
    """Workers of one process take theirs together: in order, each by its name, as many as due."""
    workers = ["w-1", "w-2", "w-3"]
    for name in workers:
        store.queue.register(name, NOON)
    store.add([*make_jobs("b", "a", "c", "d"), make_job("urgent", priority=0)])
    claims = store.queue.claim(LATER, workers)
    assert [(claim.job.id, claim.worker) for claim in claims] == [
        ("urgent", "w-1"),
        ("b", "w-2"),
        ("a", "w-3"),
    ]
    assert [(each.name, each.job) for each in store.workers.live()] == [
        ("w-1", "urgent"),
        ("w-2", "b"),
        ("w-3", "a"),
    ]
    settle(store, [ended(claim) for claim in claims])
    assert [claim.job.id for claim in store.queue.claim(LATER, workers)] == ["c", "d"]
    assert store.queue.claim(LATER, workers) == []


def test_claim_shows_the_job_as_processing_and_records_nothing(store: Store) -> None:
    """A claim is seen at once by everybody, and leaves the document as it was."""
    job = make_job("a")
    store.add([job])
    claim = claimed(store)
    assert (claim.job, claim.attempt, claim.started_at) == (job, 1, LATER)
    assert store.get("a") == job._replace(state=State.PROCESSING)


@pytest.mark.parametrize(
    ("outcome", "attempts", "state"),
    [
        (Outcome.SUCCEEDED, 0, State.COMPLETED),
        (Outcome.CANCELLED, 0, State.CANCELLED),
        (Outcome.FAILED, 1, State.PENDING),
        (Outcome.TIMED_OUT, 1, State.PENDING),
        (Outcome.SIGNALLED, 1, State.PENDING),
        (Outcome.NOT_FOUND, 1, State.PENDING),
        (Outcome.NOT_STARTED, 1, State.PENDING),
    ],
)
def test_settled_job_is_where_its_outcome_sends_it(
    place: Place, outcome: Outcome, attempts: int, state: State
) -> None:
    """An outcome is recorded, and the job is in its state for everybody."""
    store = place.open()
    store.add([make_job("a")])
    claim, job = ended(claimed(store), outcome)
    settle(store, [(claim, job)])
    found = place.open().get("a")
    assert found == job
    assert (found.state, found.attempts) == (state, attempts)
    assert [attempt.outcome for attempt in found.history] == [outcome]
    assert store.pool.recover(decide).recovered == []


def test_failed_job_comes_back_until_it_is_dead(store: Store) -> None:
    """A job that always fails runs max_retries times, each later than before, and is dead then."""
    store.add([make_job("a")])
    now = NOON
    waits = []
    for number in (1, 2, 3):
        claim = claimed(store, now)
        assert claim.attempt == number
        claim, job = ended(claim, Outcome.FAILED)
        settle(store, [(claim, job)])
        if number < 3:
            waits.append((job.run_at - job.updated_at).total_seconds())
            assert claim_next(store, later(job.run_at, -0.001)) is None
            now = job.run_at
    assert waits == [2.0, 4.0]
    assert claim_next(store, LATER) is None
    assert store.get("a").state is State.DEAD
    assert store.get("a").attempts == 3


def test_several_claims_are_settled_together(store: Store) -> None:
    """A worker may settle many claims by one call, with an end for each."""
    store.add(make_jobs(*(f"j{n:02}" for n in range(20))))
    claims = [claimed(store) for _ in range(20)]
    outcomes = [Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED]
    settle(store, [ended(claim, outcomes[n % 3]) for n, claim in enumerate(claims)])
    by_state = store.counts(LATER).by_state
    assert by_state[State.COMPLETED] == 7
    assert by_state[State.PENDING] == 7
    assert by_state[State.CANCELLED] == 6
    assert by_state[State.PROCESSING] == 0


def test_settle_may_be_called_again(store: Store) -> None:
    """Settling what is settled does nothing."""
    store.add([make_job("a")])
    settlement = ended(claimed(store))
    settle(store, [settlement])
    settle(store, [settlement])
    assert len(store.get("a").history) == 1
    settle(store, [])


def test_job_given_back_is_as_it_was(place: Place) -> None:
    """A job given back has its old place in the order, and the attempt is not counted."""
    store = place.open()
    job = make_job("a", priority=3)
    store.add([job, make_job("b", priority=4)])
    store.queue.give_back(claimed(store))
    assert store.get("a") == job
    assert store.pool.recover(decide).recovered == []
    other = place.open()
    claim = claimed(other)
    assert (claim.job, claim.attempt) == (job, 1)


def test_job_given_back_for_later_waits_until_then(store: Store) -> None:
    """Others run before it, and its attempt is not counted."""
    store.add(make_jobs("a", "b", priority=3))
    due = later(LATER, 60.0)
    store.queue.give_back(claimed(store), due)
    assert store.get("a").run_at == due
    assert drain(store) == ["b"]
    claim = claimed(store, due)
    assert (claim.job.id, claim.job.priority, claim.attempt) == ("a", 3, 1)


def test_worker_that_gave_a_job_back_can_take_it_again(store: Store) -> None:
    """The job given back is next for the same worker, too."""
    store.add(make_jobs("a", "b"))
    store.queue.give_back(claimed(store))
    assert drain(store) == ["a", "b"]


def test_recovery_leaves_live_claims_alone(place: Place) -> None:
    """A job whose worker lives is not recovered, and counts as owned by that worker."""
    worker = place.open()
    worker.queue.register("w-live", NOON)
    worker.add([make_job("a")])
    claim = claimed(worker)
    report = place.open().pool.recover(decide)
    assert (report.recovered, report.unowned) == ([], 0)
    settle(worker, [ended(claim)])
    assert worker.get("a").state is State.COMPLETED


def claim_and_die(store: Store) -> None:
    """Be a worker that dies with a claim."""
    store.queue.register("w-dead", NOON)
    claimed(store)


def test_claim_of_a_dead_worker_is_lost_at_once(place: Place) -> None:
    """The job of a worker that died becomes a lost attempt, which counts and names the worker."""
    store = place.open()
    store.add([make_job("a")])
    place.process_that(claim_and_die)
    assert claim_next(store, LATER) is None
    (found,) = store.pool.recover(decide).recovered
    assert (found.job.id, found.attempt, found.lost) == ("a", 1, True)
    job = store.get("a")
    assert (job.state, job.attempts) == (State.PENDING, 1)
    (attempt,) = job.history
    assert (attempt.outcome, attempt.number, attempt.worker, attempt.log) == (
        Outcome.LOST,
        1,
        "w-dead",
        "a.1.log",
    )
    assert store.pool.recover(decide).recovered == []
    assert claimed(store).attempt == 2


def test_job_that_kills_its_worker_ends_dead_and_not_in_a_loop(place: Place) -> None:
    """A lost attempt follows the retry policy."""
    store = place.open()
    store.add([make_job("a")])
    for _ in range(3):
        place.process_that(claim_and_die)
        assert len(store.pool.recover(decide).recovered) == 1
    assert claim_next(store, LATER) is None
    assert store.get("a").state is State.DEAD
    assert [attempt.outcome for attempt in store.get("a").history] == [Outcome.LOST] * 3


def test_command_that_outlives_its_worker_keeps_the_claim(place: Place) -> None:
    """A job is not run a second time as long as the command of its dead worker lives."""
    store = place.open()
    store.add([make_job("a")])
    gate, hold = os.pipe()
    done, told = os.pipe()

    def start_command_and_die(other: Store) -> None:
        claim = claimed(other)
        actions: list[tuple[int, ...]] = [
            (os.POSIX_SPAWN_DUP2, gate, 0),
            (os.POSIX_SPAWN_DUP2, told, 1),
            (os.POSIX_SPAWN_CLOSE, hold),
            (os.POSIX_SPAWN_CLOSE, done),
        ]
        actions += [(os.POSIX_SPAWN_DUP2, *pair) for pair in claim.pass_fds]
        os.posix_spawn("/bin/cat", ["cat"], {}, file_actions=actions)

    place.process_that(start_command_and_die)
    os.close(told)
    os.close(gate)
    for _ in range(2):
        report = store.pool.recover(decide)
        assert (report.recovered, report.unowned) == ([], 1)
    assert claim_next(store, LATER) is None
    os.close(hold)  # the command ends
    assert os.read(done, 1) == b""
    os.close(done)
    # It has closed its output, and frees the claim a moment later.
    assert eventually(lambda: len(store.pool.recover(decide).recovered) == 1)


def eventually(what: Callable[[], bool]) -> bool:
    """Tell whether something becomes true, asking again and again for 20 seconds."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if what():
            return True
    return False


def test_workers_are_those_that_live(place: Place) -> None:
    """A worker's record is there while it lives, tells its job, and goes when it dies."""
    worker, other = place.open(), place.open()
    worker.queue.register("w-b", NOON)
    other.queue.register("w-a", NOON)
    assert [(each.name, each.pid, each.job) for each in place.open().workers.live()] == [
        ("w-a", os.getpid(), None),
        ("w-b", os.getpid(), None),
    ]
    worker.add([make_job("a")])
    claim = claimed(worker)
    record = place.open().workers.live()[1]
    assert (record.job, record.attempt) == ("a", 1)
    settle(worker, [ended(claim)])
    worker.queue.unregister()
    assert [each.name for each in place.open().workers.live()] == ["w-a"]
    place.process_that(lambda store: store.queue.register("w-dead", NOON))
    assert [each.name for each in place.open().workers.live()] == ["w-a"]


def test_tidy_keeps_live_workers(place: Place) -> None:
    """Tidying removes what the dead left behind, and nothing of the living."""
    worker = place.open()
    worker.queue.register("w-live", NOON)
    place.process_that(lambda store: store.queue.register("w-dead", NOON))
    place.open().pool.tidy()
    worker.pool.tidy()
    assert [each.name for each in place.open().workers.live()] == ["w-live"]


def test_arrivals_wake_a_worker(place: Place) -> None:
    """What another process adds, retries or gives back makes the descriptor readable."""
    worker, other = place.open(), place.open()
    assert claim_next(worker, LATER) is None
    assert not readable(worker.queue.arrivals_fd())
    other.add([make_job("a")])
    assert readable(worker.queue.arrivals_fd())
    claim = claimed(worker)
    assert claim_next(worker, LATER) is None
    assert not readable(worker.queue.arrivals_fd())
    settle(worker, [(claim, ended(claim)[1]._replace(state=State.CANCELLED))])
    other.retry("a", [State.CANCELLED], NOON)
    assert readable(worker.queue.arrivals_fd())
    assert claimed(other).job.id == "a"


def test_stop_request_is_seen_and_told_apart(place: Place) -> None:
    """Each request to stop is another one, and wakes whoever watches."""
    store = place.open()
    assert store.stop_requests.last() is None
    fd = store.stop_requests.fd()
    first = place.open().stop_requests.request(now=False)
    assert readable(fd)
    assert store.stop_requests.last() == first
    assert not readable(fd)
    second = place.open().stop_requests.request(now=True)
    assert store.stop_requests.last() == second
    assert first != second
    assert (first.now, second.now) == (False, True)


def test_request_to_stop_reaches_each_worker_by_itself(place: Place) -> None:
    """Those who live at that moment, that is, and no claim is taken for cancelled by it."""
    store = place.open()
    store.add(make_jobs("a", "b"))
    store.queue.register("w-1", NOON)
    claim = claimed(store)
    assert store.queue.stop_level() == 0
    store.stop_requests.request(now=False)
    assert not store.queue.cancel_requested(claim)
    assert store.queue.stop_level() == 1
    place.open().stop_requests.request(now=True)
    later_one = place.open()
    later_one.queue.register("w-2", NOON)
    other_claim = claimed(later_one)
    for worker, its_claim, level in ((store, claim, 2), (later_one, other_claim, 0)):
        assert not worker.queue.cancel_requested(its_claim)
        assert worker.queue.stop_level() == level


def test_a_pool_takes_each_job_once(shared_place: Place) -> None:
    """Workers that were forked from one store claim each job once, in order for each of them."""
    ids = [f"j{n:03}" for n in range(200)]
    parent = shared_place.open()
    parent.add(make_jobs(*ids))
    parent.pool.prepare()
    results, report = os.pipe()
    pids = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                text = "".join(f"{job_id}\n" for job_id in drain(parent))
                os.write(report, text.encode())
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    os.close(report)
    for pid in pids:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    with open(results, encoding="utf-8") as lines:
        assert sorted(lines.read().split()) == ids
    assert parent.counts(LATER).by_state[State.COMPLETED] == 200


def test_history_holds_every_attempt_that_ran(store: Store) -> None:
    """Attempts are numbered over the whole life of a job, and each is kept as it was recorded."""
    store.add([make_job("a", max_retries=10)])
    recorded = []
    for outcome in (Outcome.FAILED, Outcome.SIGNALLED, Outcome.TIMED_OUT, Outcome.SUCCEEDED):
        claim = claimed(store)
        recorded.append(attempt_of(claim, outcome))
        settle(store, [ended(claim, outcome)])
    job: Job = store.get("a")
    assert list(job.history) == recorded
    assert [attempt.number for attempt in job.history] == [1, 2, 3, 4]


def test_clock_that_was_set_back_is_noticed_behind_a_job_that_is_gone(place: Place) -> None:
    """What a worker knew to be next may be gone, and then tells nothing of the clock."""
    worker, person = place.open(), place.open()
    person.add([make_job("first", run_at=later(NOON, -60), updated_at=later(NOON, -60))])
    person.add([make_job("gone", run_at=later(NOON, -5), updated_at=later(NOON, -60))])
    person.add([make_job("put-off")])
    set_back = later(NOON, -30)
    assert claimed(worker, set_back).job.id == "first"
    assert dict(person.cancel(["gone"])) == {"gone": State.CANCELLED}
    assert claimed(worker, set_back).job.id == "put-off"

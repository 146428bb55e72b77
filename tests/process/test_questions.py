"""Every question about jobs is asked while other processes move them: no answer is wrong."""

import os
import random
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import filelock  # noqa: F401  (imported before a fork, not in it)
import pytest
from tests.jobs import ended, make_job, make_jobs, settle
from tests.process.support import Queue

from queuectl.clock import utc_now
from queuectl.errors import AmbiguousPrefix, DuplicateId, JobNotFound, WrongState
from queuectl.job import FINISHED, Outcome, State
from queuectl.query import find_job, select
from queuectl.store import files, open_store
from queuectl.store.protocol import Store

LARGE = bool(os.environ.get("QUEUECTL_TEST_LARGE"))
SEED = os.environ.get("QUEUECTL_TEST_SEED")
SECONDS = 60.0 if LARGE else 4.0
WAITING = 20_000 if LARGE else 2_000  # so many names have to be read to find one

PAIR = ("pair-a", "pair-b")
FAILING = (*PAIR, "solo-bouncer", "exact", "exact-and-longer")
RETRIED = ("round-0", "round-1", "child")
CANCELLED = "stop-and-go"
MOVING = (*FAILING, *RETRIED, CANCELLED)
RESTING = {
    "rest-completed": State.COMPLETED,
    "rest-dead": State.DEAD,
    "rest-cancelled": State.CANCELLED,
    "rest-blocked": State.BLOCKED,
    "far-0": State.PENDING,
}
KNOWN = (*MOVING, *RESTING)

Act = Callable[[Store, random.Random], None]


def fill(store: Store) -> None:
    """Add jobs that rest in each state, and those that are to be moved."""
    ahead = utc_now() + timedelta(days=365)
    store.add(make_jobs("rest-completed", "rest-dead", max_retries=1, run_at=utc_now()))
    claims = store.queue.claim(utc_now(), ["w"] * 2)
    outcomes = {"rest-completed": Outcome.SUCCEEDED, "rest-dead": Outcome.FAILED}
    settle(store, [ended(claim, outcomes[claim.job.id]) for claim in claims])
    store.add([make_job(f"far-{number}", run_at=ahead) for number in range(WAITING)])
    store.add([make_job("rest-blocked", after=("far-1",)), make_job("rest-cancelled")])
    assert list(store.cancel(["rest-cancelled"])) == [("rest-cancelled", State.CANCELLED)]
    often = {"max_retries": 1_000_000, "run_at": utc_now()}
    store.add([make_job(each, **often) for each in MOVING if each != "child"])
    store.add([make_job("child", after=("round-0",), after_any=("round-1",), **often)])


def run_jobs(store: Store, chance: random.Random) -> None:
    """Take what is due, let it fail, succeed, or give it back, as fast as it goes."""
    # As if no job had to wait for its backoff.
    claims = store.queue.claim(utc_now() + timedelta(days=30), ["w-storm"] * chance.randint(1, 4))
    for claim in claims:
        if chance.random() < 0.1:
            store.queue.give_back(claim)
        elif claim.job.id in RETRIED:
            settle(store, [ended(claim)])
        else:
            settle(store, [ended(claim, Outcome.FAILED)])
    store.pool.release_blocked()


def send_back(store: Store, chance: random.Random) -> None:
    """Retry what has ended; that one exists all the time must be known here, too."""
    with suppress(WrongState):
        store.retry(chance.choice((*RETRIED, CANCELLED)), FINISHED, utc_now())
    time.sleep(chance.uniform(0, 0.02))


def cancel(store: Store, chance: random.Random) -> None:
    """Cancel a job wherever it is."""
    (answer,) = store.cancel([CANCELLED])
    assert answer in [(CANCELLED, state) for state in FINISHED]
    time.sleep(chance.uniform(0, 0.02))


@contextmanager
def storm(queue: Queue, chance: random.Random, *acts: Act) -> Iterator[None]:
    """Let a process for each of the acts repeat it until the block is left."""
    pids = [_repeat(queue, act, f"w-{index}", chance.random()) for index, act in enumerate(acts)]
    try:
        yield
        over = [os.waitpid(pid, os.WNOHANG) for pid in pids]
        assert over == [(0, 0)] * len(pids), "a process of the storm has met a wrong answer"
    finally:
        for pid in pids:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _repeat(queue: Queue, act: Act, name: str, seed: float) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside xdist's threads
        pid = os.fork()
    if pid:
        return pid
    try:
        # No power fails here, and what needs no disk moves a hundred times as fast.
        os.fsync = lambda fd: None
        files.sync_file_system = lambda fd: True
        os.setsid()  # whoever cancels what this process runs ends no other
        store, chance = open_store(str(queue.store)), random.Random(seed)
        store.queue.register(name, utc_now())
        while True:
            act(store, chance)
    except BaseException:  # noqa: BLE001  (the test must not go on twice)
        import traceback

        traceback.print_exc()
    os._exit(1)


def check_ids(store: Store) -> None:
    """Ask for each job by its id."""
    for job_id in KNOWN:
        assert store.get(job_id).id == job_id
        assert find_job(store, job_id).id == job_id
    assert store.find(KNOWN).keys() == set(KNOWN)
    assert {job_id: store.find([job_id])[job_id].state for job_id in RESTING} == RESTING
    list(store.ends(KNOWN, 0.001))
    for ask in (store.get, store.resolve, lambda job_id: list(store.cancel([job_id]))):
        with pytest.raises(JobNotFound, match="no such job: nobody"):
            ask("nobody")


def check_prefixes(store: Store) -> None:
    """Ask for jobs by the beginnings of their ids."""
    assert store.resolve("solo").id == "solo-bouncer"
    assert store.resolve("exact").id == "exact"
    assert store.resolve("exact-").id == "exact-and-longer"
    with pytest.raises(AmbiguousPrefix, match=r"^'pair' is ambiguous: pair-a, pair-b$"):
        store.resolve("pair")


def check_changes(store: Store) -> None:
    """Ask for what cannot be done to a job that exists, and for what can."""
    for job_id in ("far-0", "rest-blocked"):
        with pytest.raises(WrongState):
            store.retry(job_id, FINISHED, utc_now())
    for job_id in ("solo-bouncer", "child", "rest-dead"):
        with pytest.raises(DuplicateId):
            store.add([make_job(job_id)], chosen=[job_id])
        store.add([make_job("new", after_any=(job_id,), run_at=utc_now())], chosen=["new"])
        for _, state in store.cancel(["new"]):
            assert state is not None
            assert store.purging.purge("new", state)


def check_lists(store: Store) -> None:
    """List and count all; what moves may be missing, what rests may not, and none is there twice.

    A job that moves on while it is counted is in two of the numbers.
    """
    now = utc_now()
    for limit in (20, None) if not LARGE else (20,):
        rows = list(select(store, tuple(State), now, limit=limit))
        found = Counter(row.entry.id for row in rows)
        assert max(found.values()) == 1
        assert limit is not None or found.keys() >= RESTING.keys()
        assert found.keys() <= {*KNOWN, *(f"far-{number}" for number in range(WAITING))}
    for state in FINISHED:
        listed = {row.entry.id for row in select(store, (state,), now)}
        assert f"rest-{state}" in listed
        assert listed <= {*MOVING, f"rest-{state}"}
        assert f"rest-{state}" in store.ids(state, "rest")
        assert 1 <= store.counts(now).by_state[state] <= 1 + len(MOVING)
    by_state = store.counts(now).by_state
    assert WAITING <= by_state[State.PENDING] <= WAITING + len(MOVING)
    assert 1 <= by_state[State.BLOCKED] <= 2
    assert by_state[State.PROCESSING] <= len(MOVING)


COMMANDS = (
    ("show", "solo"),
    ("show", "child", "--json"),
    ("wait", "round-1", "--timeout", "0.1s"),
    ("wait", "solo-bouncer", "--timeout", "0.1s"),
    ("logs", "pair-b"),
    ("dlq", "show", "solo-bouncer"),
    ("cancel", CANCELLED),
    ("retry", "solo-bouncer", "child"),
    ("dlq", "retry", "solo-bouncer", "rest-dead"),
    ("list", "--limit", "3"),
    ("status",),
    ("purge", "--dry-run"),
    ("doctor",),
)


def test_no_answer_is_wrong_while_jobs_move(queue: Queue) -> None:
    """Who asks for a job that exists all the time is never answered that there is none."""
    chance = random.Random(SEED)
    store = open_store(str(queue.store), create=True)
    fill(store)
    asked: Counter[str] = Counter()
    with storm(queue, chance, run_jobs, run_jobs, send_back, cancel):
        end_at = time.monotonic() + SECONDS
        while time.monotonic() < end_at or min(asked.values()) < 2:
            for check in (check_ids, check_prefixes, check_changes, check_lists):
                check(store)
                asked[check.__name__] += 1
            words = COMMANDS[asked["commands"] % len(COMMANDS)]
            asked["commands"] += 1
            answer = queue(*words)
            assert "no such job" not in answer.stderr, (words, answer)
            assert "Traceback" not in answer.stderr, (words, answer)
            if words != ("logs", "pair-b"):  # which has no output
                assert answer.exit_code in (0, 1, 65, 75), (words, answer)
    attempts = {job_id: store.get(job_id).next_attempt for job_id in MOVING}
    assert min(attempts[job_id] for job_id in FAILING) > 20, attempts
    assert min(attempts.values()) > 2, attempts
    store.close()


pytestmark = pytest.mark.timeout(300)

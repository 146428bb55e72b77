"""Jobs that wait for others: where they wait, when they go on, and what becomes of a missed end."""

from contextlib import closing
from typing import Any

import pytest
from tests.blocking import add, end, where
from tests.jobs import (
    LATER,
    NOON,
    claim_next,
    claimed,
    decide,
    drain,
    ended,
    fail_for_good,
    make_job,
    named_parents,
    settle,
)
from tests.stores import Place

from queuectl.clock import later
from queuectl.errors import CircularWait, DuplicateId, JobNotFound
from queuectl.job import Outcome, State
from queuectl.store.protocol import Store


def test_child_runs_when_its_parent_has_completed(store: Store) -> None:
    """It is in no way claimed before, and goes to pending with its own priority and time."""
    add(store, make_job("p"), make_job("c", after=("p",), priority=2, run_at=later(NOON, 7)))
    (entry,) = store.entries(State.BLOCKED, NOON)
    assert (entry.id, entry.parent, entry.parent_state) == ("c", "p", None)
    assert store.get("c").state is State.BLOCKED
    claim = claimed(store)
    assert claim.job.id == "p"
    assert claim_next(store, LATER) is None
    settle(store, [ended(claim)])
    (entry,) = store.entries(State.PENDING, NOON)
    assert (entry.id, entry.priority, entry.run_at) == ("c", 2, later(NOON, 7))
    assert drain(store) == ["c"]


def test_child_waits_for_all_of_its_parents(store: Store) -> None:
    """One parent after the other ends, and only then it runs."""
    add(store, *map(make_job, "pqr"), make_job("c", after=("p", "q", "r")))
    for parent in "pqr":
        (entry,) = store.entries(State.BLOCKED, NOON)
        assert (entry.id, entry.parent) == ("c", parent)
        assert end(store) == parent
    assert where(store, "c") == [State.PENDING]


def test_parents_that_have_completed_are_not_waited_for(store: Store) -> None:
    """A job whose parents are all done is pending at once."""
    add(store, make_job("p"))
    end(store)
    add(store, make_job("c", after=("p",), after_any=("p",)))
    assert where(store, "c") == [State.PENDING]


@pytest.mark.parametrize("state", [State.DEAD, State.CANCELLED])
def test_bad_end_of_a_parent(store: Store, state: State) -> None:
    """Who waits for its success stays blocked; who waits for any end goes on."""
    add(
        store,
        make_job("p", max_retries=1),
        make_job("strict", after=("p",)),
        make_job("any", after_any=("p",)),
        make_job("both", after=("p",), after_any=("p",)),
    )
    outcome = Outcome.FAILED if state is State.DEAD else Outcome.CANCELLED
    assert end(store, outcome) == "p"
    assert where(store, "p", "strict", "any", "both") == [
        state, State.BLOCKED, State.PENDING, State.BLOCKED,
    ]  # fmt: skip
    assert {each.parent_state for each in store.entries(State.BLOCKED, NOON)} == {state}
    assert store.pool.release_blocked()
    add(store, make_job("late", after=("p",)), make_job("late-any", after_any=("p",)))
    assert where(store, "late", "late-any") == [State.BLOCKED, State.PENDING]


def test_retry_of_a_dead_parent_lets_its_children_go_on(store: Store) -> None:
    """They wait until it has run again, whatever sweeps looked at them meanwhile."""
    add(store, make_job("p", max_retries=1), make_job("c", after=("p",)))
    fail_for_good(store)
    assert store.pool.release_blocked()
    assert claim_next(store, LATER) is None
    store.retry("p", [State.DEAD], NOON)
    assert store.pool.release_blocked()
    assert drain(store) == ["p", "c"]


def test_parent_that_fails_and_is_retried_is_waited_for(store: Store) -> None:
    """A failed attempt is no end."""
    add(store, make_job("p", max_retries=2), make_job("c", after_any=("p",)))
    end(store, Outcome.FAILED)
    assert where(store, "c") == [State.BLOCKED]
    end(store, Outcome.FAILED)
    assert where(store, "p", "c") == [State.DEAD, State.PENDING]


@pytest.mark.parametrize("key", ["after", "after_any"])
def test_unknown_parent_is_refused_before_anything_is_visible(store: Store, key: str) -> None:
    """A job cannot wait for one that does not exist, for itself, or for one that waits for it."""
    bad: dict[str, Any] = {key: ("p", "late")}
    with pytest.raises(JobNotFound, match="no such job to wait for: late; give the full id"):
        add(store, make_job("p"), make_job("c", **bad))
    own: dict[str, Any] = {key: ("c",)}
    with pytest.raises(CircularWait, match="circle: c -> c"):
        add(store, make_job("c", **own))
    with pytest.raises(CircularWait, match="circle: c -> d -> c"):
        add(store, make_job("c", after=("d",)), make_job("p"), make_job("d", **own))
    assert sum(store.counts(NOON).by_state.values()) == 0


def test_jobs_of_a_batch_wait_for_later_ones(store: Store) -> None:
    """They run in the order in which they wait, whatever the order of the batch is."""
    add(
        store,
        make_job("d", after=("b", "c")),
        make_job("b", after_any=("a",)),
        make_job("c", after=("a",)),
        make_job("a"),
    )
    assert store.counts(NOON).by_state[State.BLOCKED] == 3
    ran = drain(store)
    assert (ran[0], sorted(ran[1:3]), ran[3]) == ("a", ["b", "c"], "d")


def test_jobs_of_a_batch_wait_for_earlier_ones(store: Store) -> None:
    """A chain, a fan and a join of one batch run in their order; made-up ids serve as well."""
    store.add(
        [
            make_job("a"),
            make_job("b", after=("a",)),
            make_job("c", after=("a",)),
            make_job("d", after=("b", "c")),
        ]
    )
    assert store.counts(NOON).by_state[State.BLOCKED] == 3
    assert drain(store) == ["a", "b", "c", "d"]


def test_blocked_job_is_found_like_any_other(store: Store) -> None:
    """It is counted, listed, read, resolved, and its id is taken."""
    add(store, make_job("p"), make_job("child-1", after=("p",)))
    assert store.counts(NOON).by_state[State.BLOCKED] == 1
    assert store.resolve("chi").id == "child-1"
    (entry,) = store.entries(State.BLOCKED, NOON)
    job = store.read(entry)
    assert job is not None
    assert job == store.get("child-1")
    assert job.after == ("p",)
    with pytest.raises(DuplicateId, match="blocked"):
        add(store, make_job("child-1"))
    store.add([make_job("child-1")], chosen=["child-1"], skip_existing=True)
    assert where(store, "child-1") == [State.BLOCKED]


def test_job_that_is_skipped_is_not_asked_for_its_parents(store: Store) -> None:
    """What exists already is skipped though its parents were deleted since."""
    add(store, make_job("c"))
    store.add([make_job("c", after=("gone",))], chosen=["c"], skip_existing=True)
    assert where(store, "c") == [State.PENDING]


def test_named_parents_are_all_that_blocked_jobs_name(store: Store) -> None:
    """Those that were waited for already are named, too; none when nothing is blocked."""
    assert not named_parents(store)
    add(store, *map(make_job, "pqr"), make_job("c", after=("p", "q"), after_any=("r",)))
    end(store)
    assert named_parents(store) == {"p", "q", "r"}
    drain(store)
    assert not named_parents(store)


def test_retried_job_waits_for_its_parents_anew(store: Store) -> None:
    """A job that was cancelled while it was blocked does not run before its parent has."""
    add(store, make_job("p"), make_job("c", after=("p",)))
    assert list(store.cancel(["c"])) == [("c", State.CANCELLED)]
    assert store.retry("c", [State.CANCELLED], NOON).state is State.BLOCKED
    assert drain(store) == ["p", "c"]
    assert store.retry("c", [State.COMPLETED], NOON).state is State.PENDING


def test_retried_job_does_not_wait_for_what_was_purged(store: Store) -> None:
    """A parent that is gone was done once."""
    add(store, make_job("p"), make_job("c", after=("p",)))
    drain(store)
    assert store.purging.purge("p", State.COMPLETED)
    assert store.retry("c", [State.COMPLETED], NOON).state is State.PENDING


def test_retried_job_forgets_what_was_purged_also_where_it_waits_for_another(store: Store) -> None:
    """Else it would wait for ever for the one that is gone, as soon as the other has ended."""
    add(store, make_job("p"), make_job("q"), make_job("c", after=("p",), after_any=("p", "q")))
    list(store.cancel(["c"]))
    end(store)
    assert store.purging.purge("p", State.COMPLETED)
    assert store.retry("c", [State.CANCELLED], NOON).state is State.BLOCKED
    assert drain(store) == ["q", "c"]


def test_cancelled_parent_lets_go_on_whom_any_end_serves(store: Store) -> None:
    """Cancelling what waits is an end, too."""
    add(store, make_job("p"), make_job("c", after=("p",)), make_job("d", after_any=("c",)))
    list(store.cancel(["c"]))
    assert where(store, "c", "d") == [State.CANCELLED, State.PENDING]


def test_recovered_parent_lets_its_children_go_on(place: Place) -> None:
    """A parent whose worker was killed for good ends by recovery, and its children with it."""
    store = place.open()
    add(store, make_job("p", max_retries=1), make_job("c", after_any=("p",)))
    place.process_that(lose)
    assert len(store.pool.recover(decide).recovered) == 1
    assert where(store, "p", "c") == [State.DEAD, State.PENDING]


def lose(store: Store) -> None:
    """Claim a job and die with it."""
    claimed(store)


@pytest.mark.parametrize("who", ["one that remembers", "another one"])
def test_job_stays_under_the_parent_that_keeps_it(place: Place, store: Store, who: str) -> None:
    """What became of the other parents meanwhile, and who looks, makes no difference."""
    parents = [make_job("p", priority=9), make_job("d", max_retries=1)]
    add(store, *parents, make_job("b", after=("p", "d")))
    assert (end(store, Outcome.FAILED), end(store)) == ("d", "p")
    assert store.pool.release_blocked()
    for job_id in ("p", "d"):
        store.retry(job_id, (State.COMPLETED, State.DEAD), NOON)
    with closing(place.open()) as another:
        assert end(another if who == "another one" else store, Outcome.FAILED) == "d"
    (entry,) = store.entries(State.BLOCKED, NOON)
    assert (entry.id, entry.parent, entry.parent_state) == ("b", "d", State.DEAD)

"""Jobs that wait for others: where they wait, when they go on, and what becomes of a missed end."""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.contract.conftest import Place
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
)

from queuectl.clock import later
from queuectl.errors import CircularWait, DuplicateId, JobNotFound, StoreError, UnsafeStore
from queuectl.job import Job, Outcome, State
from queuectl.store import dependencies
from queuectl.store.base import Store
from queuectl.store.dependencies import Dependencies
from queuectl.store.index import Index


def add(store: Store, *jobs: Job) -> None:
    """Add jobs whose ids were chosen."""
    store.add(jobs, chosen=[job.id for job in jobs])


def end(store: Store, outcome: Outcome = Outcome.SUCCEEDED) -> str:
    """Run the next job, which must be there, and return its id."""
    claim = claimed(store)
    store.settle([ended(claim, outcome)])
    return claim.job.id


def where(store: Store, *ids: str) -> list[str]:
    """Return the states of jobs."""
    return [store.get(job_id).state for job_id in ids]


def directories(store: Store) -> list[str]:
    """Return the parents that jobs wait under."""
    return sorted(os.listdir(Path(store.location) / "blocked"))


def test_child_runs_when_its_parent_has_completed(store: Store) -> None:
    """It is in no way claimed before, and goes to pending with its own priority and time."""
    add(store, make_job("p"), make_job("c", after=("p",), priority=2, run_at=later(NOON, 7)))
    (entry,) = store.entries(State.BLOCKED, NOON)
    assert (entry.id, entry.parent, entry.parent_state) == ("c", "p", None)
    assert store.get("c").state is State.BLOCKED
    claim = claimed(store)
    assert claim.job.id == "p"
    assert claim_next(store, LATER) is None
    store.settle([ended(claim)])
    (entry,) = store.entries(State.PENDING, NOON)
    assert (entry.id, entry.priority, entry.run_at) == ("c", 2, later(NOON, 7))
    assert drain(store) == ["c"]
    assert directories(store) == []


def test_child_waits_for_all_of_its_parents(store: Store) -> None:
    """One parent after the other ends, and only then it runs."""
    add(store, *map(make_job, "pqr"), make_job("c", after=("p", "q", "r")))
    for under in "pqr":
        assert directories(store) == [under]
        assert end(store) == under
    assert where(store, "c") == [State.PENDING]


def test_parents_that_have_completed_are_not_waited_for(store: Store) -> None:
    """A job whose parents are all done is pending at once."""
    add(store, make_job("p"))
    end(store)
    add(store, make_job("c", after=("p",), after_any=("p",)))
    assert where(store, "c") == [State.PENDING]
    assert directories(store) == []


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
    assert store.release_blocked()
    add(store, make_job("late", after=("p",)), make_job("late-any", after_any=("p",)))
    assert where(store, "late", "late-any") == [State.BLOCKED, State.PENDING]


def test_retry_of_a_dead_parent_lets_its_children_go_on(store: Store) -> None:
    """They wait until it has run again, whatever sweeps looked at them meanwhile."""
    add(store, make_job("p", max_retries=1), make_job("c", after=("p",)))
    fail_for_good(store)
    assert store.release_blocked()
    assert claim_next(store, LATER) is None
    store.retry("p", [State.DEAD], NOON)
    assert store.release_blocked()
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
    with pytest.raises(JobNotFound, match="no such job: late, which is to be waited for"):
        add(store, make_job("p"), make_job("c", **bad))
    own: dict[str, Any] = {key: ("c",)}
    with pytest.raises(CircularWait, match="circle: c -> c"):
        add(store, make_job("c", **own))
    with pytest.raises(CircularWait, match="circle: c -> d -> c"):
        add(store, make_job("c", after=("d",)), make_job("p"), make_job("d", **own))
    assert sum(store.counts(NOON).by_state.values()) == 0
    assert directories(store) == []


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
    assert directories(store) == []


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
    assert store.purge("p", State.COMPLETED)
    assert store.retry("c", [State.COMPLETED], NOON).state is State.PENDING


def test_retried_job_forgets_what_was_purged_also_where_it_waits_for_another(store: Store) -> None:
    """Else it would wait for ever for the one that is gone, as soon as the other has ended."""
    add(store, make_job("p"), make_job("q"), make_job("c", after=("p",), after_any=("p", "q")))
    list(store.cancel(["c"]))
    end(store)
    assert store.purge("p", State.COMPLETED)
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
    assert len(store.recover(decide).recovered) == 1
    assert where(store, "p", "c") == [State.DEAD, State.PENDING]


def lose(store: Store) -> None:
    """Claim a job and die with it."""
    claimed(store)


def test_parent_that_ends_while_a_child_is_placed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An end between the look at the parent and the placing is seen by a second look."""
    store = place.open()
    add(store, make_job("p"))
    worker = place.open()
    worker.register("w-1", NOON)
    claim = claimed(worker)
    put = Dependencies.put

    def ends_before(self: Dependencies, *args: Any) -> None:
        worker.settle([ended(claim)])
        put(self, *args)

    monkeypatch.setattr(Dependencies, "put", ends_before)
    add(store, make_job("c", after=("p",)))
    assert where(store, "p", "c") == [State.COMPLETED, State.PENDING]
    assert directories(store) == []


def test_next_parent_that_ends_while_a_child_moves_under_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same when a child moves from one parent to the next."""
    store = place.open()
    add(store, make_job("p"), make_job("q"), make_job("c", after=("p", "q")))
    worker = place.open()
    worker.register("w-1", NOON)
    first, second = claimed(store), claimed(worker)
    put = Dependencies.put

    def ends_before(self: Dependencies, *args: Any) -> None:
        worker.settle([ended(second)])
        put(self, *args)

    monkeypatch.setattr(Dependencies, "put", ends_before)
    store.settle([ended(first)])
    assert where(store, "p", "q", "c") == [State.COMPLETED, State.COMPLETED, State.PENDING]


def test_directory_removed_while_a_child_is_placed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep that removes an empty directory under a child that comes is no loss."""
    add(store, make_job("p"))
    real = Index.open_parent
    removals: list[str] = []

    def opened_then_removed(self: Index, parent: str) -> int | None:
        fd = real(self, parent)
        if fd is not None and not removals:
            removals.append(parent)
            (Path(store.location) / "blocked" / parent).rmdir()
        return fd

    monkeypatch.setattr(Index, "open_parent", opened_then_removed)
    add(store, make_job("c", after=("p",)))
    assert removals == ["p"]
    assert drain(store) == ["p", "c"]


@pytest.fixture
def missed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let ends of parents be missed, as by a crash; return what lets them be seen again."""
    monkeypatch.setattr(Dependencies, "release", lambda self, parent: None)
    return monkeypatch.undo


def test_sweep_finds_ends_that_were_missed(store: Store, missed: Callable[[], None]) -> None:
    """What a crash left blocked goes on, and empty directories are removed."""
    add(store, make_job("p"), make_job("q"), make_job("c", after=("p",)))
    add(store, make_job("d", after=("q",)))
    end(store)
    missed()
    assert where(store, "c", "d") == [State.BLOCKED, State.BLOCKED]
    assert store.release_blocked()  # d is blocked still
    assert where(store, "c", "d") == [State.PENDING, State.BLOCKED]
    drain(store)
    (Path(store.location) / "blocked" / "empty").mkdir(mode=0o700)
    assert not store.release_blocked()
    assert directories(store) == []


def test_sweep_tells_of_a_child_that_it_moves_on_to_the_next_parent(
    store: Store, missed: Callable[[], None]
) -> None:
    """Where none waited before, one waits now, and idle workers must look again soon."""
    add(store, make_job("p"), make_job("q"), make_job("c", after=("p", "q")))
    assert end(store) == "p"
    missed()
    assert directories(store) == ["p"]
    assert store.release_blocked()
    assert directories(store) == ["q"]
    assert drain(store) == ["q", "c"]
    assert not store.release_blocked()


def test_sweep_does_not_read_again_what_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands that wait for a dead job are looked at once, until something changes."""
    add(store, make_job("p", max_retries=1), make_job("c", after=("p",)))
    end(store, Outcome.FAILED)
    assert store.release_blocked()
    looks: list[str] = []

    def look(self: Dependencies, parent: str, children: list[str]) -> bool:
        looks.append(parent)
        return True

    monkeypatch.setattr(Dependencies, "_release_some", look)
    assert store.release_blocked()
    assert looks == []
    add(store, make_job("d", after=("p",)))
    assert store.release_blocked()
    assert looks == ["p"]


@pytest.mark.parametrize("who", ["one that remembers", "another one"])
def test_job_stays_under_the_parent_that_keeps_it(place: Place, store: Store, who: str) -> None:
    """What became of the other parents meanwhile, and who looks, makes no difference."""
    parents = [make_job("p", priority=9), make_job("d", max_retries=1)]
    add(store, *parents, make_job("b", after=("p", "d")))
    assert (end(store, Outcome.FAILED), end(store)) == ("d", "p")
    assert store.release_blocked()
    for job_id in ("p", "d"):
        store.retry(job_id, (State.COMPLETED, State.DEAD), NOON)
    with closing(place.open()) as another:
        assert end(another if who == "another one" else store, Outcome.FAILED) == "d"
    (entry,) = store.entries(State.BLOCKED, NOON)
    assert (entry.id, entry.parent, entry.parent_state) == ("b", "d", State.DEAD)


def test_many_children_go_on_in_turns(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """All go on, though pending.lock is held for a few of them at a time."""
    monkeypatch.setattr(dependencies, "_AT_ONCE", 3)
    ids = [f"c{number}" for number in range(10)]
    add(store, make_job("p"), *(make_job(each, after=("p",)) for each in ids))
    assert end(store) == "p"
    assert sorted(drain(store)) == sorted(ids)


def test_blocked_jobs_cost_claims_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim and a settle of others open, list and read nothing in blocked/."""
    add(store, make_job("p", run_at=later(LATER, 60)))
    add(store, *(make_job(f"c{number}", after=("p",)) for number in range(20)))
    add(store, make_job("other"))
    monkeypatch.setattr(Dependencies, "release", lambda *args: pytest.fail("looked at a child"))
    monkeypatch.setattr(
        Index, "children", lambda *args: pytest.fail("listed children"), raising=True
    )
    assert drain(store) == ["other"]


def test_child_in_other_hands_is_left_for_the_sweep(place: Place) -> None:
    """Whoever holds the lock moves the job: a held child stays, and goes on when it is free."""
    from queuectl.store import files

    store = place.open()
    add(store, make_job("p"), make_job("c", after=("p",)))
    fd = os.open(place.path / "blocked/p/c.json", os.O_RDONLY)
    assert files.lock(fd)
    end(store)
    assert where(store, "c") == [State.BLOCKED]
    os.close(fd)
    assert not store.release_blocked()
    assert where(store, "c") == [State.PENDING]


def test_child_put_there_by_hand_waits_for_the_directory(place: Place) -> None:
    """``mv pending/... blocked/p/`` means what it looks like."""
    store = place.open()
    add(store, make_job("p", max_retries=1), make_job("c", run_at=later(NOON, 1)))
    (name,) = (place.path / "pending").glob("*-c.json")
    (place.path / "blocked/p").mkdir(mode=0o700)
    name.rename(place.path / "blocked/p/c.json")
    fail_for_good(store)
    assert where(store, "c") == [State.BLOCKED]
    store.retry("p", [State.DEAD], NOON)
    assert drain(store) == ["p", "c"]


def test_unreadable_child_is_set_aside(place: Place) -> None:
    """A document that cannot be read goes to corrupt/, unless it may still be being written."""
    store = place.open()
    add(store, make_job("p"), make_job("c", after=("p",)))
    child = place.path / "blocked/p/c.json"
    child.write_text("{")
    end(store)
    assert child.exists()
    os.utime(child, (1, 1))
    assert not store.release_blocked()
    assert (place.path / "corrupt/c.json").read_text() == "{"
    assert "blocked/p/c.json: " in (place.path / "corrupt/c.json.reason").read_text()


def test_what_is_no_directory_of_a_parent_is_left_alone(place: Place) -> None:
    """Files and names that are no ids in blocked/ disturb nobody."""
    store = place.open()
    (place.path / "blocked/README.json").write_text("hello")
    (place.path / "blocked/.hidden").mkdir()
    assert store.counts(NOON).by_state[State.BLOCKED] == 0
    assert not store.release_blocked()
    add(store, make_job("README.json"))
    with pytest.raises(StoreError, match=r"blocked/README\.json is no directory"):
        add(store, make_job("c", after=("README.json",)))
    assert drain(store) == ["README.json"]


@pytest.mark.parametrize("loose", ["symlink", "mode"])
def test_directory_of_a_parent_that_others_can_change_is_refused(
    place: Place, tmp_path: Path, loose: str
) -> None:
    """Neither is a symlink followed nor a directory used that others can write to."""
    store = place.open()
    add(store, make_job("p"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    path = place.path / "blocked/p"
    if loose == "symlink":
        path.symlink_to(elsewhere)
    else:
        path.mkdir()
        path.chmod(0o777)
    with pytest.raises(UnsafeStore, match="blocked/p "):
        store.counts(NOON)
    with pytest.raises(UnsafeStore):
        store.add([make_job("c", after=("p",))])
    assert list(elsewhere.iterdir()) == []
    assert list((place.path / "tmp").iterdir()) == []
    assert drain(store) == ["p"]


def test_retry_of_a_child_is_durable_before_it_is_told(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power failure it must not lie with those that have ended, as if never sent back."""
    add(store, make_job("p"), make_job("c", after=("p",)))
    list(store.cancel(["c"]))
    end(store)
    synced: list[tuple[int, bool]] = []
    pending = Path(store.location) / "pending"
    fsync = os.fsync

    def note(fd: int) -> None:
        synced.append((os.fstat(fd).st_ino, any(pending.iterdir())))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", note)
    assert store.retry("c", [State.CANCELLED], NOON).state is State.PENDING
    assert (pending.stat().st_ino, True) in synced

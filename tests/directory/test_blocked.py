"""The directories in which blocked jobs wait: races, missed ends, and changes by hand."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.blocking import add, end, where
from tests.directory.conftest import Place
from tests.jobs import (
    LATER,
    NOON,
    claimed,
    drain,
    ended,
    fail_for_good,
    make_job,
    settle,
)

from queuectl.clock import later
from queuectl.errors import CircularWait, JobNotFound, StoreError, UnsafeStore
from queuectl.job import Outcome, State
from queuectl.store import dependencies
from queuectl.store.dependencies import Dependencies
from queuectl.store.index import Index
from queuectl.store.protocol import Store


def directories(store: Store) -> list[str]:
    """Return the parents that jobs wait under."""
    return sorted(os.listdir(Path(store.location) / "blocked"))


def test_directory_of_a_parent_lasts_as_long_as_a_job_waits_in_it(store: Store) -> None:
    """It goes with the last job, and jobs that are refused or need not wait leave none."""
    with pytest.raises(JobNotFound):
        add(store, make_job("p"), make_job("c", after=("p", "late")))
    with pytest.raises(CircularWait):
        add(store, make_job("c", after=("d",)), make_job("p"), make_job("d", after_any=("c",)))
    assert directories(store) == []
    add(store, *map(make_job, "pqr"), make_job("c", after=("p", "q", "r")))
    for parent in "pqr":
        assert directories(store) == [parent]
        assert end(store) == parent
    assert directories(store) == []
    add(store, make_job("not-blocked", after=("p",), after_any=("p",)))
    assert directories(store) == []
    add(store, make_job("z", after=("x", "y")), make_job("y", after=("x",)), make_job("x"))
    assert len(drain(store)) == 5
    assert directories(store) == []


def test_parent_that_ends_while_a_child_is_placed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An end between the look at the parent and the placing is seen by a second look."""
    store = place.open()
    add(store, make_job("p"))
    worker = place.open()
    worker.queue.register("w-1", NOON)
    claim = claimed(worker)
    put = Dependencies.put

    def ends_before(self: Dependencies, *args: Any) -> None:
        settle(worker, [ended(claim)])
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
    worker.queue.register("w-1", NOON)
    first, second = claimed(store), claimed(worker)
    put = Dependencies.put

    def ends_before(self: Dependencies, *args: Any) -> None:
        settle(worker, [ended(second)])
        put(self, *args)

    monkeypatch.setattr(Dependencies, "put", ends_before)
    settle(store, [ended(first)])
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
    assert store.pool.release_blocked()  # d is blocked still
    assert where(store, "c", "d") == [State.PENDING, State.BLOCKED]
    drain(store)
    (Path(store.location) / "blocked" / "empty").mkdir(mode=0o700)
    assert not store.pool.release_blocked()
    assert directories(store) == []


def test_sweep_tells_of_a_child_that_it_moves_on_to_the_next_parent(
    store: Store, missed: Callable[[], None]
) -> None:
    """Where none waited before, one waits now, and idle workers must look again soon."""
    add(store, make_job("p"), make_job("q"), make_job("c", after=("p", "q")))
    assert end(store) == "p"
    missed()
    assert directories(store) == ["p"]
    assert store.pool.release_blocked()
    assert directories(store) == ["q"]
    assert drain(store) == ["q", "c"]
    assert not store.pool.release_blocked()


def test_sweep_does_not_read_again_what_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands that wait for a dead job are looked at once, until something changes."""
    add(store, make_job("p", max_retries=1), make_job("c", after=("p",)))
    end(store, Outcome.FAILED)
    assert store.pool.release_blocked()
    looks: list[str] = []

    def look(self: Dependencies, parent: str, children: list[str]) -> bool:
        looks.append(parent)
        return True

    monkeypatch.setattr(Dependencies, "_release_some", look)
    assert store.pool.release_blocked()
    assert looks == []
    add(store, make_job("d", after=("p",)))
    assert store.pool.release_blocked()
    assert looks == ["p"]


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
    assert not store.pool.release_blocked()
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
    assert not store.pool.release_blocked()
    assert (place.path / "corrupt/c.json").read_text() == "{"
    assert "blocked/p/c.json: " in (place.path / "corrupt/c.json.reason").read_text()


def test_what_is_no_directory_of_a_parent_is_left_alone(place: Place) -> None:
    """Files and names that are no ids in blocked/ disturb nobody."""
    store = place.open()
    (place.path / "blocked/README.json").write_text("hello")
    (place.path / "blocked/.hidden").mkdir()
    assert store.counts(NOON).by_state[State.BLOCKED] == 0
    assert not store.pool.release_blocked()
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

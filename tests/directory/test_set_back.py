"""A clock that is set back puts nothing off that was to run at once or after a failure."""

import os

import pytest
from tests.directory.conftest import Place
from tests.jobs import NOON, claim_next, claimed, drain, ended, make_job, make_jobs, settle

from queuectl.clock import later
from queuectl.job import Outcome, State
from queuectl.store import files, setback
from queuectl.store.protocol import Store
from queuectl.store.scan import PendingScan

HOUR = 3600.0


def test_worker_that_knows_no_waiting_job_any_more_still_knows_of_the_clock(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory is full of what came and went; what comes first waits for its own time."""
    monkeypatch.setattr(PendingScan.__init__, "__defaults__", (3, 2))
    store, other = place.open(), place.open()
    assert claim_next(store, NOON) is None
    now = NOON
    other.add([make_job("fails"), make_job("waits", run_at=later(NOON, 5), priority=9)])
    for _ in range(2):
        now = later(now, 5)
        claim = claim_next(other, now)
        assert claim is not None
        assert claim.job.id == "fails"
        settle(other, [ended(claim, Outcome.FAILED)])
    now = later(now, -HOUR)
    assert claim_next(store, now) is None
    due = {entry.id: entry.run_at for entry in store.entries(State.PENDING, now)}
    assert due == {"fails": later(now, 4), "waits": later(NOON, 5)}
    assert store.queue.next_due() == due["fails"]


def test_others_have_a_turn_while_many_jobs_are_put_right(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pending.lock is held for a few of them at a time, and their order stays."""
    monkeypatch.setattr(setback, "_READ_AT_ONCE", 2)
    store = place.open()
    jobs = make_jobs(*"edcba")
    store.add(jobs)
    now = later(NOON, -HOUR)
    put_off = place.open()
    lock = put_off.core.lock  # type: ignore[attr-defined]
    acquire, locks = lock._acquire, []

    def locked() -> int:
        locks.append(1)
        fd: int = acquire()
        return fd

    monkeypatch.setattr(lock, "_acquire", locked)
    claims = put_off.queue.claim(now, ["w"] * 5)
    assert [claim.job.id for claim in claims] == list("edcba")
    assert len(locks) == 3
    settle(put_off, [ended(claim) for claim in claims])


def test_job_behind_all_that_a_worker_knew_of_tells_that_the_clock_was_set_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it knew of is gone, and it had no room for more."""
    monkeypatch.setattr(PendingScan.__init__, "__defaults__", (3, 2))
    worker, other = place.open(), place.open()
    earlier, now = later(NOON, -100), later(NOON, -60)
    other.add(make_jobs("a", "b", created_at=earlier, updated_at=earlier))
    put_off_until = later(NOON, 9)
    other.add([make_job("put-off", updated_at=put_off_until, run_at=put_off_until)])
    assert claim_next(worker, now) is None
    assert len(list(other.cancel(["a", "b"]))) == 2
    claim = claim_next(worker, now)
    assert claim is not None
    assert claim.job.id == "put-off"


def test_clock_that_was_set_back_leaves_only_what_was_asked_for_to_the_clock(
    place: Place, store: Store
) -> None:
    """What was due is due in its order, a backoff is waited for, an instant stays."""
    before = later(NOON, -3600.0)
    store.add(make_jobs("a", "b"))
    store.add([make_job("asked-for", run_at=later(NOON, 60.0))])
    backoff = make_job("backoff", attempts=1, run_at=later(NOON, 20.0))
    store.add([backoff, make_job("urgent", priority=0)])
    other = place.open()
    assert drain(other, before) == ["urgent", "a", "b"]
    names = sorted(path.name[2:] for path in (place.path / "pending").iterdir())
    assert [name.partition("Z-")[2] for name in names] == ["backoff.json", "asked-for.json"]
    assert other.queue.next_due() == later(before, 20.0)
    assert drain(other, later(before, 19.9)) == []
    assert drain(other, later(before, 20.0)) == ["backoff"]
    assert drain(other, later(NOON, 59.0)) == []
    assert drain(other, later(NOON, 60.0)) == ["asked-for"]


def test_job_that_was_put_off_by_a_clock_that_was_set_back_is_looked_at(
    place: Place, store: Store
) -> None:
    """That somebody held its lock a moment ago does not put it off for an hour."""
    store.add(make_jobs("a"))
    (path,) = (place.path / "pending").iterdir()
    fd = os.open(path, os.O_RDONLY)
    assert files.lock(fd)
    assert claim_next(store, later(NOON, 5.0)) is None
    os.close(fd)
    assert claimed(store, later(NOON, -3600.0)).job.id == "a"


def test_clock_that_is_set_right_by_a_little_changes_no_name(place: Place, store: Store) -> None:
    """A few seconds are waited out: names are not changed for what ntp does."""
    store.add(make_jobs("a", run_at=later(NOON, 1.0)))
    before = sorted(os.listdir(place.path / "pending"))
    assert claim_next(store, NOON) is None
    assert claim_next(store, later(NOON, -9.0)) is None
    assert sorted(os.listdir(place.path / "pending")) == before

"""What a worker knows of pending/ between two scans, and when it scans again."""

import os
from pathlib import Path

import pytest
from tests.directory.conftest import Place
from tests.directory.support import name_of
from tests.jobs import LATER, NOON, claim_next, claimed, drain, ended, make_job, make_jobs, settle

from queuectl.clock import later
from queuectl.document import encode_job
from queuectl.store import files
from queuectl.store.directory import DirectoryStore
from queuectl.store.scan import PendingScan


@pytest.fixture
def small(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> DirectoryStore:
    """Return a store whose scans keep four due names or more, and two that are due later."""
    monkeypatch.setattr(PendingScan.__init__, "__defaults__", (4, 2))
    return store


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows with each scan of pending/; more than 200 are an error."""
    done: list[str] = []
    original = PendingScan._scan

    def scan(self: PendingScan, now: str) -> None:
        done.append(now)
        assert len(done) <= 200, "it scans without an end"
        original(self, now)

    monkeypatch.setattr(PendingScan, "_scan", scan)
    return done


def test_order_is_kept_over_many_scans(
    place: Place, small: DirectoryStore, scans: list[str]
) -> None:
    """A backlog larger than a scan keeps runs in its order, and each scan serves many claims."""
    jobs = [
        make_job(f"j{index:02}", priority=index * 7 % 10, run_at=later(NOON, index * 11 % 17))
        for index in range(40)
    ]
    place.open().add(jobs)
    order = [job.id for job in sorted(jobs, key=lambda job: (job.priority, job.run_at, job.id))]
    assert drain(small) == order
    assert len(scans) <= 40 / 4 + 2


def test_urgent_arrival_is_next_also_with_a_long_backlog(
    place: Place, small: DirectoryStore, scans: list[str]
) -> None:
    """What arrives after a scan is taken in its turn, before or between those that were found."""
    other = place.open()
    other.add(make_jobs(*(f"j{index:02}" for index in range(20))))
    assert claimed(small).job.id == "j00"
    other.add([make_job("urgent", priority=0)])
    other.add([make_job("low", priority=9)])
    other.add([make_job("between", run_at=later(NOON, 2.5 / 1_000_000))])
    rest = [f"j{index:02}" for index in range(1, 20)]
    # 2.5 microseconds are cut to 2, and the id decides: between < j02.
    assert drain(small) == ["urgent", rest[0], "between", *rest[1:], "low"]
    assert len(scans) <= 20 / 4 + 3


def test_jobs_that_become_due_while_others_are_handed_out_take_their_turn(
    place: Place, small: DirectoryStore, scans: list[str]
) -> None:
    """A job that becomes due between two claims is taken when its priority says so."""
    place.open().add(
        [
            *make_jobs(*(f"j{index}" for index in range(8)), priority=5),
            make_job("soon-urgent", priority=1, run_at=later(NOON, 10)),
            make_job("later-urgent", priority=0, run_at=later(NOON, 20)),
            make_job("last-urgent", priority=2, run_at=later(NOON, 30)),
            make_job("soon-low", priority=8, run_at=later(NOON, 11)),
        ]
    )
    ran = []
    for seconds in (1, 2, 12, 13, 25, 26, 27, 31, 32, 33, 34, 35):
        claim = claimed(small, later(NOON, seconds))
        ran.append(claim.job.id)
        settle(small, [ended(claim)])
    assert ran == [
        "j0", "j1", "soon-urgent", "j2", "later-urgent", "j3", "j4", "last-urgent", "j5", "j6",
        "j7", "soon-low",
    ]  # fmt: skip
    assert claim_next(small, LATER) is None
    assert len(scans) <= 8


def test_waiting_for_what_is_due_needs_no_scan(
    place: Place, small: DirectoryStore, scans: list[str]
) -> None:
    """While nothing becomes due, asking again and again does not scan again."""
    place.open().add([make_job(f"j{index}", run_at=later(NOON, 10 + index)) for index in range(10)])
    for _ in range(50):
        assert claim_next(small, NOON) is None
        assert small.queue.next_due() == later(NOON, 10)
    assert len(scans) == 1
    for index in range(10):
        assert claimed(small, later(NOON, 10 + index)).job.id == f"j{index}"
    assert len(scans) <= 1 + 10 / 2 + 1


@pytest.mark.parametrize("what", ["held", "torn", "newer", "fifo", "symlink", "running", "strange"])
def test_nothing_in_pending_makes_a_worker_spin(
    place: Place, small: DirectoryStore, pending: Path, scans: list[str], what: str
) -> None:
    """More names than a scan keeps, none of which can be run, cost a few scans and no more."""
    held = []
    for index in range(11):
        path = pending / (f"s{index}.json" if what == "strange" else name_of(f"o{index}", index))
        if what == "fifo":
            os.mkfifo(path)
        elif what == "symlink":
            path.symlink_to("/etc/hostname")
        elif what == "newer":
            path.write_text('{"schema": 2}')
        elif what in ("torn", "strange"):
            path.write_text('{"comm')
        else:
            path.write_bytes(encode_job(make_job(f"o{index}")))
        if what == "held":
            held.append(os.open(path, os.O_RDONLY))
            assert files.lock(held[-1])
        if what == "running":
            (place.path / "processing" / f"o{index}.1.json").write_bytes(path.read_bytes())
    place.open().add([make_job("good", priority=9, run_at=LATER)])
    assert drain(small) == ["good"]
    found = len(scans)
    assert found <= 8
    for _ in range(20):
        assert claim_next(small, LATER) is None
    assert len(scans) == found
    due = small.queue.next_due()
    assert due is None or due > LATER
    for fd in held:
        os.close(fd)
    if what == "held":
        assert drain(small, later(LATER, 2)) == [f"o{index}" for index in range(11)]


def test_arrivals_that_the_kernel_did_not_tell_are_found_by_a_scan(
    place: Place, store: DirectoryStore, scans: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An overflow of the kernel's queue costs one scan, and loses nothing."""
    assert claim_next(store, LATER) is None
    place.open().add(make_jobs("a", "b"))
    watch = store.parts.scan.watch
    watch.arrivals()  # they are lost
    assert claim_next(store, LATER) is None
    with monkeypatch.context() as patched:
        patched.setattr(watch, "arrivals", lambda: None)
        assert claimed(store).job.id == "a"
    assert claimed(store).job.id == "b"
    assert len(scans) == 2


def test_workers_of_a_pool_see_each_arrival_once(place: Place, store: DirectoryStore) -> None:
    """Of two workers that were told of the same arrival, one claims it and the other goes on."""
    first, second = store, place.open()
    assert claim_next(first, LATER) is None
    assert claim_next(second, LATER) is None
    place.open().add(make_jobs("a", "b"))
    assert claimed(first).job.id == "a"
    assert claimed(second).job.id == "b"
    assert claim_next(first, LATER) is None
    assert claim_next(second, LATER) is None

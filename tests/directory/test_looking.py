"""Where the kernel does not tell of arrivals, a worker looks for them, at a bounded cost."""

import time
from typing import Any

import inotify_simple
import pytest
from tests.directory.conftest import Place
from tests.jobs import NOON, claim_next, claimed, make_job

from queuectl.store import claiming, scan
from queuectl.store.directory import DirectoryStore
from queuectl.store.scan import PendingScan


class _Clock:
    """A clock that goes on when it is told to, and by the length of a scan at each."""

    def __init__(self) -> None:
        """Begin long after the files were changed."""
        self.now = 1e9
        self.scan_seconds = 0.0
        self.scans = 0

    def monotonic(self) -> float:
        """Return the seconds."""
        return self.now

    def time_ns(self) -> int:
        """Return an instant that is later than the time of any file."""
        return 2**62

    def time(self) -> float:
        """Return what the wall clock shows."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Sleep as it does."""
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    """Take inotify away; return the clock by which is looked."""
    made = _Clock()
    for module in (claiming, scan):
        monkeypatch.setattr(module, "time", made)

    def refuse(**_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(inotify_simple, "INotify", refuse)
    read = PendingScan._read_names

    def read_slowly(self: PendingScan, *arguments: Any) -> None:
        made.now += made.scan_seconds
        made.scans += 1
        read(self, *arguments)

    monkeypatch.setattr(PendingScan, "_read_names", read_slowly)
    return made


@pytest.fixture
def store(place: Place, clock: _Clock) -> DirectoryStore:
    """Return a store whose worker looks."""
    opened = place.open()
    assert isinstance(opened, DirectoryStore)
    assert opened.queue.arrivals_fd() is None
    return opened


def test_a_short_queue_is_looked_at_all_the_time(
    place: Place, clock: _Clock, store: DirectoryStore
) -> None:
    """What has arrived is found by the next look, and nothing is scanned for that has not."""
    other = place.open()
    for number in range(5):
        assert claim_next(store, NOON) is None
        other.add([make_job(f"j{number}")])
        clock.now += store.queue.poll_seconds
        assert claimed(store).job.id == f"j{number}"
        clock.now += store.queue.poll_seconds
    assert claim_next(store, NOON) is None
    scans = clock.scans
    for _ in range(20):
        clock.now += store.queue.poll_seconds
        assert claim_next(store, NOON) is None
    assert clock.scans == scans


def test_scans_of_a_long_queue_take_a_tenth_of_the_time(
    place: Place, clock: _Clock, store: DirectoryStore
) -> None:
    """However often jobs arrive."""
    clock.scan_seconds = 1.0
    assert claim_next(store, NOON) is None
    clock.scans, begun = 0, clock.now
    other, number = place.open(), 0
    while clock.now < begun + 100:
        other.add([make_job(f"j{number}", run_at=NOON.replace(year=2030))])
        assert claim_next(store, NOON) is None
        clock.now += store.queue.poll_seconds
        number += 1
    assert 8 <= clock.scans <= 11


def test_who_may_leave_looks_first(place: Place, clock: _Clock, store: DirectoryStore) -> None:
    """With drain, the last claim misses nothing, however long a scan takes."""
    clock.scan_seconds = 1.0
    assert claim_next(store, NOON) is None
    place.open().add([make_job("last")])
    assert claim_next(store, NOON) is None
    assert not store.pool.is_busy()
    assert claimed(store).job.id == "last"

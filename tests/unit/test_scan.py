"""In which order one process goes through ``pending/``, and how little of it it holds."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.jobs import NOON

from queuectl.clock import later
from queuectl.store.bounded import Smallest
from queuectl.store.layout import StoreDirectory
from queuectl.store.names import due_text, pending_name
from queuectl.store.scan import PendingScan

NOW = due_text(NOON)


def at(seconds: float) -> str:
    """Return an instant so long after noon, as a name holds it."""
    return due_text(later(NOON, seconds))


def name(job_id: str, seconds: float = 0.0, priority: int = 5) -> str:
    """Return the name of a job that is due so long after noon."""
    return pending_name(priority, later(NOON, seconds), job_id)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[StoreDirectory]:
    """Return the directories of an empty store."""
    made = StoreDirectory(str(tmp_path / "store"), create=True)
    yield made
    made.close()


@pytest.fixture
def pending(directory: StoreDirectory) -> Path:
    """Return the directory that is scanned."""
    return Path(directory.location) / "pending"


def small_scan(directory: StoreDirectory) -> PendingScan:
    """Return a scan that keeps four due names or more, and two that are due later."""
    return PendingScan(directory, 4, 2)


@pytest.fixture
def scan(directory: StoreDirectory) -> PendingScan:
    """Return such a scan."""
    return small_scan(directory)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows with each time that a directory is read."""
    done: list[str] = []
    original = PendingScan._scan

    def scanned(scan: PendingScan, now: str) -> None:
        done.append(now)
        original(scan, now)

    monkeypatch.setattr(PendingScan, "_scan", scanned)
    return done


def take_one(scan: PendingScan, now: str = NOW) -> str | None:
    """Return the first name at an instant, None if there is none."""
    names = scan.take(now, 1)
    return names[0] if names else None


def take(scan: PendingScan, now: str = NOW) -> list[str]:
    """Return all names that are due at an instant, each asked for on its own."""
    return list(iter(lambda: take_one(scan, now), None))


def claim_all(path: Path, scan: PendingScan, now: str = NOW) -> list[str]:
    """Return all names that are due at an instant; each is removed, as a claim does."""
    found = []
    while (each := take_one(scan, now)) is not None:
        found.append(each)
        (path / each).unlink()
    return found


def test_smallest_of_many() -> None:
    """The smallest are kept in order, and the cut is the first that was dropped."""
    smallest = Smallest(3)
    for number in (5, 3, 9, 1, 7, 2, 8, 0, 6, 4):
        smallest.add(str(number))
    kept = []
    while smallest:
        kept.append(smallest.pop())
    assert 3 <= len(kept) < 6
    assert kept == [str(number) for number in range(len(kept))]
    assert smallest.cut == str(len(kept))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_smallest_of_few_has_no_cut(count: int) -> None:
    """If no more came than are kept there is no cut, and so no second scan."""
    smallest = Smallest(3)
    for number in range(count):
        smallest.add(str(number))
    assert sorted(smallest.pop_all()) == [str(number) for number in range(count)]
    assert smallest.cut is None


def test_due_names_come_in_their_order(pending: Path, scan: PendingScan) -> None:
    """Names are returned by their order, once each; what is not due is kept back."""
    names = [name("c"), name("a", -1), name("z", -2, priority=0)]
    for each in (*names, name("later", 5)):
        (pending / each).touch()
    assert take(scan) == [names[2], names[1], names[0]]
    assert scan.next_due() == later(NOON, 5)
    assert take(scan, at(5)) == [name("later", 5)]
    assert scan.next_due() is None


def test_scan_that_fails_is_repeated(
    directory: StoreDirectory, pending: Path, scan: PendingScan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that cannot be read now is read by the next call."""

    def refuse(_directory: str) -> int:
        raise OSError(24, "Too many open files")

    (pending / name("a")).touch()
    with monkeypatch.context() as patched:
        patched.setattr(directory, "reopen", refuse)
        for _ in range(2):
            with pytest.raises(OSError, match="Too many open files"):
                take_one(scan)
    assert take(scan) == [name("a")]


def test_two_processes_take_the_same_names(directory: StoreDirectory, pending: Path) -> None:
    """Neither waits for the other, so that one which is stopped holds up nobody."""
    for job_id in "ab":
        (pending / name(job_id)).touch()
    one, other = small_scan(directory), small_scan(directory)
    assert take(one) == take(other) == [name("a"), name("b")]


def test_a_long_queue_is_scanned_once_for_many_claims(
    pending: Path, scan: PendingScan, reads: list[str]
) -> None:
    """Each scan takes up where the last one had to drop names, whatever was not claimed."""
    names = [name(f"j{number:02}") for number in range(40)]
    for each in names:
        (pending / each).touch()
    assert take(scan) == names
    assert len(reads) <= 40 / 4
    assert take(scan) == []
    assert len(reads) <= 40 / 4


def test_more_later_names_than_are_kept_are_scanned_for_in_time(
    pending: Path, scan: PendingScan
) -> None:
    """The first that was dropped says when to scan again."""
    for seconds in range(1, 8):
        (pending / name(f"j{seconds}", seconds)).touch()
    assert take_one(scan) is None
    found = []
    for seconds in range(1, 8):
        assert scan.next_due() == later(NOON, seconds)
        found += claim_all(pending, scan, at(seconds))
    assert found == [name(f"j{seconds}", seconds) for seconds in range(1, 8)]


def test_name_put_off_is_not_found_again_by_a_scan(pending: Path, scan: PendingScan) -> None:
    """What somebody holds is returned at the time that was said, even if all is looked at again."""
    (pending / name("a")).touch()
    assert take_one(scan) == name("a")
    scan.put_off(name("a"), at(1))
    scan.invalidate()
    assert take_one(scan) is None
    assert scan.next_due() == later(NOON, 1)
    assert take_one(scan, at(1)) == name("a")


def test_name_that_cannot_be_claimed_is_not_found_again_by_a_scan(
    pending: Path, scan: PendingScan, reads: list[str]
) -> None:
    """A document of a newer version costs a look once, and not one for each scan."""
    (pending / name("newer")).touch()
    for number in range(20):
        (pending / name(f"o{number:02}")).touch()
    assert take_one(scan) == name("newer")
    assert name("newer") not in take(scan)
    assert len(reads) > 1
    (pending / name("later", 5)).touch()
    scan.arrived(name("later", 5), NOW)
    assert take(scan, at(5)) == [name("later", 5)]


def test_strangers_are_collected_and_nothing_else(pending: Path, scan: PendingScan) -> None:
    """A scan finds what is to be adopted among what is not, even if it looks like a job."""
    odd = name("x").replace("-x", "-+")
    odd_later = name("x", 5).replace("-x", "-+")
    for each in ("job.json", ".hidden.json", "README", "a.json.tmp", odd, odd_later):
        (pending / each).touch()
    assert take_one(scan) is None
    assert sorted(scan.take_strangers()) == [odd, odd_later, "job.json"]
    assert take_one(scan) is None
    assert scan.take_strangers() == []


def test_of_many_strangers_few_are_held_and_each_is_found_once(
    pending: Path, scan: PendingScan
) -> None:
    """Also if none of them can be adopted."""
    names = [f"s{number}.json" for number in range(9)]
    for each in (*names, name("a")):
        (pending / each).touch()
    found = []
    while not (taken := take_one(scan)):
        strangers = scan.take_strangers()
        assert 0 < len(strangers) < 4
        found += strangers
    assert taken == name("a")
    assert sorted(found) == names
    assert take_one(scan) is None
    assert scan.take_strangers() == []


def test_a_long_scan_is_followed_by_a_rest(
    pending: Path, scan: PendingScan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has scanned for long rests, once."""
    (pending / name("a")).touch()
    (pending / name("b")).touch()
    rests: list[float] = []
    monkeypatch.setattr(time, "sleep", rests.append)
    monkeypatch.setattr("queuectl.store.scan._LONG_SCAN_SECONDS", 0.0)
    assert take(scan) == [name("a"), name("b")]
    assert len(rests) == 1


def arrive(path: Path, scan: PendingScan, *names: str) -> None:
    """Put jobs into a directory, which the kernel reports."""
    for each in names:
        (path / each).touch()
        scan.arrived(each, NOW)


def test_of_many_that_arrive_for_later_few_are_held_and_none_is_missed(
    pending: Path, scan: PendingScan
) -> None:
    """What is dropped beyond the bound is found when the first of it is due, and not before."""
    assert take(scan) == []
    late = [name(f"j{seconds}", seconds) for seconds in range(1, 10)]
    arrive(pending, scan, *reversed(late))
    assert len(list(scan._later)) < 2 * 2
    for seconds, each in enumerate(late, 1):
        assert scan.next_due() == later(NOON, seconds)
        assert take(scan, at(seconds - 0.5)) == []
        assert claim_all(pending, scan, at(seconds)) == [each]


def test_of_many_that_arrive_and_are_due_few_are_held_and_the_order_is_kept(
    pending: Path, scan: PendingScan
) -> None:
    """What is dropped beyond the bound comes after what is urgent, and is not missed."""
    arrive(pending, scan, *(name(each) for each in "abc"))
    assert take_one(scan) == name("a")
    (pending / name("a")).unlink()
    urgent = [name(f"u{number:02}", priority=1) for number in range(19)]
    arrive(pending, scan, *urgent)
    assert len(list(scan._due)) < 2 * 4
    assert claim_all(pending, scan) == [*urgent, name("b"), name("c")]

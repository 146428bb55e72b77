"""How the names of due jobs are handed out, each once for a pool, in their order."""

import os
import signal
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.jobs import NOON

from queuectl.clock import later
from queuectl.store import bounded
from queuectl.store.bounded import Marks
from queuectl.store.listing import Listing, Slice, Smallest
from queuectl.store.names import due_text, pending_name

NOW = due_text(NOON)


def at(seconds: float) -> str:
    """Return an instant so long after noon, as a name holds it."""
    return due_text(later(NOON, seconds))


def name(job_id: str, seconds: float = 0.0, priority: int = 5) -> str:
    """Return the name of a job that is due so long after noon."""
    return pending_name(priority, later(NOON, seconds), job_id)


@pytest.fixture
def shared() -> Iterator[Slice]:
    """Return a slice of four due names and two that are due soon."""
    made = Slice(most=4, most_soon=2)
    yield made
    made.close()


def listing_of(path: Path, shared: Slice) -> Listing:
    """Return a listing of a directory."""
    return Listing(lambda: os.open(path, os.O_RDONLY | os.O_DIRECTORY), shared)


def take_one(listing: Listing, now: str = NOW) -> str | None:
    """Return the first name that is handed out at an instant, None where there is none."""
    names = listing.take(now, 1)
    return names[0] if names else None


def take(listing: Listing, now: str = NOW) -> list[str]:
    """Return all names that are handed out at an instant; each is removed, as a claim does."""
    return list(iter(lambda: take_one(listing, now), None))


def test_smallest_of_many() -> None:
    """The smallest are kept in order, and the cut says that there were more."""
    smallest = Smallest(3)
    for number in (5, 3, 9, 1, 7, 2, 8, 0, 6, 4):
        smallest.add(str(number))
    assert smallest.sorted() == ["0", "1", "2"]
    assert smallest.cut is not None
    assert smallest.cut >= "2"


@pytest.mark.parametrize("count", [0, 1, 3])
def test_smallest_of_few_has_no_cut(count: int) -> None:
    """Where no more came than are kept there is no cut, and so no second scan."""
    smallest = Smallest(3)
    for number in range(count):
        smallest.add(str(number))
    assert smallest.sorted() == [str(number) for number in range(count)]
    assert smallest.cut is None


def test_due_names_come_in_their_order(tmp_path: Path, shared: Slice) -> None:
    """Names are handed out by their order, once each; what is not due is kept back."""
    names = [name("c"), name("a", -1), name("z", -2, priority=0)]
    for each in (*names, name("soon", 5)):
        (tmp_path / each).touch()
    listing = listing_of(tmp_path, shared)
    assert take(listing) == [names[2], names[1], names[0]]
    assert listing.next_due() == at(5)
    assert take(listing, at(5)) == [name("soon", 5)]
    assert listing.next_due() is None


def test_scan_that_fails_is_repeated(tmp_path: Path, shared: Slice) -> None:
    """A directory that cannot be read now is read by the next call."""
    (tmp_path / name("a")).touch()
    listing = listing_of(tmp_path / "nothing", shared)
    with pytest.raises(FileNotFoundError):
        take_one(listing, NOW)
    assert take(listing_of(tmp_path, shared)) == [name("a")]


def test_two_workers_share_one_scan(tmp_path: Path, shared: Slice) -> None:
    """What one worker was handed, the other one is not."""
    for job_id in "abcd":
        (tmp_path / name(job_id)).touch()
    first, second = listing_of(tmp_path, shared), listing_of(tmp_path, shared)
    names = [take_one(listing, NOW) for listing in (first, second, first, second)]
    assert names == [name(job_id) for job_id in "abcd"]
    assert take_one(first, NOW) is take_one(second, NOW) is None
    assert shared.generation == 1


def test_soon_names_of_one_scan_reach_every_worker(tmp_path: Path, shared: Slice) -> None:
    """A worker that did not scan wakes for what becomes due, too."""
    (tmp_path / name("soon", 5)).touch()
    first, second = listing_of(tmp_path, shared), listing_of(tmp_path, shared)
    assert take_one(first, NOW) is take_one(second, NOW) is None
    assert first.next_due() == second.next_due() == at(5)


def test_more_soon_names_than_are_kept_are_scanned_for_in_time(
    tmp_path: Path, shared: Slice
) -> None:
    """The last kept one that is due soon says when to scan again."""
    for seconds in range(1, 8):
        (tmp_path / name(f"j{seconds}", seconds)).touch()
    listing = listing_of(tmp_path, shared)
    assert take_one(listing, NOW) is None
    found = []
    for seconds in range(1, 8):
        assert listing.next_due() == at(seconds)
        each = take_one(listing, at(seconds))
        assert each is not None
        (tmp_path / each).unlink()
        found.append(each)
        assert take_one(listing, at(seconds)) is None
    assert found == [name(f"j{seconds}", seconds) for seconds in range(1, 8)]


def test_name_put_off_is_not_found_again_by_a_scan(tmp_path: Path, shared: Slice) -> None:
    """What is held by somebody is handed out at the time that was said, whoever scans."""
    (tmp_path / name("a")).touch()
    listing = listing_of(tmp_path, shared)
    assert take_one(listing, NOW) == name("a")
    listing.again(name("a"), at(1))
    listing.invalidate()
    assert take_one(listing, NOW) is None
    assert listing.next_due() == at(1)
    assert take_one(listing, at(1)) == name("a")


def test_name_left_alone_is_not_handed_out_again(tmp_path: Path, shared: Slice) -> None:
    """What cannot be run costs a look once, and not one for each scan."""
    (tmp_path / name("a")).touch()
    listing = listing_of(tmp_path, shared)
    listing.left_alone.add(name("a"))
    assert take_one(listing, NOW) is None


def test_strangers_are_collected_and_nothing_else(tmp_path: Path, shared: Slice) -> None:
    """A scan finds what is to be adopted among what is not."""
    for each in ("job.json", ".hidden.json", "README", "a.json.tmp", "5-bad-name.json"):
        (tmp_path / each).touch()
    listing = listing_of(tmp_path, shared)
    assert take_one(listing, NOW) is None
    assert sorted(listing.strangers) == ["5-bad-name.json", "job.json"]
    assert not listing.more_strangers


def test_longest_names_fit(tmp_path: Path, shared: Slice) -> None:
    """A full slice of the longest names, due and soon, fits into the shared memory."""
    for index in range(9):
        (tmp_path / name(str(index) * 100)).touch()
        (tmp_path / name(str(index) * 100, 5)).touch()
    listing = listing_of(tmp_path, shared)
    assert take_one(listing, NOW) == name("0" * 100)
    (tmp_path / name("0" * 100)).unlink()
    assert take_one(listing, at(5)) == name("1" * 100)


def test_slice_frees_its_descriptor() -> None:
    """A slice that is closed holds nothing open."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("there is no /proc")
    before = len(os.listdir("/proc/self/fd"))
    Slice(4, 2).close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_long_scan_is_followed_by_a_rest_that_holds_up_no_other(
    tmp_path: Path, shared: Slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has scanned for long rests, once, and not while it keeps the others of its pool out."""
    (tmp_path / name("a")).touch()
    (tmp_path / name("b")).touch()
    happened: list[str] = []
    let_in = Slice.release

    def noted(self: Slice) -> None:
        let_in(self)
        happened.append("lets others in")

    monkeypatch.setattr(Slice, "release", noted)
    monkeypatch.setattr(time, "sleep", lambda _: happened.append("rests"))
    monkeypatch.setattr("queuectl.store.listing._LONG_SCAN_SECONDS", 0.0)
    listing = listing_of(tmp_path, shared)
    assert listing.take(NOW, 1) == [name("a")]
    assert happened == ["lets others in", "rests"]
    assert listing.take(NOW, 1) == [name("b")]
    assert happened == ["lets others in", "rests", "lets others in"]


def arrive(path: Path, listing: Listing, *names: str) -> None:
    """Put jobs into a directory, which the kernel tells to one worker."""
    for each in names:
        (path / each).touch()
        listing.arrived(each, NOW)


def held(listing: Listing) -> int:
    """Return how many names a worker holds for itself."""
    return len([*listing._ready, *listing._later])


def test_of_many_that_arrive_for_later_few_are_held_and_none_is_missed(
    tmp_path: Path, shared: Slice
) -> None:
    """What is dropped beyond the bound is found when the first of it is due, and not before."""
    listing = listing_of(tmp_path, shared)
    assert take(listing) == []
    late = [name(f"j{seconds}", seconds) for seconds in range(1, 10)]
    arrive(tmp_path, listing, *reversed(late))
    assert held(listing) < 2 * shared.most_soon
    for seconds, each in enumerate(late, 1):
        assert listing.next_due() == at(seconds)
        assert take(listing, at(seconds - 0.5)) == []
        assert take_one(listing, at(seconds)) == each
        (tmp_path / each).unlink()
        assert take_one(listing, at(seconds)) is None


def test_of_many_that_arrive_and_are_due_few_are_held_and_the_order_is_kept(
    tmp_path: Path, shared: Slice
) -> None:
    """What is dropped beyond the bound comes before the rest of the slice where it is urgent."""
    arrive(tmp_path, listing := listing_of(tmp_path, shared), *(name(each) for each in "abc"))
    listing.invalidate()
    assert take_one(listing) == name("a")
    (tmp_path / name("a")).unlink()
    urgent = [name(f"u{number}", priority=1) for number in range(9)]
    arrive(tmp_path, listing, *urgent)
    assert held(listing) < 2 * shared.most_soon
    found = []
    while (each := take_one(listing)) is not None:
        found.append(each)
        (tmp_path / each).unlink()
    assert found == [*urgent, name("b"), name("c")]


def test_what_was_dropped_is_scanned_for_once_in_a_pool(tmp_path: Path, shared: Slice) -> None:
    """A worker forgets what it dropped where two scans of another have ended since."""
    one, other = listing_of(tmp_path, shared), listing_of(tmp_path, shared)
    assert take(one) == take(other) == []
    for each in [name(f"j{seconds}", seconds) for seconds in range(1, 10)]:
        (tmp_path / each).touch()
        one.arrived(each, NOW)
        other.arrived(each, NOW)
    assert take(one) == take(other) == []
    one.invalidate()
    assert take(one) == []
    one.invalidate()
    assert take(one) == []
    generation = shared.generation
    assert take(other) == []
    assert other._later.cut is None
    assert shared.generation == generation


def stopped_in_a_scan(path: Path, shared: Slice) -> int:
    """Return the process of a worker that is stopped while it scans for its pool."""

    def open_and_stop() -> int:
        os.kill(os.getpid(), signal.SIGSTOP)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside xdist's threads
        pid = os.fork()
    if pid == 0:
        try:
            Listing(open_and_stop, shared).take(NOW, 1)
        finally:
            os._exit(0)
    assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
    return pid


def go_on_to_the_end(pid: int) -> None:
    """Let a stopped process go on, and wait for its end."""
    os.kill(pid, signal.SIGCONT)
    os.waitpid(pid, 0)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="there nothing is shared")
def test_who_is_not_let_in_goes_on_alone_and_comes_back(
    tmp_path: Path, shared: Slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACE: a process is stopped while it scans; the others take all there is, in its order."""
    monkeypatch.setattr("queuectl.store.listing._PATIENCE_SECONDS", 0.01)
    for job_id in "bcdefghij":
        (tmp_path / name(job_id)).touch()
    one, other = listing_of(tmp_path, shared), listing_of(tmp_path, shared)
    assert take_one(one) == name("b")
    (tmp_path / name("b")).unlink()
    one.invalidate()
    pid = stopped_in_a_scan(tmp_path, shared)
    try:
        found = [take_one(one)]
        (tmp_path / name("c")).unlink()
        arrive(tmp_path, one, name("a"), name("later", 5))
        for _ in range(3):
            found.append(take_one(one))
            (tmp_path / str(found[-1])).unlink()
        assert found == [name(job_id) for job_id in "cade"]
        assert take_one(other) == name("f")  # each on its own: the claim decides
    finally:
        go_on_to_the_end(pid)
    found = []
    while (each := take_one(one)) is not None:
        found.append(each)
        (tmp_path / each).unlink()
    assert found == [name(job_id) for job_id in "fghij"]
    one.invalidate()
    generation = shared.generation
    arrive(tmp_path, one, name("z"))
    assert take_one(one) == name("z")
    assert shared.generation > generation
    assert one.next_due() == at(5)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="there nothing is shared")
def test_who_is_not_let_in_waits_once_and_not_for_each_job(
    tmp_path: Path, shared: Slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timeouts wait with it."""
    for each in "abcdefghij":
        (tmp_path / name(each)).touch()
    mine = listing_of(tmp_path, shared)
    pid = stopped_in_a_scan(tmp_path, shared)
    waited = 0.0

    def pass_time(seconds: float) -> None:
        nonlocal waited
        waited += seconds

    monkeypatch.setattr(time, "sleep", pass_time)
    monkeypatch.setattr(time, "monotonic", lambda: waited)
    try:
        for each in "abcdefghij":
            assert take_one(mine) == name(each)
            (tmp_path / name(each)).unlink()
        assert waited == pytest.approx(1.0)
    finally:
        go_on_to_the_end(pid)


def test_marked_names_are_known_however_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mark is found and taken away, whether it was set a moment ago or long before."""
    monkeypatch.setattr(bounded, "_FEW_MARKS", 3)
    marks = Marks()
    assert "a" not in marks
    marks.discard("a")
    for number in range(100):
        marks.add(f"m{number}")
        marks.add("again")
    assert all(f"m{number}" in marks for number in range(100))
    assert "other" not in marks
    for number in range(0, 100, 2):
        marks.discard(f"m{number}")
    marks.discard("again")
    assert [f"m{number}" in marks for number in range(4)] == [False, True, False, True]
    assert "again" not in marks

"""Moments between two steps of a directory store, each forced, at which somebody else acts."""

import errno
import fcntl
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import pytest
from tests.contract.conftest import Place
from tests.jobs import LATER, NOON, claim_next, claimed, decide, drain, ended, make_job, make_jobs

from queuectl.clock import later
from queuectl.document import encode_job
from queuectl.errors import DuplicateId, JobNotFound, StoreError, WrongState
from queuectl.job import Job, Outcome, State
from queuectl.store import files
from queuectl.store.base import ParentNames, Store
from queuectl.store.directory import DirectoryStore
from queuectl.store.layout import StoreDirectory
from queuectl.store.listing import Listing, Slice
from queuectl.store.names import pending_name
from queuectl.store.watch import Watch


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Return an empty directory store."""
    made = Place(str(tmp_path / "store"))
    yield made
    made.close()


@pytest.fixture
def store(place: Place) -> DirectoryStore:
    """Return a directory store, opened once."""
    opened = place.open()
    assert isinstance(opened, DirectoryStore)
    return opened


@pytest.fixture
def pending(place: Place, store: DirectoryStore) -> Path:
    """Return the directory of the jobs that wait."""
    return place.path / "pending"


def name_of(job_id: str, index: int = 0) -> str:
    """Return the name under which the index-th job of a batch waits."""
    return pending_name(5, later(NOON, index / 1_000_000), job_id)


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what lets something happen once, just before a call of a function."""

    def arrange(module: Any, name: str, happen: Callable[[], object], *, call: int = 1) -> None:
        original = getattr(module, name)
        calls = 0

        def hooked(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                happen()
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, hooked)

    return arrange


Before = Callable[..., None]


# --- claim ---


def test_loser_of_a_claim_takes_the_next_job(
    place: Place, store: DirectoryStore, before: Before
) -> None:
    """A job that another worker claims between the open and the lock is left to it."""
    store.add(make_jobs("a", "b"))
    other = place.open()
    won = []
    before(files, "lock", lambda: won.append(claimed(other)))
    assert claimed(store).job.id == "b"
    assert [claim.job.id for claim in won] == ["a"]
    assert claim_next(store, LATER) is None


def test_job_that_was_claimed_settled_and_came_back_is_not_claimed_by_its_old_name(
    place: Place, store: DirectoryStore, before: Before
) -> None:
    """A job that went round between the open and the lock is claimed as it stands then."""
    store.add([make_job("a")])
    other = place.open()
    before(files, "lock", lambda: other.settle([ended(claimed(other, NOON), Outcome.FAILED)]))
    assert claim_next(store, NOON) is None
    claim = claimed(store)
    assert (claim.attempt, claim.job.attempts) == (2, 1)


@pytest.mark.parametrize("act", ["remove", "rename"])
@pytest.mark.parametrize("step", ["open", "lock", "move"])
def test_hand_that_moves_a_document_while_it_is_claimed(
    store: DirectoryStore, pending: Path, before: Before, step: str, act: str
) -> None:
    """A job that a hand removes or renames at the last moment is not an error for the worker."""
    store.add(make_jobs("a", "b"))
    path = pending / name_of("a")

    def happen() -> None:
        if act == "remove":
            path.unlink()
        else:
            path.rename(pending / pending_name(9, LATER, "a"))

    if step == "open":
        before(files, "open_and_stat", happen)
    elif step == "lock":
        before(files, "lock", happen)
    else:
        before(files, "move_new", happen)
    assert claimed(store).job.id == "b"
    assert drain(store) == ([] if act == "remove" else ["a"])


def test_hand_that_replaces_a_document_while_it_is_claimed(
    store: DirectoryStore, pending: Path, before: Before
) -> None:
    """Where an editor renames its copy over the document at the last moment, the copy runs."""
    store.add([make_job("a")])
    edited = encode_job(make_job("a", command="edited"))

    def happen() -> None:
        (pending / ".a.swp").write_bytes(edited)
        os.replace(pending / ".a.swp", pending / name_of("a"))

    before(files, "move_new", happen)
    claim = claim_next(store, LATER) or claimed(store)
    assert claim.job.command == "edited"
    store.settle([ended(claim)])
    assert store.get("a").command == "edited"
    assert os.listdir(pending) == []


def test_claims_made_before_one_is_refused_are_kept(store: DirectoryStore, before: Before) -> None:
    """What keeps one of several jobs from being claimed is told by the next call, if it lasts."""
    store.add(make_jobs("a", "b", "c"))

    def refuse() -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    before(files, "move_new", refuse, call=2)
    first = store.claim_each(LATER, ["w-1", "w-2", "w-3"])
    assert [claim.job.id for claim in first] == ["a"]
    before(files, "move_new", refuse)
    with pytest.raises(StoreError, match="cannot be claimed"):
        store.claim_each(LATER, ["w-2", "w-3"])
    second = store.claim_each(LATER, ["w-2", "w-3"])
    assert [claim.job.id for claim in second] == ["b", "c"]


def test_document_that_was_not_locked_is_never_moved(
    store: DirectoryStore, pending: Path, before: Before, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a name stands for another file once it is locked, nobody moves that file unlocked."""
    store.add([make_job("a")])

    def replace_it() -> None:
        (pending / ".a.swp").write_bytes(encode_job(make_job("a", command="edited")))
        os.replace(pending / ".a.swp", pending / name_of("a"))

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("it was moved")

    before(files, "lock", replace_it)
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", refuse)
        patched.setattr(files, "move_new", refuse)
        assert claim_next(store, LATER) is None
    assert claimed(store).job.command == "edited"


def test_lock_that_somebody_holds_puts_a_job_off(store: DirectoryStore, pending: Path) -> None:
    """A document that is held by somebody is looked at again a second later, without a scan."""
    store.add(make_jobs("a", "b"))
    fd = os.open(pending / name_of("a"), os.O_RDONLY)
    assert files.lock(fd)
    assert drain(store, NOON) == []
    assert drain(store, later(NOON, 0.5)) == ["b"]
    due = store.next_due()
    assert due is not None
    assert NOON < due <= later(NOON, 1.5)
    os.close(fd)
    assert drain(store, due) == ["a"]


def test_stranger_that_somebody_holds_is_adopted_when_it_is_free(
    store: DirectoryStore, pending: Path
) -> None:
    """A dropped file whose adopter died is adopted by the next look."""
    (pending / "a.json").write_text('{"command": "x"}')
    fd = os.open(pending / "a.json", os.O_RDONLY)
    assert files.lock(fd)
    assert claim_next(store, NOON) is None
    os.close(fd)  # the other one died before it had done anything
    due = store.next_due()
    assert due is not None
    assert claimed(store, due).job.id == "a"


def test_names_that_are_gone_are_passed_over(place: Place, store: DirectoryStore) -> None:
    """A listing that is out of date costs nothing but a look at each name."""
    store.add(make_jobs(*(f"j{number}" for number in range(10))))
    assert claimed(store).job.id == "j0"
    assert len(drain(place.open())) == 9
    assert claim_next(store, LATER) is None
    store.add([make_job("new")])
    assert drain(store) == ["new"]


# --- listing ---


@pytest.fixture
def small(store: DirectoryStore) -> DirectoryStore:
    """Return a store whose scans keep four due names and two that are due soon."""
    store.worklist._slice = Slice(most=4, most_soon=2)
    return store


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows with each scan of pending/; more than 200 are an error."""
    done: list[str] = []
    original = Listing._scan

    def scan(self: Listing, now: str) -> None:
        done.append(now)
        assert len(done) <= 200, "it scans without an end"
        original(self, now)

    monkeypatch.setattr(Listing, "_scan", scan)
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
        small.settle([ended(claim)])
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
        assert small.next_due() == later(NOON, 10)
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
    due = small.next_due()
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
    watch = store.worklist.watch
    watch.arrivals()  # they are lost
    assert claim_next(store, LATER) is None
    with monkeypatch.context() as patched:
        patched.setattr(watch, "arrivals", lambda _look_at: None)
        assert claimed(store).job.id == "a"
    assert claimed(store).job.id == "b"
    assert len(scans) == 2


def test_claim_that_fails_leaves_its_name_for_the_next_one(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job whose claim failed for want of a descriptor is claimed by the same worker after."""
    store.add(make_jobs("a", "b"))
    original = files.open_and_stat

    def refuse(directory_fd: int, name: str) -> tuple[int, os.stat_result] | None:
        if name.endswith("-a.json"):
            raise OSError(errno.EMFILE, "Too many open files")
        return original(directory_fd, name)

    with monkeypatch.context() as patched:
        patched.setattr(files, "open_and_stat", refuse)
        with pytest.raises(Exception, match="Too many open files"):
            claim_next(store, LATER)
    assert drain(store) == ["a", "b"]


def in_child(act: Callable[[], None]) -> None:
    """Run something in a forked process, which dies without leaving in order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_name_that_a_dead_worker_was_handed_is_found_by_the_one_that_replaces_it(
    place: Place, store: DirectoryStore
) -> None:
    """A worker that dies between taking a name from the pool's list and the claim loses no job."""
    store.add(make_jobs(*(f"j{index}" for index in range(6))))
    store.prepare_pool()

    def die_with_names() -> None:
        worklist = store.worklist.listing
        assert worklist.take("9", 1) == [name_of("j0")]
        assert worklist.take("9", 2) == [name_of("j1", 1), name_of("j2", 2)]

    in_child(die_with_names)
    report, results = os.pipe()

    def work() -> None:
        os.write(results, " ".join(drain(store)).encode())

    in_child(work)
    assert os.read(report, 1000).decode().split() == [f"j{index}" for index in range(6)]
    os.close(report)
    os.close(results)


def test_workers_that_start_together_scan_once(
    store: DirectoryStore, pending: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes during the only scan is told to each of them, and one that comes later scans."""
    store.add(make_jobs("a"))
    store.prepare_pool(2)
    results, report = os.pipe()
    original = Listing._scan

    def scan(listing: Listing, now: str) -> None:
        os.write(report, b"scan ")
        original(listing, now)

    monkeypatch.setattr(Listing, "_scan", scan)

    def work(wanted: str) -> None:
        assert claimed(store).job.id == wanted

    store.prepare_worker()
    in_child(lambda: work("a"))
    store.add(make_jobs("b"))  # after the scan, and before the second worker runs
    store.prepare_worker()
    in_child(lambda: work("b"))
    store.add(make_jobs("c"))
    store.prepare_worker()
    in_child(lambda: work("c"))
    assert os.read(results, 100).split() == [b"scan"] * 2
    os.close(results)
    os.close(report)


def test_process_that_closes_a_store_ends_what_is_watched_only_where_it_leaves_the_pool(
    store: DirectoryStore,
) -> None:
    """What is watched for a worker is told as long as any process may read it for that worker."""
    store.prepare_pool(1)
    watch = store.prepare_worker()
    assert isinstance(watch, Watch)
    in_child(store.close)
    store.add(make_jobs("a"))
    assert watch.arrivals() == [name_of("a")]

    def leave() -> None:
        store.leave_pool()
        store.close()

    in_child(leave)
    watch.arrivals()  # that nothing is watched any more is told, too
    store.add(make_jobs("b"))
    assert watch.arrivals() == []
    store.end_pool()


def test_worker_that_dies_while_it_scans_leaves_the_pool_a_list_that_is_scanned_anew(
    store: DirectoryStore,
) -> None:
    """A list that is half written is not valid."""
    store.add(make_jobs("a", "b", "c"))
    store.prepare_pool()

    def die_in_a_scan() -> None:
        shared = store.worklist._slice
        assert shared is not None
        original = shared._store

        def put(generation: int, *values: int) -> None:
            if values[0] is False:
                os._exit(0)
            original(generation, *values)

        shared._store = put  # type: ignore[method-assign]
        claim_next(store, LATER)

    in_child(die_in_a_scan)
    assert drain(store) == ["a", "b", "c"]


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


# --- looking ---


def test_walk_meets_a_job_that_moves_on_meanwhile(
    store: DirectoryStore, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that is claimed, or settled, just before its next directory is read is found."""
    other = place.open()
    other.register("w-other", NOON)
    original = StoreDirectory.names
    claims = []

    def names(self: StoreDirectory, directory: str) -> Iterator[str]:
        if self is store.core.directory and directory == State.PENDING:
            claims.append(claimed(other))
        if self is store.core.directory and directory == State.PROCESSING:
            other.settle([ended(claims[-1])])
        return original(self, directory)

    for job_id in ("a", "b"):
        other.add([make_job(job_id)])
    with monkeypatch.context() as patched:
        patched.setattr(StoreDirectory, "names", names)
        assert store.get("a").state is State.COMPLETED
        with pytest.raises(DuplicateId):
            store.add([make_job("b")], chosen=["b"])


def test_file_that_takes_another_document_while_it_is_read(
    store: DirectoryStore, place: Place, before: Before
) -> None:
    """A reader never takes the document of another job that was written into the same file."""
    worker = place.open()
    store.add(make_jobs("a", "b", "c", "d"))
    claim = claimed(worker)

    def settle_until_the_file_is_used_again() -> None:
        worker.settle([ended(claim)])
        for _ in range(3):
            worker.settle([ended(claimed(worker))])

    before(files, "read_all", settle_until_the_file_is_used_again)
    job: Job = store.get("a")
    assert (job.command, job.state) == ("run a", State.COMPLETED)


# --- ids and moves ---


def test_two_processes_cannot_take_one_id(place: Place) -> None:
    """Of two enqueues of one id at the same time, one is refused, each time."""
    place.open()
    ready, go = os.pipe()
    report, results = os.pipe()
    pids = []
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            code = 1
            try:
                store = place.open()
                os.close(go)
                os.read(ready, 1)  # both go on at the end of the pipe
                for index in range(30):
                    try:
                        store.add([make_job(f"j{index}")], chosen=[f"j{index}"])
                        os.write(results, b"added\n")
                    except DuplicateId:
                        os.write(results, b"refused\n")
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    os.close(go)
    os.close(ready)
    os.close(results)
    for pid in pids:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    with open(report, "rb") as lines:
        answers = lines.read().split()
    assert (answers.count(b"added"), answers.count(b"refused")) == (30, 30)
    assert place.open().counts(NOON).by_state[State.PENDING] == 30


def test_pending_lock_that_a_hand_deletes_is_taken_anew(
    place: Place, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACE: who has locked the file that is gone would be alone with it, beside who locks anew."""
    path = place.path / "pending.lock"
    lock = filelock.lock_descriptor
    locked: list[int] = []

    def delete_first(fd: int, **options: Any) -> bool:
        if not locked:
            path.unlink()
        locked.append(os.fstat(fd).st_ino)
        return lock(fd, **options)

    monkeypatch.setattr(filelock, "lock_descriptor", delete_first)
    with store.parents_held(ParentNames()), store.parents_held(ParentNames()):  # it may be nested
        assert len(locked) == 2
        assert path.stat().st_ino == locked[-1]
        with path.open() as file:
            assert not lock(file.fileno(), blocking=False)
    with path.open() as file:
        assert lock(file.fileno(), blocking=False)


def test_store_that_a_hand_deletes_is_not_made_anew(place: Place, store: DirectoryStore) -> None:
    """An empty directory in its place would be one that others may look into, and no store."""
    store.register("w-abcd", NOON)
    store.add(make_jobs("a"))
    drain(store)
    shutil.rmtree(place.path)
    with pytest.raises(StoreError, match=r"pending\.lock cannot be locked: No such file"):
        store.add(make_jobs("b"), chosen=["b"])
    store.unregister()  # adds what it has counted to that of others, under the lock
    assert not place.path.exists()


def test_retry_of_a_job_that_somebody_changes_is_refused(
    store: DirectoryStore, place: Place
) -> None:
    """A finished job that is held by somebody else is not sent back."""
    store.add([make_job("a")])
    drain(store)
    fd = os.open(place.path / "completed" / "a.json", os.O_RDONLY)
    assert files.lock(fd)
    with pytest.raises(WrongState, match="somebody else"):
        store.retry("a", [State.COMPLETED], NOON)
    os.close(fd)
    assert store.retry("a", [State.COMPLETED], NOON).state is State.PENDING


def test_retry_of_a_job_that_a_hand_removes_is_refused(
    store: DirectoryStore, place: Place, before: Before
) -> None:
    """A finished job that a hand removes while it is sent back is an error, and not a bug."""
    store.add([make_job("a")])
    drain(store)
    path = place.path / "completed" / "a.json"
    before(files, "read_all", path.unlink)
    with pytest.raises(JobNotFound, match="a"):
        store.retry("a", [State.COMPLETED], NOON)


def test_recovery_leaves_alone_what_another_recovers_at_the_same_time(
    store: DirectoryStore, place: Place, before: Before
) -> None:
    """Of two recoveries that see the same lost job, one records it."""
    store.add([make_job("a")])

    def claim_and_die(other: Store) -> None:
        claimed(other)

    place.process_that(claim_and_die)
    other = place.open()
    reports = []
    before(files, "lock", lambda: reports.append(other.recover(decide)))
    assert store.recover(decide).recovered == []
    assert len(reports[0].recovered) == 1
    assert [attempt.outcome for attempt in store.get("a").history] == [Outcome.LOST]


def test_two_who_ask_for_live_workers_do_not_take_each_other_for_one(
    place: Place, store: DirectoryStore
) -> None:
    """A record that somebody else looks at in the same moment is stale all the same."""
    place.process_that(lambda it: it.register("w-gone", NOON))
    record = os.open(f"{place.location}/workers/w-gone.json", os.O_RDONLY)
    fcntl.flock(record, fcntl.LOCK_SH | fcntl.LOCK_NB)  # the other one, in the middle of its look
    assert not files.is_locked(record)
    fcntl.flock(record, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert store.workers() == []
    os.close(record)


def test_first_one_to_write_the_format_syncs_the_entry_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who finds a store that another one is about to make makes its directory durable, too."""
    root = tmp_path / "store"
    root.mkdir(mode=0o700)  # the other one has come so far
    synced: list[int] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    made = Place(str(root))
    made.open()
    made.close()
    assert tmp_path.stat().st_ino in synced

"""Moments between two steps of a directory store, each forced, at which somebody else acts."""

import fcntl
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import pytest
from tests.directory.conftest import Place
from tests.directory.support import Before
from tests.jobs import NOON, claimed, decide, drain, ended, make_job, make_jobs, settle

from queuectl.errors import DuplicateId, JobNotFound, StoreError, WrongState
from queuectl.job import Job, Outcome, State
from queuectl.store import files
from queuectl.store.directory import DirectoryStore
from queuectl.store.layout import StoreDirectory
from queuectl.store.protocol import Store

# --- looking ---


def test_walk_meets_a_job_that_moves_on_meanwhile(
    store: DirectoryStore, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that is claimed, or settled, just before its next directory is read is found."""
    other = place.open()
    other.queue.register("w-other", NOON)
    original = StoreDirectory.names
    claims = []

    def names(self: StoreDirectory, directory: str) -> Iterator[str]:
        if self is store.core.directory and directory == State.PENDING:
            claims.append(claimed(other))
        if self is store.core.directory and directory == State.PROCESSING:
            settle(other, [ended(claims[-1])])
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
        settle(worker, [ended(claim)])
        for _ in range(3):
            settle(worker, [ended(claimed(worker))])

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
    with (
        store.purging.named_parents().held(),
        store.purging.named_parents().held(),
    ):  # it may be nested
        assert len(locked) == 2
        assert path.stat().st_ino == locked[-1]
        with path.open() as file:
            assert not lock(file.fileno(), blocking=False)
    with path.open() as file:
        assert lock(file.fileno(), blocking=False)


def test_store_that_a_hand_deletes_is_not_made_anew(place: Place, store: DirectoryStore) -> None:
    """An empty directory in its place would be one that others may look into, and no store."""
    store.queue.register("w-abcd", NOON)
    store.add(make_jobs("a"))
    drain(store)
    shutil.rmtree(place.path)
    with pytest.raises(StoreError, match=r"pending\.lock cannot be locked: No such file"):
        store.add(make_jobs("b"), chosen=["b"])
    store.queue.unregister()  # adds what it has counted to that of others, under the lock
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
    before(files, "lock", lambda: reports.append(other.pool.recover(decide)))
    assert store.pool.recover(decide).recovered == []
    assert len(reports[0].recovered) == 1
    assert [attempt.outcome for attempt in store.get("a").history] == [Outcome.LOST]


def test_two_who_ask_for_live_workers_do_not_take_each_other_for_one(
    place: Place, store: DirectoryStore
) -> None:
    """A record that somebody else looks at in the same moment is stale all the same."""
    place.process_that(lambda it: it.queue.register("w-gone", NOON))
    record = os.open(f"{place.location}/workers/w-gone.json", os.O_RDONLY)
    fcntl.flock(record, fcntl.LOCK_SH | fcntl.LOCK_NB)  # the other one, in the middle of its look
    assert not files.is_locked(record)
    fcntl.flock(record, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert store.workers.live() == []
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

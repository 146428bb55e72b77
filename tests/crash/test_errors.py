"""Whatever the system refuses, an operation is done or refused as a whole, and nothing leaks."""

import errno
import os
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from tests.crash.scenarios import SCENARIOS, Scenario, Scene, snapshot
from tests.crash.steps import (
    Which,
    anything,
    open_descriptors,
    refused,
    takes_descriptor,
    takes_space,
)
from tests.jobs import NOON, claim_next, claimed, decide, drain, ended, make_job, make_jobs, settle

from queuectl.errors import QueuectlError, StoreError
from queuectl.job import Outcome
from queuectl.store import files, open_store
from queuectl.store.protocol import Store
from queuectl.store.worker_protocol import Claim

ERRORS: dict[str, tuple[int, Which]] = {
    "disk full": (errno.ENOSPC, takes_space),
    "I/O error": (errno.EIO, anything),
    "no descriptors": (errno.EMFILE, takes_descriptor),
}


def try_it(act: Callable[[], None]) -> QueuectlError | None:
    """Return the error that something ends with; any that is no fact for a user goes through."""
    try:
        act()
    except QueuectlError as error:
        return error if "\n" not in str(error) else pytest.fail(f"two lines: {error}")
    return None


def open_and_close(location: str) -> None:
    """Open a store and leave it."""
    open_store(location, create=True).close()


def leave(scene: Scene) -> None:
    """Close the store, and free what is claimed still, as the end of the process would."""
    for claim in scene.claims:
        for fd in (getattr(claim, "fd", -1), getattr(claim, "recorded_fd", -1)):
            if fd >= 0:
                os.close(fd)
    scene.store.close()


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_error_at_every_call(tmp_path: Path, scenario: Scenario, kind: str) -> None:
    """An operation whose n-th call is refused changes nothing, or is whole, and can be repeated."""
    number, which = ERRORS[kind]
    for step in count(1):
        base = open_descriptors()
        location = tmp_path / str(step)
        scene = Scene(open_store(str(location), create=True))
        scenario.prepare(scene)
        scene.store.close()
        scene = Scene(open_store(str(location), create=True))
        scenario.begin(scene)
        with refused(step, which, number, lasting=False) as names:
            error = try_it(partial(scenario.act, scene))
        found = snapshot(location)
        scenario.allows(found)
        if error is None:
            assert found == scenario.after, f"{names} was swallowed"
        else:
            what = f"after an error of {names}: {error}"
            if scenario.act.__qualname__.startswith(("add", "claim")):
                assert found == scenario.before, what
            assert try_it(partial(scenario.act, scene)) is None, what
            assert snapshot(location) == scenario.after, what
        leave(scene)
        assert open_descriptors() == base, f"leaked at an error of {names}"
        if names != ["unlink"]:
            left = [name for name in os.listdir(location / "tmp") if not name.startswith("spare")]
            assert left == [], f"left in tmp/ at an error of {names}"
        if not names:
            return


@pytest.mark.parametrize("kind", ["disk full", "I/O error", "no descriptors"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_error_that_lasts(tmp_path: Path, scenario: Scenario, kind: str) -> None:
    """Where all calls from the n-th on are refused, no job is lost and nothing leaks."""
    number, which = ERRORS[kind]
    for step in count(1):
        base = open_descriptors()
        location = tmp_path / str(step)
        scene = Scene(open_store(str(location), create=True))
        scenario.prepare(scene)
        scene.store.close()
        scene = Scene(open_store(str(location), create=True))
        scenario.begin(scene)
        with refused(step, which, number, lasting=True) as names:
            error = try_it(partial(scenario.act, scene))
        found = snapshot(location)
        scenario.allows(found)
        if error is None:
            assert found == scenario.after, f"{names} was swallowed"
        leave(scene)
        assert open_descriptors() == base, f"leaked at errors of {names}"
        store = open_store(str(location), create=True)
        store.pool.recover(decide)
        drain(store)
        store.close()
        where = {job.where for job in snapshot(location).values()}
        assert where <= {"completed", "dead", "cancelled", "corrupt"}
        if not names:
            return


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("kind", ERRORS)
def test_error_while_a_store_is_opened(tmp_path: Path, kind: str, lasting: bool) -> None:
    """A store that cannot be made or opened says so, leaks nothing, and is made at the next try."""
    number, which = ERRORS[kind]
    for step in count(1):
        base = open_descriptors()
        location = str(tmp_path / str(step) / "store")
        with refused(step, which, number, lasting=lasting) as names:
            error = try_it(partial(open_and_close, location))
        assert open_descriptors() == base, f"leaked at an error of {names}"
        assert (error is None) or names
        store = open_store(location, create=True)
        store.add([make_job("a")], chosen=["a"])
        assert drain(store) == ["a"]
        store.close()
        if not names:
            return


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("look", ["counts", "entries", "get", "resolve", "workers", "settings"])
def test_error_while_somebody_looks(tmp_path: Path, look: str, kind: str, lasting: bool) -> None:
    """What only looks tells an error of the system as one line, and leaks nothing."""
    number, which = ERRORS[kind]
    location = str(tmp_path / "store")
    store = open_store(location, create=True)
    store.add(make_jobs("a", "b"))
    worker = open_store(location, create=True)
    worker.queue.register("w-1", NOON)
    claimed(worker)

    def act() -> None:
        if look == "counts":
            store.counts(NOON)
        elif look == "entries":
            for state in store.counts(NOON).by_state:
                list(store.entries(state, NOON))
        elif look == "get":
            store.get("a")
        elif look == "resolve":
            store.resolve("b")
        elif look == "workers":
            store.workers.live()
        else:
            store.settings()

    act()
    for step in count(1):
        base = open_descriptors()
        with refused(step, which, number, lasting=lasting) as names:
            try_it(act)
        assert open_descriptors() == base, f"leaked at an error of {names}"
        act()
        if not names:
            break
    worker.close()
    store.close()


def test_what_cannot_be_removed_costs_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker leaves all the same, and who tidies up is told in one line."""
    location = tmp_path / "store"
    store, other = (open_store(str(location), create=True) for _ in range(2))
    store.queue.register("w-1", NOON)

    def unlink(name: str, *, dir_fd: int) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)

    monkeypatch.setattr(os, "unlink", unlink)
    store.queue.unregister()
    with pytest.raises(StoreError, match="cannot be tidied: Permission denied"):
        other.pool.tidy()
    monkeypatch.undo()
    other.pool.tidy()
    assert os.listdir(location / "workers") == []
    store.close()
    other.close()


def held_job(tmp_path: Path) -> tuple[Store, Claim]:
    """Return a store and a claim."""
    store = open_store(str(tmp_path / "store"), create=True)
    store.add([make_job("a")])
    return store, claimed(store)


def test_settle_after_a_full_disk_is_the_same_as_at_once(tmp_path: Path) -> None:
    """A settle that was refused over and over succeeds when there is space; the claim is held."""
    store, claim = held_job(tmp_path)
    other = open_store(store.location, create=True)
    settlement = ended(claim, Outcome.FAILED)
    for step in (1, 2, 3, 1):
        with refused(step, takes_space, errno.ENOSPC, lasting=True):
            error = try_it(lambda: settle(store, [settlement]))
        assert error is not None
        assert error.exit_code == 74
        assert other.pool.recover(decide).recovered == []
        assert claim_next(other, NOON) is None
    settle(store, [settlement])
    assert store.get("a") == settlement[1]
    store.close()
    other.close()


@pytest.mark.parametrize("used", [False, True], ids=["new file", "file that was used before"])
@pytest.mark.parametrize("size", [1, 7, 100])
def test_writes_that_the_system_cuts_short_are_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, used: bool
) -> None:
    """A document is written whole though each call writes only a part of it."""
    store = open_store(str(tmp_path / "store"), create=True)
    store.add(make_jobs("a", "b", "c"))
    if used:
        for _ in range(2):
            settle(store, [ended(claimed(store))])
    real_write, real_pwrite = os.write, os.pwrite

    def write(fd: int, data: bytes) -> int:
        return real_write(fd, bytes(data)[:size])

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        return real_pwrite(fd, bytes(data)[:size], offset)

    claim = claimed(store)
    settlement = ended(claim, Outcome.FAILED)
    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(os, "pwrite", pwrite)
    settle(store, [settlement])
    store.add([make_job("new")])
    monkeypatch.undo()
    assert store.get(claim.job.id) == settlement[1]
    assert store.get("new") == make_job("new")
    store.close()


def test_jobs_are_on_the_disk_before_they_are_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each document is synced before it gets its name, and the directory before add returns."""
    location = tmp_path / "store"
    for number in (1, 3, 20):
        store = open_store(str(location), create=True)
        log = SyncLog(monkeypatch)
        jobs = make_jobs(*(f"n{number}-{index}" for index in range(number)))
        store.add(jobs)
        store.add([make_job(f"chosen-{number}")], chosen=[f"chosen-{number}"])
        monkeypatch.undo()
        assert len(log.published) == number + 1
        assert log.unsynced_when_published == []
        assert log.directories_to_sync == set()
        store.close()


def test_settled_documents_are_on_the_disk_before_they_replace_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No settling puts a document in place that a power failure could tear."""
    store = open_store(str(tmp_path / "store"), create=True)
    store.add(make_jobs(*(f"j{index}" for index in range(12))))
    for size in (1, 1, 2, 8):
        claims = [claimed(store) for _ in range(size)]
        log = SyncLog(monkeypatch)
        settle(store, [ended(claim) for claim in claims])
        monkeypatch.undo()
        assert len(log.published) >= size
        assert log.unsynced_when_published == []
    store.close()


class SyncLog:
    """Note which files and directories would not survive a power failure."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Watch the calls of the system until the patches are undone."""
        self._dirty: set[int] = set()
        self.published: list[str] = []
        self.unsynced_when_published: list[str] = []
        self.directories_to_sync: set[int] = set()
        real = {name: getattr(os, name) for name in ("write", "pwrite", "fsync", "rename")}
        move_new, exchange = files.move_new, files.exchange
        sync_file_system = files.sync_file_system

        def write(fd: int, data: bytes) -> int:
            self._dirty.add(os.fstat(fd).st_ino)
            return int(real["write"](fd, data))

        def pwrite(fd: int, data: bytes, offset: int) -> int:
            self._dirty.add(os.fstat(fd).st_ino)
            return int(real["pwrite"](fd, data, offset))

        def fsync(fd: int) -> None:
            real["fsync"](fd)
            self._dirty.discard(os.fstat(fd).st_ino)
            self.directories_to_sync.discard(os.fstat(fd).st_ino)

        def note(name: str, from_fd: int, to: str, to_fd: int) -> None:
            inode = os.stat(name, dir_fd=from_fd).st_ino
            self.published.append(to)
            self.directories_to_sync.add(os.fstat(to_fd).st_ino)
            if inode in self._dirty:
                self.unsynced_when_published.append(to)

        def rename(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
            note(old, src_dir_fd, new, dst_dir_fd)
            real["rename"](old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

        def move(first_fd: int, first: str, second_fd: int, second: str) -> None:
            note(first, first_fd, second, second_fd)
            move_new(first_fd, first, second_fd, second)

        def swap(first_fd: int, first: str, second_fd: int, second: str) -> None:
            note(first, first_fd, second, second_fd)
            exchange(first_fd, first, second_fd, second)

        def sync_all(fd: int) -> bool:
            self._dirty.clear()
            self.directories_to_sync.clear()
            return sync_file_system(fd)

        for name, fake in (
            ("write", write), ("pwrite", pwrite), ("fsync", fsync), ("rename", rename),
        ):  # fmt: skip
            monkeypatch.setattr(os, name, fake)
        monkeypatch.setattr(files, "move_new", move)
        monkeypatch.setattr(files, "exchange", swap)
        monkeypatch.setattr(files, "sync_file_system", sync_all)

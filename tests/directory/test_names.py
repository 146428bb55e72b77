"""Names that are chosen at random: what happens where two choose the same one."""

import os
from pathlib import Path

import pytest
from tests.directory.conftest import Place
from tests.jobs import LATER, NOON, claim_next, claimed, make_job

from queuectl.errors import NameTaken, StoreError
from queuectl.job import State
from queuectl.store import private
from queuectl.store.layout import StoreDirectory
from queuectl.store.protocol import Store


def snapshot(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Return the files in a directory, each by its inode and what it holds, but for FIFOs."""
    return {
        path.name: (path.stat().st_ino, path.read_bytes() if path.is_file() else b"")
        for path in directory.iterdir()
    }


def test_name_of_a_live_worker_is_not_given_away(place: Place) -> None:
    """Whoever comes second is refused, and changes nothing of the first."""
    first, second = place.open(), place.open()
    first.queue.register("w-same", NOON)
    before = snapshot(place.path / "workers")
    with pytest.raises(NameTaken):
        second.queue.register("w-same", NOON)
    second.close()
    assert snapshot(place.path / "workers") == before
    assert [each.name for each in place.open().workers.live()] == ["w-same"]


def test_name_of_a_killed_worker_is_free_when_nothing_is_left_of_it(place: Place) -> None:
    """Its record, its FIFO and its count each keep the name."""
    place.process_that(lambda killed: killed.queue.register("w-same", NOON))
    store, workers = place.open(), place.path / "workers"
    with pytest.raises(NameTaken):
        store.queue.register("w-same", NOON)
    (workers / "w-same.json").unlink()
    with pytest.raises(NameTaken):
        store.queue.register("w-same", NOON)
    store.pool.tidy()
    store.queue.register("w-same", NOON)
    assert sorted(os.listdir(workers)) == ["w-same.control", "w-same.json"]


def test_tidying_leaves_a_worker_that_registers_meanwhile_its_fifo(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACE: a name is given again between the look for its record and the removal of its FIFO."""
    place.process_that(lambda killed: killed.queue.register("w-same", NOON))
    (place.path / "workers" / "w-same.json").unlink()
    store, other = place.open(), place.open()
    own = store.core.directory  # type: ignore[attr-defined]
    exists = StoreDirectory.exists

    def exists_then_register(self: StoreDirectory, directory: str, name: str) -> bool:
        found = exists(self, directory, name)
        if self is own and name == "w-same.json":
            monkeypatch.undo()
            other.pool.tidy()
            other.queue.register("w-same", NOON)
        return found

    monkeypatch.setattr(StoreDirectory, "exists", exists_then_register)
    store.pool.tidy()
    assert sorted(os.listdir(place.path / "workers")) == ["w-same.control", "w-same.json"]


@pytest.mark.parametrize("is_published", [False, True])
def test_job_whose_made_up_id_is_taken_is_refused(store: Store, is_published: bool) -> None:
    """Neither a job that is there nor one that is about to be is written over."""
    if is_published:
        store.add([make_job("made-up", command="the first")])
        with pytest.raises(StoreError, match="there is a job made-up; try again"):
            store.add([make_job("made-up", command="the second")])
    else:
        directory = Path(store.location) / "tmp"
        (directory / "made-up.new").write_text("is being written")
        with pytest.raises(StoreError):
            store.add([make_job("made-up", command="the second")])
        assert (directory / "made-up.new").read_text() == "is being written"
        assert claim_next(store, LATER) is None
        return
    assert claimed(store).job.command == "the first"
    assert claim_next(store, LATER) is None


def test_two_files_set_aside_at_the_same_time_are_both_kept(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACE: another process sets aside a file of the same name between the look and the move."""
    store, other = place.open(), place.open()
    pending, processing = place.path / "pending", place.path / State.PROCESSING
    (pending / "torn.json").write_text("torn in pending")
    (processing / "torn.1.json").write_text("torn in processing")
    for path in (pending / "torn.json", processing / "torn.1.json"):
        os.utime(path, (0, 0))
        path.chmod(0o600)
    own = store.core.directory  # type: ignore[attr-defined]
    exists = StoreDirectory.exists

    def exists_then_other(self: StoreDirectory, directory: str, name: str) -> bool:
        found = exists(self, directory, name)
        if self is own and name == "torn.json":
            monkeypatch.undo()
            documents = other.core.documents  # type: ignore[attr-defined]
            documents.set_aside(State.PROCESSING, "torn.1.json", "the other")
            os.rename(place.path / "corrupt" / "torn.1.json", place.path / "corrupt" / "torn.json")
            os.rename(
                place.path / "corrupt" / "torn.1.json.reason",
                place.path / "corrupt" / "torn.json.reason",
            )
        return found

    monkeypatch.setattr(StoreDirectory, "exists", exists_then_other)
    documents = store.core.documents  # type: ignore[attr-defined]
    documents.set_aside(State.PENDING, "torn.json", "this one")
    kept = {path.read_text() for path in (place.path / "corrupt").glob("torn*.json")}
    assert kept == {"torn in pending", "torn in processing"}


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o377])
def test_fifo_is_ours_alone_under_any_umask(place: Place, umask: int) -> None:
    """Its mode is right from the start, so that none has to be given to a name."""
    before = os.umask(umask)
    try:
        place.open().queue.register("w-1", NOON)
    finally:
        os.umask(before)
    status = (place.path / "workers" / "w-1.control").stat()
    assert status.st_mode & 0o7777 == private.FILE_MODE

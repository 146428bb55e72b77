"""Somebody else puts links where the store's files are, or swaps its directories."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from tests.directory.conftest import Place
from tests.jobs import (
    LATER,
    NOON,
    SETTINGS,
    claimed,
    decide,
    drain,
    ended,
    make_job,
    make_jobs,
    settle,
)
from tests.trees import tree

from queuectl.errors import BadDocument, QueuectlError, UnsafeStore
from queuectl.job import Outcome, State
from queuectl.purge import IdlePurge, Purge
from queuectl.store import open_store
from queuectl.store.index import Index
from queuectl.store.layout import DIRECTORIES
from queuectl.store.logs import LogDir, logs_of
from queuectl.store.protocol import Store

PRECIOUS = "precious\n"
STRANGER = 12345
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


def use_all(store: Store, location: str) -> int:
    """Do everything that changes a store, whatever is refused; return how many were not."""
    logs = LogDir(f"{location}/logs")
    try:
        return _use_all(store, logs)
    finally:
        if logs._dir_fd is not None:
            os.close(logs._dir_fd)


def _use_all(store: Store, logs: LogDir) -> int:
    worked = 0

    def work_on(outcome: Outcome) -> None:
        claim = claimed(store)
        fd = logs.open_for_append(claim.job.id, claim.attempt)
        os.write(fd, b"output\n")
        os.close(fd)
        settle(store, [ended(claim, outcome)])

    def give_back() -> None:
        store.queue.give_back(claimed(store))

    def lose() -> None:
        claim = claimed(store)
        claim.free()  # type: ignore[attr-defined]
        store.pool.recover(decide)

    def purge_idly() -> None:
        settings = SETTINGS.__class__(keep_completed=1.0, keep_logs=1.0)
        IdlePurge(store, logs).go_on(settings, LATER + timedelta(days=3650), lambda: False)

    acts: list[Callable[[], object]] = [
        lambda: store.add(make_jobs("a", "b", "c", "d", "e")),
        lambda: store.add([make_job("chosen")], chosen={"chosen"}),
        lambda: store.add([make_job("child", after=("a",))], chosen={"child"}),
        lambda: store.queue.register("w-test", NOON),
        lambda: work_on(Outcome.SUCCEEDED),
        lambda: work_on(Outcome.FAILED),
        give_back,
        lose,
        store.pool.release_blocked,
        lambda: list(store.cancel(["e"])),
        lambda: store.retry("a", [State.COMPLETED], NOON),
        lambda: work_on(Outcome.SUCCEEDED),
        lambda: store.config.change(lambda document: document | {"priority": "3"}),
        lambda: store.stop_requests.request(now=False),
        purge_idly,
        lambda: list(Purge(store, logs, None).jobs([State.COMPLETED, State.DEAD, State.CANCELLED])),
        lambda: logs.remove("old", 1),
        store.pool.tidy,
        store.queue.unregister,
    ]
    for act in acts:
        with suppress(QueuectlError, AssertionError, OSError):
            act()
            worked += 1
    return worked


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """Return a store of somebody else, with everything that ours could take for its own."""
    path = tmp_path / "evil"
    open_store(str(path), create=True).close()
    (path / "logs" / "old.1.log").write_text(PRECIOUS)
    (path / "purge.lock").write_text(PRECIOUS)
    if os.geteuid() == 0:
        for each in [path, *path.rglob("*")]:
            os.chown(each, STRANGER, -1)
    return path


@root_only
def test_store_that_is_swapped_while_it_is_open_changes_nothing_elsewhere(
    place: Place, store: Store, evil: Path
) -> None:
    """What was opened and checked is used to the end, wherever it lies by then."""
    before = tree(evil)
    place.path.rename(place.path.with_name("moved"))
    place.path.symlink_to(evil)
    use_all(store, place.location)
    assert tree(evil) == before
    with pytest.raises(UnsafeStore, match=f"belongs to user {STRANGER}"):
        place.open()


@root_only
@pytest.mark.parametrize("name", DIRECTORIES)
def test_directory_that_is_swapped_while_it_is_open_changes_nothing_elsewhere(
    place: Place, store: Store, evil: Path, name: str
) -> None:
    """Each of the store's directories is used by the descriptor that was checked."""
    before = tree(evil)
    (place.path / name).rename(place.path / "tmp" / "moved" if name != "tmp" else
                               place.path.with_name("moved"))  # fmt: skip
    (place.path / name).symlink_to(evil / name)
    assert use_all(store, place.location) > 3
    assert tree(evil) == before
    with pytest.raises(UnsafeStore, match=f"{name} is a symlink"):
        place.open()


@root_only
@pytest.mark.parametrize("name", [*DIRECTORIES, "format"])
def test_store_that_is_swapped_while_it_is_opened_is_one_or_the_other(
    place: Place, store: Store, evil: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Between the check of the store and the opening of its parts lies no way into another."""
    (place.path / "format").unlink()  # what comes last is made anew
    before = tree(evil)
    original = os.open

    def swap_before(path: str, *args: int, **kwargs: int) -> int:
        if os.path.basename(path) == name and not place.path.is_symlink():
            place.path.rename(place.path.with_name("moved"))
            place.path.symlink_to(evil)
        return original(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", swap_before)
    opened = place.open()
    monkeypatch.undo()
    assert place.path.is_symlink()
    opened.add(make_jobs("a"))
    assert len(list(place.path.with_name("moved").glob("pending/*.json"))) == 1
    assert tree(evil) == before


@pytest.mark.parametrize("what", ["store", "pending", "blocked/parent"])
def test_directory_that_is_swapped_when_it_was_made_changes_nothing_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Nothing is done by its path that a symlink could lead elsewhere, such as a chmod."""
    target = tmp_path / "target"
    target.mkdir()
    target.chmod(0o755)
    before = tree(target)
    location = tmp_path / "store"
    if what != "store":
        open_store(str(location), create=True).close()
    original = os.mkdir

    def swap(path: str, *args: int, **kwargs: int) -> None:
        original(path, *args, **kwargs)
        if os.path.basename(path) == os.path.basename(what):
            made = tmp_path / what if what == "store" else location / what
            made.rmdir()
            made.symlink_to(target)

    if what == "pending":
        (location / "pending").rmdir()
    monkeypatch.setattr(os, "mkdir", swap)
    with suppress(QueuectlError):
        store = open_store(str(location), create=True)
        try:
            store.add([make_job("parent")], chosen={"parent"})
            store.add([make_job("child", after=("parent",))], chosen={"child"})
        finally:
            store.close()
    monkeypatch.undo()
    if what == "store":
        # Who can do that has the directory above: the store is made in theirs, which is checked.
        assert stat.S_IMODE(target.stat().st_mode) == 0o755
    else:
        assert tree(target) == before


# --- links in the place of files ---

FILES = {
    "log": "logs/a.1.log",
    "config": "config.json",
    "format": "format",
    "stop": "stop_workers",
    "pending lock": "pending.lock",
    "purge lock": "purge.lock",
    "tally": "tally.json",
    "record": "workers/w-evil.json",
    "control": "workers/w-test.control",
    "waiting": "pending/5-20260102T120000.000000Z-x.json",
    "dropped": "pending/x.json",
    "running": "processing/a.1.json",
    "completed": "completed/a.json",
    "dead": "dead/d.json",
    "cancelled": "cancelled/e.json",
    "blocked": "blocked/a/child.json",
    "parent": "blocked/a",
    "temporary": "tmp/put.1.1",
}


def hard_link(path: Path, target: Path) -> None:
    """Give a file another name."""
    path.hardlink_to(target)


def foreign_hard_link(path: Path, target: Path) -> None:
    """Give somebody else's file another name."""
    os.chown(target, STRANGER, -1)
    path.hardlink_to(target)


def symlink(path: Path, target: Path) -> None:
    """Let a name lead to a file."""
    path.symlink_to(target)


def fifo(path: Path, target: Path) -> None:
    """Put there what nobody ever reads or writes."""
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize("name", FILES.values(), ids=FILES)
@pytest.mark.parametrize(
    "put",
    [hard_link, pytest.param(foreign_hard_link, marks=root_only), symlink, fifo],
)
def test_what_somebody_put_in_the_place_of_a_file_is_not_changed_through(
    place: Place, tmp_path: Path, name: str, put: Callable[[Path, Path], None]
) -> None:
    """A file that has another name, outside, stays as it is, and nothing waits for a FIFO."""
    open_store(place.location, create=True).close()
    target = tmp_path / "target"
    target.write_text(PRECIOUS)
    target.chmod(0o640)
    path = place.path / name
    path.unlink(missing_ok=True)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    os.utime(target, (0, 0))  # so old that it is time to purge, and to tidy
    put(path, target)
    before = target.stat()
    with suppress(QueuectlError):
        store = place.open()
        use_all(store, place.location)
    assert target.read_text() == PRECIOUS
    after = target.stat()
    assert (after.st_mode, after.st_uid) == (before.st_mode, before.st_uid)
    assert place.path.joinpath("pending").is_dir()


@pytest.mark.parametrize("put", [hard_link, symlink, fifo])
def test_file_of_another_name_is_no_workers_log(
    place: Place, store: Store, tmp_path: Path, put: Callable[[Path, Path], None]
) -> None:
    """Workers in the background start only where what they tell goes into a file of their own."""
    target = tmp_path / "target"
    target.write_text(PRECIOUS)
    put(place.path / "worker.log", target)
    with pytest.raises(QueuectlError, match=r"worker\.log cannot be opened"):
        logs_of(store).worker_log.open()
    assert target.read_text() == PRECIOUS


@root_only
def test_log_directory_that_is_not_ours_is_refused_each_time(place: Place, store: Store) -> None:
    """What was refused once is not taken at the second try."""
    os.chown(place.path / "logs", STRANGER, -1)
    logs = logs_of(store)
    for _ in range(3):
        with pytest.raises(UnsafeStore, match="belongs to user"):
            logs.open_for_append("a", 1)
    assert os.listdir(place.path / "logs") == []


def test_document_that_a_backup_has_linked_keeps_its_words(place: Place, tmp_path: Path) -> None:
    """A copy by `cp -al` is of the moment when it was made, though files are written to again."""
    store = place.open()
    store.add(make_jobs("a", "b", "c", "d"))
    claims = [claimed(store) for _ in range(2)]
    copy = tmp_path / "copy"
    copy.hardlink_to(place.path / "processing" / "a.1.json")
    words = copy.read_bytes()
    for claim in claims:
        settle(store, [ended(claim)])
    for _ in range(2):
        settle(store, [ended(claimed(store))])
    assert copy.read_bytes() == words


def test_lock_of_another_place_is_not_taken_for_ours(place: Place, store: Store) -> None:
    """A store that was moved is used where it lies; a new one in its place stays empty."""
    place.path.rename(place.path.with_name("moved"))
    new = open_store(place.location, create=True)
    new.close()
    before = tree(place.path)
    store.add([make_job("a")], chosen={"a"})
    assert tree(place.path) == before
    assert len(list(place.path.with_name("moved").glob("pending/*.json"))) == 1


def test_parent_directory_that_becomes_a_symlink_is_not_followed(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is a document outside the store read as a blocked job, nor moved to pending."""
    store = place.open()
    jobs = [make_job("p"), make_job("c", after=("p",))]
    store.add(jobs, chosen=["p", "c"])
    (entry,) = store.entries(State.BLOCKED, NOON)
    elsewhere = tmp_path / "elsewhere"
    children = Index.children

    def swapped(self: Index, parent: str) -> Iterator[str]:
        yield from children(self, parent)
        os.rename(place.path / "blocked" / "p", elsewhere)
        (place.path / "blocked" / "p").symlink_to(elsewhere)

    with monkeypatch.context() as patch:
        patch.setattr(Index, "children", swapped)
        assert drain(store) == ["p"]
    assert (elsewhere / "c.json").exists()
    with pytest.raises(BadDocument, match="no regular file of yours"):
        store.read(entry)

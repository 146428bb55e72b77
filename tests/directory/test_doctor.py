"""Each kind of damage is found, repaired without losing anything, and then gone."""

import json
import os
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest
from tests.directory.conftest import Place
from tests.directory.damages import (
    DAMAGES,
    Damage,
    ahead,
    another_id,
    another_state,
    bad_config,
    document,
    ghost,
    gone_parent,
    jobs_in,
    log_of_no_job,
    no_attempt,
    orphan,
    same_file_twice,
    two_pending_names,
    write,
)
from tests.directory.support import grow_old
from tests.jobs import (
    LATER,
    NOON,
    claimed,
    drain,
    ended,
    fail_for_good,
    make_job,
    make_jobs,
    settle,
)

from queuectl.errors import ConfigError, StoreUnavailable, UnsafeStore
from queuectl.job import Outcome, State
from queuectl.store import files
from queuectl.store.directory import DirectoryStore
from queuectl.store.doctor import copies, examine
from queuectl.store.doctor.case import Case, Finding
from queuectl.store.documents import Documents
from queuectl.store.layout import StoreDirectory
from queuectl.store.logs import LogDir
from queuectl.store.lookup import Lookup
from queuectl.store.names import filed_name, pending_name
from queuectl.store.protocol import Store

OLD = 9 * 86400.0


def found(place: Place, *, repair: bool = False) -> list[Finding]:
    """Return what the doctor finds."""
    return list(examine(place.location, repair=repair))


# --- what is clean ---


def test_nothing_is_said_of_no_store_and_of_an_empty_directory(place: Place) -> None:
    """Neither is made a store by looking."""
    assert found(place) == found(place, repair=True) == []
    place.path.mkdir(mode=0o700)
    assert found(place) == found(place, repair=True) == []
    assert list(place.path.iterdir()) == []


def test_a_store_in_use_is_clean(store: Store, place: Place) -> None:
    """Jobs in all states, a live worker, what hands may do, and a job that is running."""
    store.queue.register("w-1", NOON)
    store.add(make_jobs("bad", max_retries=1), chosen=["bad"])
    fail_for_good(store)
    store.add(make_jobs("done", "lost-its-log"), chosen=["done", "lost-its-log"])
    drain(store)
    store.add(make_jobs("runs", "waits", "gone"), chosen=["runs", "waits", "gone"])
    claim = claimed(store)
    store.add([make_job("child", after=("waits",))], chosen=["child"])
    assert list(store.cancel(["gone"])) == [("gone", State.CANCELLED)]
    for job_id in ("bad", "done", "runs"):
        write(Path(LogDir(f"{place.location}/logs").path(job_id, 1)), b"", seconds_old=0)
    store.config.change(lambda _: {"max-retries": "7"})
    store.stop_requests.request(now=False)
    write(place.path / "pending" / "dropped.json", b'{"command": "true"}').chmod(0o644)
    write(place.path / "pending" / "half.json", b"{", seconds_old=0)
    (place.path / "stop_workers").write_bytes(b"")
    (place.path / "stop_workers").chmod(0o644)
    assert found(place) == []
    assert found(place, repair=True) == []
    settle(store, [ended(claim)])
    store.queue.unregister()
    assert found(place) == []


def test_foreign_files_are_noted_and_left_alone(store: Store, place: Place) -> None:
    """They are no damage, and nobody's to delete."""
    names = [
        "README",
        "pending/.x.swp",
        "completed/notes.txt",
        "blocked/a.md",
        "logs/x",
        "dead/a b",
    ]
    for name in names:
        write(place.path / name, b"mine").chmod(0o644)
    findings = found(place, repair=True)
    assert sorted(each.where for each in findings) == sorted(names)
    assert {(each.what, each.note) for each in findings} == {("foreign file", True)}
    assert all((place.path / name).read_bytes() == b"mine" for name in names)


# --- what is damage ---


@pytest.mark.parametrize(
    ("damage", "what", "where"), DAMAGES, ids=[damage.__name__ for damage, _, _ in DAMAGES]
)
def test_damage_is_found_and_repaired(
    store: Store, place: Place, damage: Damage, what: str, where: str
) -> None:
    """Looking changes nothing, a repair loses nothing, and then the store is clean and works."""
    store.add(make_jobs("keep"), chosen=["keep"])
    drain(store)
    store.close()
    damage(store, place.path)
    kept = jobs_in(place.path)
    before = {path: path.lstat().st_ino for path in place.path.rglob("*")}

    looked = found(place)
    assert (what, where) in [(each.what, each.where) for each in looked]
    assert not any(each.repaired for each in looked)
    assert {path: path.lstat().st_ino for path in place.path.rglob("*")} == before

    repaired = found(place, repair=True)
    assert (what, where) in [(each.what, each.where) for each in repaired]
    assert all(each.repaired for each in repaired)
    assert kept <= jobs_in(place.path)
    assert found(place) == []
    again = place.open()
    again.add(make_jobs("new"), chosen=["new"])
    assert "new" in drain(again)
    assert again.get("keep").state is State.COMPLETED


@pytest.mark.parametrize(
    ("damage", "state"),
    [
        (another_id, State.PENDING),
        (another_state, State.CANCELLED),
        (orphan, State.PENDING),
        (ahead, State.DEAD),
        (no_attempt, State.PENDING),
        (two_pending_names, State.PENDING),
        (ghost, State.COMPLETED),
        (same_file_twice, State.COMPLETED),
        (gone_parent, State.CANCELLED),
    ],
)
def test_a_repaired_job_is_where_it_belongs(
    store: Store, place: Place, damage: Damage, state: State
) -> None:
    """In one place, with the attempts that were recorded."""
    damage(store, place.path)
    found(place, repair=True)
    job = store.get("b")
    assert (job.id, job.state) == ("b", state)
    assert sum(len(store.entries(each, NOON)) for each in State) == 1
    runs: dict[Damage, int] = {
        ahead: 1,
        two_pending_names: 1,
        ghost: 1,
        same_file_twice: 1,
        orphan: 1,
    }
    assert len(job.history) == runs.get(damage, 0)


def test_the_name_decides_about_a_pending_job(store: Store, place: Place) -> None:
    """Its id is set right, its priority and due time stay those of the name."""
    another_id(store, place.path)
    found(place, repair=True)
    (path,) = (place.path / "pending").iterdir()
    assert path.name == pending_name(3, LATER, "b")
    recorded = json.loads(path.read_bytes())
    assert (recorded["id"], recorded["priority"]) == ("b", 3)


def test_a_document_that_is_set_right_keeps_its_time(store: Store, place: Place) -> None:
    """It tells when the job ended."""
    path = write(place.path / "cancelled" / "b.json", document("b"), seconds_old=OLD)
    before = path.stat().st_mtime_ns
    found(place, repair=True)
    assert (path.stat().st_mtime_ns, json.loads(path.read_bytes())["state"]) == (
        before,
        "cancelled",
    )


def test_what_is_put_aside_has_its_reason_beside_it(store: Store, place: Place) -> None:
    """A person can tell where it came from, and why."""
    ghost(store, place.path)
    found(place, repair=True)
    reason = (place.path / "corrupt" / "b.1.json.reason").read_text()
    assert "processing/b.1.json: the job is in completed/b.json" in reason
    assert (place.path / "corrupt" / "b.1.json").exists()
    log_of_no_job(store, place.path)
    # The log may be that of the document in corrupt/.
    assert found(place) == []


def test_of_equal_histories_the_later_document_is_kept(store: Store, place: Place) -> None:
    """A retry was cut off by a power failure: it records, then moves."""
    write(place.path / "dead" / "b.json", document("b", State.DEAD, runs=1))
    late = document("b", runs=1, updated_at=LATER)
    write(place.path / "pending" / pending_name(5, LATER, "b"), late)
    (finding,) = found(place, repair=True)
    assert finding.where == "dead/b.json"
    assert store.get("b").state is State.PENDING


def test_good_settings_survive_a_bad_one(store: Store, place: Place) -> None:
    """Only what cannot be understood falls back to its default; the file is kept."""
    bad_config(store, place.path)
    found(place, repair=True)
    assert store.settings().max_retries == 7
    assert store.config.read() == {"max-retries": "7"}
    assert b"nonsense" in (place.path / "corrupt" / "config.json").read_bytes()


# --- what is not repaired ---


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", ["completed/b.json", "config.json"])
def test_the_file_of_another_user_is_left_where_it_is(
    store: Store, place: Place, name: str
) -> None:
    """Whose it is, is not ours to decide."""
    path = write(place.path / name, document("b", State.COMPLETED))
    os.chown(path, 12345, -1)
    for repair in (False, True):
        findings = found(place, repair=repair)
        assert ("belongs to user 12345", name) in [(each.what, each.where) for each in findings]
        assert not any(each.repaired for each in findings)
    assert path.stat().st_uid == 12345


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give directories away")
def test_the_directory_of_another_user_is_told(store: Store, place: Place) -> None:
    """What lies behind it is not looked at."""
    os.chown(place.path / "dead", 12345, -1)
    first, second = found(place, repair=True)
    assert (first.what, first.where, first.repaired) == ("belongs to user 12345", "dead", False)
    assert (second.what, second.note) == ("not looked at any further", True)


def test_a_symlink_for_a_directory_is_told(store: Store, place: Place, tmp_path: Path) -> None:
    """It could lead anywhere."""
    (place.path / "dead").rmdir()
    (place.path / "dead").symlink_to(tmp_path)
    for repair in (False, True):
        first, second = found(place, repair=repair)
        assert (first.what, first.where, first.repaired) == ("no directory", "dead", False)
        assert second.note
    assert (place.path / "dead").is_symlink()


@pytest.mark.parametrize(("name", "looks"), [("logs", 2), ("completed/b.json", 1)])
def test_a_mode_is_never_set_through_a_symlink_that_comes_meanwhile(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch, name: str, looks: int
) -> None:
    """What is swapped between the look and the repair leaves the mode of its target alone."""
    path, aside, target = place.path / name, place.path.parent / "aside", place.path.parent / "mine"
    if name == "logs":
        path.mkdir(mode=0o700, exist_ok=True)
        path.chmod(0o777)
        target.mkdir(mode=0o755)
    else:
        path.write_text("{}")
        path.chmod(0o644)
        target.write_text("mine")
        target.chmod(0o644)
    store.close()
    before, left = stat.S_IMODE(target.stat().st_mode), looks

    def swapping(look: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def look_and_swap(at: str, **options: object) -> os.stat_result:
            nonlocal left
            status = look(at, **options)
            if at in (str(path), path.name):
                left -= 1
                if left == 0:
                    os.rename(path, aside)
                    os.symlink(target, path)
            return status

        return look_and_swap

    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", swapping(os.lstat))
        patch.setattr(os, "stat", swapping(os.stat))
        list(examine(str(place.path), repair=True))
    assert aside.exists()
    assert stat.S_IMODE(target.stat().st_mode) == before


def test_a_newer_format_is_refused(store: Store, place: Place) -> None:
    """What is not known is not judged."""
    write(place.path / "format", b"2\n")
    with pytest.raises(ConfigError, match="upgrade queuectl"):
        found(place, repair=True)


def test_a_newer_document_is_told_and_left(store: Store, place: Place) -> None:
    """The others are looked at all the same."""
    path = write(place.path / "completed" / "b.json", b'{"schema": 2, "id": "b"}')
    (finding,) = found(place, repair=True)
    assert (finding.what, finding.where, finding.repaired) == (
        "newer schema",
        "completed/b.json",
        False,
    )
    assert path.exists()


def test_what_is_no_store_is_not_touched(place: Place) -> None:
    """A mistyped --store must not cost a directory its modes."""
    place.path.mkdir(mode=0o755)
    place.path.chmod(0o755)
    (place.path / "photo.jpg").touch()
    with pytest.raises(StoreUnavailable, match="is not a queue"):
        found(place, repair=True)
    assert stat.S_IMODE(place.path.stat().st_mode) == 0o755
    place.path.chmod(0o777)
    with pytest.raises(UnsafeStore):
        found(place, repair=True)


# --- while workers run ---


def test_a_running_job_is_nobodys_damage(store: Store, place: Place) -> None:
    """Its document is locked, whatever is in it."""
    store.add(make_jobs("a"), chosen=["a"])
    claim = claimed(store)
    path = place.path / "processing" / "a.1.json"
    good = path.read_bytes()
    path.write_bytes(b"{broken")
    grow_old(path, 60)
    assert found(place) == found(place, repair=True) == []
    path.write_bytes(good)
    settle(store, [ended(claim)])


def test_of_two_documents_the_one_that_runs_is_kept(store: Store, place: Place) -> None:
    """A second one, put there by a hand, must not run beside it."""
    store.add(make_jobs("a"), chosen=["a"])
    claim = claimed(store)
    second = write(place.path / "pending" / pending_name(0, NOON, "a"), document("a", runs=3))
    (finding,) = found(place, repair=True)
    assert (finding.where, finding.repaired) == (f"pending/{second.name}", True)
    settle(store, [ended(claim)])
    assert store.get("a").state is State.COMPLETED


def test_a_job_that_moves_meanwhile_is_not_in_two_places(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACE: a job is met in pending/, and once more where it went meanwhile."""
    store.add(make_jobs("a"), chosen=["a"])
    names = StoreDirectory.names

    def overtaken(self: StoreDirectory, directory: str) -> Iterator[str]:
        if self is not own and directory == State.PROCESSING and store.entries(State.PENDING, NOON):
            self_claim.append(claimed(store))
        return names(self, directory)

    self_claim: list[object] = []
    assert isinstance(store, DirectoryStore)
    own = store.core.directory
    monkeypatch.setattr(StoreDirectory, "names", overtaken)
    assert found(place, repair=True) == []
    assert len(self_claim) == 1
    assert store.get("a").state is State.PROCESSING


def test_a_job_that_moves_while_both_places_are_looked_at(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACE: it was opened in pending/, and is claimed before it is locked there."""
    store.add(make_jobs("a"), chosen=["a"])
    (pending,) = (place.path / "pending").iterdir()
    case = Case(place.location, repair=True)
    processing = place.path / "processing" / "a.1.json"
    opened = files.open_document

    def overtaken(directory_fd: int, name: str) -> int | None:
        fd = opened(directory_fd, name)
        if name == pending.name and pending.exists():
            pending.rename(processing)
        return fd

    monkeypatch.setattr(files, "open_document", overtaken)
    places = [(State.PENDING, pending.name), (State.PROCESSING, "a.1.json")]
    assert list(copies._check_copies(case, "a", places)) == []
    case.close()
    assert processing.exists()


def test_a_document_that_is_set_right_meanwhile_is_not_told(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACE: cancel moves a job, then rewrites its document."""
    path = write(place.path / "cancelled" / "b.json", document("b"))
    locked = Documents.locked

    def overtaken(self: Documents, state: State, name: str) -> object:
        path.write_bytes(document("b", State.CANCELLED))
        return locked(self, state, name)

    monkeypatch.setattr(Documents, "locked", overtaken)
    assert found(place) == []


def test_a_log_whose_job_comes_and_goes_is_not_told(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACE: a purge deletes log and job between the look at the logs and that at the jobs."""
    log = write(place.path / "logs" / "b.1.log", b"")
    find = Lookup.find

    def overtaken(self: Lookup, job_ids: Collection[str]) -> object:
        if "b" in job_ids:
            log.unlink(missing_ok=True)
        return find(self, job_ids)

    monkeypatch.setattr(Lookup, "find", overtaken)
    assert found(place) == []


def test_spares_of_a_live_worker_are_not_abandoned(store: Store, place: Place) -> None:
    """It may have rested for a week."""
    store.queue.register("w-1", NOON)
    mine = write(place.path / "tmp" / f"spare.{os.getpid()}.1.1", b"", seconds_old=OLD)
    assert found(place, repair=True) == []
    assert mine.exists()
    store.queue.unregister()
    assert [each.where for each in found(place, repair=True)] == [f"tmp/{mine.name}"]


def test_a_worker_that_has_just_left_is_not_told(store: Store, place: Place) -> None:
    """RACE: its FIFO goes a moment after its record; until then it has that open."""
    store.queue.register("w-1", NOON)
    (place.path / "workers" / "w-1.json").unlink()
    assert found(place) == []
    store.queue.unregister()


def test_a_slow_reader_holds_no_lock(store: Store, place: Place) -> None:
    """What is found under a lock is told when that is free."""
    two_pending_names(store, place.path)
    findings = examine(place.location, repair=False)
    next(findings)
    fd = os.open(place.path / "pending.lock", os.O_RDWR)
    assert files.lock(fd)
    os.close(fd)
    assert list(findings) == []


def test_outcomes_of_lost_attempts_are_recorded(store: Store, place: Place) -> None:
    """A repair recovers as a worker does."""
    orphan(store, place.path)
    (finding,) = found(place, repair=True)
    assert finding.action == "was recorded as lost and moved to pending/"
    assert store.get("b").history[0].outcome is Outcome.LOST
    assert filed_name("b") not in os.listdir(place.path / "completed")


def test_what_is_no_attempt_is_set_aside_where_its_place_is_taken(
    store: DirectoryStore, place: Place
) -> None:
    """The finding says where it is now."""
    for state in (State.PENDING, State.PROCESSING):
        (place.path / state / "b.json").write_text('{"command": "true"}')
        grow_old(place.path / state / "b.json")
    actions = [each.action for each in examine(place.location, repair=True)]
    assert "it is no attempt; is moved to corrupt/" in actions
    assert (place.path / "corrupt" / "b.json").exists()

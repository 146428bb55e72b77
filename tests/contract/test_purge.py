"""Deleting what is finished: what goes, what stays, and what must not get lost meanwhile."""

import json
import os
import time
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.contract.conftest import Place
from tests.jobs import NOON, claimed, drain, ended, fail_for_good, make_job, make_jobs

from queuectl.config import Settings
from queuectl.errors import BadDocument, DuplicateId
from queuectl.job import Job, Outcome, State
from queuectl.logs import LogDir, log_name
from queuectl.purge import IdlePurge, StrayLogs, period_seconds, purge
from queuectl.store import files
from queuectl.store.base import Entry, ParentNames, Store
from queuectl.store.directory import DirectoryStore
from queuectl.store.documents import Documents

DAY = 86400.0
NEVER_WANTED = bool  # bool() is False


def log(place: Place, job_id: str, attempt: int = 1, *, days_old: float = 0) -> None:
    """Write the log of an attempt."""
    path = LogDir.of(place.location).path(job_id, attempt)
    # By its path: a LogDir keeps the directory open, and some tests write hundreds.
    os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
    grow_old(path, days_old)


def grow_old(path: str | os.PathLike[str], days: float) -> None:
    """Make a file look as if it was changed so long ago."""
    at = time.time() - days * DAY
    os.utime(path, (at, at))


def logged(place: Place) -> list[str]:
    """Return the names of the logs."""
    return sorted(os.listdir(LogDir.of(place.location).directory))


def ids(store: Store, state: State) -> list[str]:
    """Return the ids of the jobs in a state."""
    return sorted(entry.id for entry in store.entries(state, NOON))


def complete(store: Store, place: Place, *job_ids: str, days_old: float = 0) -> None:
    """Let jobs be completed so long ago, each with a log."""
    store.add(make_jobs(*job_ids), chosen=job_ids)
    drain(store)
    for job_id in job_ids:
        log(place, job_id, days_old=days_old)
        grow_old(place.path / "completed" / f"{job_id}.json", days_old)


def purged(store: Store, place: Place, states: Collection[State], **options: Any) -> list[str]:
    """Purge and return the ids that were purged."""
    until = options.pop("until", None)
    return [entry.id for entry in purge(store, LogDir.of(place.location), states, until, **options)]


def test_jobs_go_with_all_their_logs_oldest_first(store: Store, place: Place) -> None:
    """So does the log of an attempt that was given back; the log of another job stays."""
    store.add(make_jobs("bad"), chosen=["bad"])
    fail_for_good(store)
    for number in (1, 2, 3, 4):
        log(place, "bad", number)
    complete(store, place, "new", days_old=1)
    complete(store, place, "old", days_old=2)
    store.add(make_jobs("waits"), chosen=["waits"])
    log(place, "waits")
    assert purged(store, place, [State.COMPLETED]) == ["old", "new"]
    assert logged(place) == [log_name("bad", number) for number in (1, 2, 3, 4)] + ["waits.1.log"]
    assert purged(store, place, [State.DEAD, State.CANCELLED]) == ["bad"]
    assert logged(place) == ["waits.1.log"]
    assert ids(store, State.PENDING) == ["waits"]


def test_logs_of_attempts_that_the_history_omits_go_too(store: Store, place: Place) -> None:
    """They are known by their numbers, which have no gap."""
    complete(store, place, "a")
    path = place.path / "completed" / "a.json"
    document = json.loads(path.read_text())
    document["history"] = [document["history"][0] | {"number": number} for number in (1, 2, 9)]
    path.write_text(json.dumps(document | {"history_omitted": 6}))
    for number in (5, 9):
        log(place, "a", number)
    assert purged(store, place, [State.COMPLETED]) == ["a"]
    assert logged(place) == []


def test_only_what_ended_until_then_goes(store: Store, place: Place) -> None:
    """The age is that of the file; without an instant, one from the future goes too."""
    complete(store, place, "old", days_old=3)
    complete(store, place, "new", days_old=1)
    complete(store, place, "ahead", days_old=-1)
    until = datetime.now(UTC) - timedelta(days=2)
    assert purged(store, place, [State.COMPLETED], until=until) == ["old"]
    assert logged(place) == ["ahead.1.log", "new.1.log"]
    assert purged(store, place, [State.COMPLETED]) == ["new", "ahead"]


def test_a_dry_run_tells_the_same_and_deletes_nothing(store: Store, place: Place) -> None:
    """What it tells is what the purge after it deletes."""
    complete(store, place, "a", days_old=2)
    complete(store, place, "b", days_old=1)
    told = purged(store, place, [State.COMPLETED], dry_run=True)
    assert told == ids(store, State.COMPLETED) == ["a", "b"]
    assert logged(place) == ["a.1.log", "b.1.log"]
    assert purged(store, place, [State.COMPLETED]) == told


@pytest.mark.parametrize("dry_run", [False, True])
def test_what_cannot_be_read_is_left_and_named(store: Store, place: Place, dry_run: bool) -> None:
    """It may be all that is left of a job; the others go."""
    complete(store, place, "broken", "fine")
    (place.path / "completed" / "broken.json").write_text("{")
    found: list[str] = []
    with pytest.raises(BadDocument, match="left as they are: broken; see 'queuectl doctor'"):
        found.extend(
            entry.id
            for entry in purge(
                store, LogDir.of(place.location), [State.COMPLETED], None, dry_run=dry_run
            )
        )
    assert "broken" in ids(store, State.COMPLETED)
    assert "broken.1.log" in logged(place)


def test_a_parent_that_a_blocked_job_names_is_kept(store: Store, place: Place) -> None:
    """It has to be known how it ended when the job's turn comes."""
    complete(store, place, "parent", "other")
    store.add(make_jobs("runs"), chosen=["runs"])
    store.add([make_job("child", after=("runs", "parent"))], chosen=["child"])
    assert ids(store, State.BLOCKED) == ["child"]
    assert purged(store, place, [State.COMPLETED], dry_run=True) == ["other"]
    assert purged(store, place, [State.COMPLETED]) == ["other"]
    assert ids(store, State.COMPLETED) == ["parent"]
    assert drain(store) == ["runs", "child"]
    assert purged(store, place, [State.COMPLETED]) == ["parent", "runs", "child"]


def blocked_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that each read of a blocked job's document adds its id to."""
    reads: list[str] = []
    read = Documents.read

    def note(self: Documents, state: State, name: str, job_id: str) -> Job | None:
        if state is State.BLOCKED:
            reads.append(job_id)
        return read(self, state, name, job_id)

    monkeypatch.setattr(Documents, "read", note)
    return reads


@pytest.mark.parametrize("dry_run", [False, True])
def test_blocked_jobs_are_read_once_however_many_are_deleted(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch, dry_run: bool
) -> None:
    """Reading them again for each few would take the longer the more there are of both."""
    complete(store, place, *(f"j-{number}" for number in range(301)), days_old=1)
    store.add(make_jobs("p", "q"), chosen=["p", "q"])
    children = [make_job(f"c-{n}", after=("p" if n % 2 else "q", f"j-{n}")) for n in range(9)]
    store.add(children, chosen=[child.id for child in children])
    reads = blocked_reads(monkeypatch)
    names = {f"j-{number}" for number in range(9, 301)}
    assert set(purged(store, place, [State.COMPLETED], dry_run=dry_run)) == names
    assert sorted(reads) == [child.id for child in children]


def test_a_job_that_becomes_blocked_during_a_purge_keeps_its_parents(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACE: it comes where others were seen already, or in the place of one of its name."""
    complete(store, place, *(f"j-{number:03}" for number in range(303)))
    for number in range(303):
        grow_old(place.path / "completed" / f"j-{number:03}.json", 400 - number)
    store.add(make_jobs("p", "q"), chosen=["p", "q"])
    first = [make_job("old", after=("p",)), make_job("same", after=("p",))]
    store.add(first, chosen=["old", "same"])
    reads = blocked_reads(monkeypatch)
    found = purge(store, LogDir.of(place.location), [State.COMPLETED], None)
    assert [next(found).id for _ in range(100)][-1] == "j-099"
    other = place.open()
    assert list(other.cancel(["same"])) == [("same", State.CANCELLED)]
    assert other.purge("same", State.CANCELLED)
    late = [
        make_job("same", after=("p", "j-200")),
        make_job("new", after=("p", "j-201")),
        make_job("apart", after=("q", "j-302")),
    ]
    other.add(late, chosen=["same", "new", "apart"])
    reads.clear()
    assert len(list(found)) == 200
    assert ids(store, State.COMPLETED) == ["j-200", "j-201", "j-302"]
    assert sorted(reads) == ["apart", "new", "same"]


def test_a_blocked_job_that_cannot_be_read_is_looked_at_again(store: Store, place: Place) -> None:
    """Its document may be written at this moment, and name parents a moment later."""
    complete(store, place, *(f"j-{number:03}" for number in range(150)))
    for number in range(150):
        grow_old(place.path / "completed" / f"j-{number:03}.json", 400 - number)
    store.add(make_jobs("p"), chosen=["p"])
    store.add([make_job("child", after=("p", "j-120"))], chosen=["child"])
    path = place.path / "blocked" / "p" / "child.json"
    document = path.read_text()
    path.write_text(document[:20])
    grow_old(path.parent, 1)
    found = purge(store, LogDir.of(place.location), [State.COMPLETED], None)
    next(found)
    path.write_text(document)
    grow_old(path.parent, 1)
    list(found)
    assert ids(store, State.COMPLETED) == ["j-120"]


def test_no_job_begins_to_wait_for_one_that_is_being_purged(store: Store, place: Place) -> None:
    """RACE: a job that names a parent comes between the look for such jobs and the purge."""
    fd = os.open(place.path / "pending.lock", os.O_RDWR)
    with store.parents_held(ParentNames()):
        assert not files.lock(fd)  # whoever is to be blocked is placed under this lock
    assert files.lock(fd)
    os.close(fd)


def test_the_logs_go_before_the_id_is_free(store: Store, place: Place) -> None:
    """RACE: the id is enqueued anew while its job is purged; its first log must not get lost."""
    complete(store, place, "a")
    other = place.open()
    logs = LogDir.of(place.location)

    def forget(job: Job) -> None:
        with pytest.raises(DuplicateId):
            other.add(make_jobs("a"), chosen=["a"])
        logs.remove_all(job)

    assert store.purge("a", State.COMPLETED, forget=forget)
    other.add(make_jobs("a"), chosen=["a"])
    log(place, "a")
    assert not store.purge("a", State.COMPLETED, forget=logs.remove_all)
    assert logged(place) == ["a.1.log"]


def test_a_job_that_is_held_or_went_on_is_not_purged(store: Store, place: Place) -> None:
    """Its logs stay, too."""
    complete(store, place, "a", "b")
    store.retry("b", [State.COMPLETED], NOON)
    forgotten: list[Job] = []
    with place.open().hold("a") as is_held:
        assert is_held
        assert not store.purge("a", State.COMPLETED, forget=forgotten.append)
    assert not store.purge("b", State.COMPLETED, forget=forgotten.append)
    assert forgotten == []
    assert store.purge("a", State.COMPLETED, forget=forgotten.append)
    assert [job.id for job in forgotten] == ["a"]


@pytest.mark.parametrize("state", [State.COMPLETED, State.DEAD])
def test_only_a_finished_job_can_be_held(store: Store, place: Place, state: State) -> None:
    """One that waits or runs is not, wherever it was before."""
    store.add(make_jobs("a", max_retries=1), chosen=["a"])
    with store.hold("a") as is_held:
        assert not is_held
    outcome = Outcome.SUCCEEDED if state is State.COMPLETED else Outcome.FAILED
    claim, job = ended(claimed(store), outcome)
    with store.hold("a") as is_held:
        assert not is_held
    store.settle([(claim, job)])
    with store.hold("a") as is_held:
        assert is_held
    with store.hold("nobody") as is_held:
        assert not is_held


# --- while idle ---


@pytest.fixture
def idle(store: Store, place: Place) -> IdlePurge:
    """Return what purges for a worker that is idle."""
    return IdlePurge(store, LogDir.of(place.location))


def go_on(idle: IdlePurge, is_wanted: Callable[[], bool] = NEVER_WANTED, **settings: float) -> bool:
    """Let a worker purge by these settings; return whether it was called away."""
    return idle.go_on(Settings(**settings), datetime.now(UTC), is_wanted)  # type: ignore[arg-type]


def test_keep_completed_deletes_old_completed_jobs_alone(
    store: Store, place: Place, idle: IdlePurge
) -> None:
    """Dead ones stay, whatever their age, and so do young ones."""
    store.add(make_jobs("bad"), chosen=["bad"])
    fail_for_good(store)
    log(place, "bad", days_old=9)
    grow_old(place.path / "dead" / "bad.json", 9)
    complete(store, place, "old", days_old=9)
    complete(store, place, "new", days_old=1)
    assert not go_on(idle, keep_completed=7 * DAY)
    assert (ids(store, State.COMPLETED), ids(store, State.DEAD)) == (["new"], ["bad"])
    assert logged(place) == ["bad.1.log", "new.1.log"]


def test_more_jobs_than_are_deleted_at_once_all_go(
    store: Store, place: Place, idle: IdlePurge
) -> None:
    """A batch is no limit."""
    complete(store, place, *(f"j-{number}" for number in range(203)), days_old=2)
    go_on(idle, keep_completed=DAY)
    assert ids(store, State.COMPLETED) == logged(place) == []


def test_keep_logs_deletes_old_logs_of_finished_jobs_alone(
    store: Store, place: Place, idle: IdlePurge
) -> None:
    """A job that can run again keeps the logs of all its attempts; the jobs themselves stay."""
    complete(store, place, "done", days_old=9)
    log(place, "done", 2, days_old=1)
    store.add(make_jobs("bad"), chosen=["bad"])
    fail_for_good(store)
    store.add(make_jobs("runs", "waits"), chosen=["runs", "waits"])
    claim = claimed(store)
    for job_id in ("bad", "runs", "waits"):
        log(place, job_id, days_old=9)
    go_on(idle, keep_logs=7 * DAY)
    assert logged(place) == ["done.2.log", "runs.1.log", "waits.1.log"]
    assert ids(store, State.COMPLETED) == ["done"]
    store.give_back(claim)


@pytest.mark.parametrize(("days_old", "is_kept"), [(9, False), (1, True)])
def test_keep_logs_knows_what_workers_told_before(
    place: Place, idle: IdlePurge, days_old: int, is_kept: bool
) -> None:
    """The file that is written to is never deleted."""
    for name in ("worker.log", "worker.log.1"):
        (place.path / name).write_text("told\n")
        grow_old(str(place.path / name), days_old)
    go_on(idle, keep_logs=7 * DAY)
    assert (place.path / "worker.log").exists()
    assert (place.path / "worker.log.1").exists() == is_kept


def test_a_log_that_is_written_to_meanwhile_stays(
    store: Store, place: Place, idle: IdlePurge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACE: a job is retried and runs between the look at its log and the deletion."""
    complete(store, place, "a", days_old=9)
    found = LogDir.all

    def overtaken(logs: LogDir) -> Iterator[object]:
        for each in found(logs):
            grow_old(logs.path("a", 1), 0)
            yield each

    monkeypatch.setattr(LogDir, "all", overtaken)
    go_on(idle, keep_logs=DAY)
    assert logged(place) == ["a.1.log"]


def test_a_worker_that_is_wanted_goes_and_comes_back_to_where_it_was(
    store: Store, place: Place, idle: IdlePurge
) -> None:
    """A job never waits for a purge."""
    complete(store, place, "a", "b", "c", days_old=9)
    calls = 0

    def is_wanted() -> bool:
        nonlocal calls
        calls += 1
        return True

    assert go_on(idle, is_wanted, keep_completed=DAY)
    assert calls == 1
    assert ids(store, State.COMPLETED) == ["a", "b", "c"]
    assert go_on(idle, is_wanted, keep_completed=DAY)
    assert calls == 2
    assert not go_on(idle, keep_completed=DAY)
    assert ids(store, State.COMPLETED) == []
    with place.open().purge_turn(3600) as is_ours:
        assert not is_ours


def test_a_purge_that_was_put_off_keeps_nobody_else_from_one(
    store: Store, place: Place, idle: IdlePurge
) -> None:
    """Its worker may run a job for days; when that comes back it finds that it was done."""
    complete(store, place, "a", "b", "c", days_old=9)
    assert go_on(idle, lambda: True, keep_completed=DAY)
    other = IdlePurge(place.open(), LogDir.of(place.location))
    assert not go_on(other, keep_completed=DAY)
    assert ids(store, State.COMPLETED) == []
    complete(store, place, "d", days_old=9)
    assert not go_on(idle, keep_completed=DAY)
    assert ids(store, State.COMPLETED) == ["d"]


def test_who_finds_another_at_it_asks_again_before_the_period_is_over(
    store: Store, place: Place, idle: IdlePurge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other may be called away and not come back for days."""
    complete(store, place, "a", days_old=9)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with place.open().purge_turn(3600):
        assert not go_on(idle, keep_completed=DAY)
    (place.path / "purge.lock").write_text("")
    assert not go_on(idle, keep_completed=DAY)
    assert ids(store, State.COMPLETED) == ["a"]
    now += 60
    assert not go_on(idle, keep_completed=DAY)
    assert ids(store, State.COMPLETED) == []


def test_a_purge_that_was_put_off_goes_on_by_the_settings_of_now(
    store: Store, place: Place, idle: IdlePurge
) -> None:
    """What is to be kept longer since then is not deleted."""
    complete(store, place, "a", "b", days_old=9)
    assert go_on(idle, lambda: True, keep_completed=DAY)
    assert not go_on(idle, keep_completed=30 * DAY)
    assert ids(store, State.COMPLETED) == ["a", "b"]


def test_an_idle_worker_that_reads_what_is_blocked_can_be_called_away(
    store: Store, place: Place, idle: IdlePurge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be very many documents to read before the first job is deleted."""
    complete(store, place, "a", days_old=9)
    store.add(make_jobs("p"), chosen=["p"])
    children = [make_job(f"c-{number}", after=("p",)) for number in range(3)]
    store.add(children, chosen=[child.id for child in children])
    reads = blocked_reads(monkeypatch)
    assert go_on(idle, lambda: len(reads) == 2, keep_completed=DAY)
    assert len(reads) == 2
    assert not go_on(idle, keep_completed=DAY)
    assert len(reads) == 3
    assert ids(store, State.COMPLETED) == []


def test_one_purge_in_a_period_is_enough_for_all_workers(
    store: Store, place: Place, idle: IdlePurge
) -> None:
    """Each worker asks, and all but the first find that it was done."""
    go_on(idle, keep_completed=DAY)
    complete(store, place, "old", days_old=9)
    go_on(idle, keep_completed=DAY)
    go_on(IdlePurge(place.open(), LogDir.of(place.location)), keep_completed=DAY)
    assert ids(store, State.COMPLETED) == ["old"]
    grow_old(place.path / "purge.lock", 1)
    go_on(IdlePurge(place.open(), LogDir.of(place.location)), keep_completed=DAY)
    assert ids(store, State.COMPLETED) == []


def test_a_clock_that_was_set_back_delays_no_purge(store: Store, place: Place) -> None:
    """A purge of the future was not a moment ago."""
    with store.purge_turn(3600) as is_ours:
        assert is_ours
    with store.purge_turn(3600) as is_ours:
        assert not is_ours
    grow_old(place.path / "purge.lock", -9)
    with store.purge_turn(3600) as is_ours:
        assert is_ours


def test_a_purge_that_failed_is_tried_again(store: Store) -> None:
    """It does not count as one."""

    def fail() -> None:
        with store.purge_turn(3600):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with store.purge_turn(3600) as is_ours:
        assert is_ours


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        ({"keep_completed": 7 * DAY}, 3600.0),
        ({"keep_completed": 7 * DAY, "keep_logs": 600.0}, 60.0),
        ({"keep_logs": 0.5}, 1.0),
    ],
)
def test_the_shortest_time_to_keep_decides_how_often(
    settings: dict[str, float], seconds: float
) -> None:
    """Ten times in it, once an hour at least and once a second at most."""
    assert period_seconds(Settings(**settings)) == seconds  # type: ignore[arg-type]


def stray_logs(place: Place) -> None:
    """Leave logs of jobs that were removed by hand, and of some that were not."""
    store = place.open()
    complete(store, place, "done", "removed", "unreadable", "back", days_old=9)
    for job_id in ("removed", "unreadable", "back"):
        (place.path / "completed" / f"{job_id}.json").unlink()
    store.add(make_jobs("back", "waits"), chosen=["back", "waits"])
    (place.path / "corrupt" / "unreadable.json").touch()
    log(place, "waits", days_old=9)
    log(place, "removed", 2)  # a moment ago


def test_logs_that_removed_jobs_have_left_are_purged(store: Store, place: Place) -> None:
    """Those of jobs that are there stay, whatever their state, and what is a day old at most."""
    stray_logs(place)
    before = logged(place)
    strays = StrayLogs(store, LogDir.of(place.location), None, dry_run=True)
    strays.add_all()
    strays.purge()
    assert (strays.count, logged(place)) == (1, before)
    strays = StrayLogs(store, LogDir.of(place.location), None)
    strays.add_all()
    strays.purge()
    assert strays.count == 1
    assert logged(place) == [each for each in before if each != "removed.1.log"]


def test_keep_logs_takes_logs_that_removed_jobs_have_left(store: Store, place: Place) -> None:
    """An idle worker deletes them with the old logs of jobs that have ended."""
    stray_logs(place)
    go_on(IdlePurge(store, LogDir.of(place.location)), keep_logs=5 * DAY)
    assert logged(place) == ["back.1.log", "removed.2.log", "unreadable.1.log", "waits.1.log"]


def test_log_of_a_job_that_comes_meanwhile_stays(
    store: Store, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id that nobody had at the first look may be somebody's when the lock is held."""
    log(place, "late", days_old=9)
    assert isinstance(store, DirectoryStore)
    find = store.core.lookup.find
    looks: list[Collection[str]] = []

    def found(ids: Collection[str]) -> dict[str, Entry]:
        looks.append(ids)
        answer = find(ids)
        if len(looks) == 1:
            store.add([make_job("late")], chosen=["late"])
        return answer

    monkeypatch.setattr(store.core.lookup, "find", found)
    strays = StrayLogs(store, LogDir.of(place.location), None)
    strays.add_all()
    strays.purge()
    assert (strays.count, logged(place)) == (0, ["late.1.log"])

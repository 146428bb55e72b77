"""What a worker purges while it is idle, and when."""

import time
from collections.abc import Iterator

import pytest
from tests.directory.conftest import Place
from tests.directory.purging import DAY, blocked_reads, complete, go_on, grow_old, ids, log, logged
from tests.jobs import claimed, fail_for_good, make_job, make_jobs

from queuectl.config import Settings
from queuectl.job import State
from queuectl.purge import IdlePurge, period_seconds
from queuectl.store.logs import LogDir
from queuectl.store.protocol import Store


@pytest.fixture
def idle(store: Store, place: Place) -> IdlePurge:
    """Return what purges for a worker that is idle."""
    return IdlePurge(store, LogDir(f"{place.location}/logs"))


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
    store.queue.give_back(claim)


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
    with place.open().purging.turn(3600) as is_ours:
        assert not is_ours


def test_a_purge_that_was_put_off_keeps_nobody_else_from_one(
    store: Store, place: Place, idle: IdlePurge
) -> None:
    """Its worker may run a job for days; when that comes back it finds that it was done."""
    complete(store, place, "a", "b", "c", days_old=9)
    assert go_on(idle, lambda: True, keep_completed=DAY)
    other = IdlePurge(place.open(), LogDir(f"{place.location}/logs"))
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
    with place.open().purging.turn(3600):
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
    go_on(IdlePurge(place.open(), LogDir(f"{place.location}/logs")), keep_completed=DAY)
    assert ids(store, State.COMPLETED) == ["old"]
    grow_old(place.path / "purge.lock", 1)
    go_on(IdlePurge(place.open(), LogDir(f"{place.location}/logs")), keep_completed=DAY)
    assert ids(store, State.COMPLETED) == []


def test_a_clock_that_was_set_back_delays_no_purge(store: Store, place: Place) -> None:
    """A purge of the future was not a moment ago."""
    with store.purging.turn(3600) as is_ours:
        assert is_ours
    with store.purging.turn(3600) as is_ours:
        assert not is_ours
    grow_old(place.path / "purge.lock", -9)
    with store.purging.turn(3600) as is_ours:
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

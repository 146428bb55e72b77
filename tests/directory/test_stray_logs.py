"""Logs that jobs removed by hand have left."""

from collections.abc import Collection

import pytest
from tests.directory.conftest import Place
from tests.directory.purging import DAY, complete, go_on, log, logged
from tests.jobs import make_job, make_jobs

from queuectl.purge import IdlePurge, StrayLogs
from queuectl.store.directory import DirectoryStore
from queuectl.store.logs import LogDir
from queuectl.store.protocol import Store
from queuectl.store.values import Entry


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
    strays = StrayLogs(store, LogDir(f"{place.location}/logs"), None, dry_run=True)
    assert list(strays.purge())
    assert (strays.count, logged(place)) == (1, before)
    strays = StrayLogs(store, LogDir(f"{place.location}/logs"), None)
    assert list(strays.purge())
    assert strays.count == 1
    assert logged(place) == [each for each in before if each != "removed.1.log"]


def test_keep_logs_takes_logs_that_removed_jobs_have_left(store: Store, place: Place) -> None:
    """An idle worker deletes them with the old logs of jobs that have ended."""
    stray_logs(place)
    go_on(IdlePurge(store, LogDir(f"{place.location}/logs")), keep_logs=5 * DAY)
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
    strays = StrayLogs(store, LogDir(f"{place.location}/logs"), None)
    assert list(strays.purge())
    assert (strays.count, logged(place)) == (0, ["late.1.log"])

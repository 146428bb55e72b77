"""Deleting what is finished: what goes, what stays, and what must not get lost meanwhile."""

import json
import os
from datetime import UTC, datetime, timedelta

import pytest
from tests.directory.conftest import Place
from tests.directory.purging import blocked_reads, complete, grow_old, ids, log, logged, purged
from tests.jobs import drain, fail_for_good, make_job, make_jobs

from queuectl.errors import BadDocument, DuplicateId
from queuectl.job import Job, State, log_name
from queuectl.purge import Purge
from queuectl.store import files
from queuectl.store.logs import LogDir
from queuectl.store.protocol import Store


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
            for entry in Purge(store, LogDir(f"{place.location}/logs"), None, dry_run=dry_run).jobs(
                [State.COMPLETED]
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
    found = Purge(store, LogDir(f"{place.location}/logs"), None).jobs([State.COMPLETED])
    assert [next(found).id for _ in range(100)][-1] == "j-099"
    other = place.open()
    assert list(other.cancel(["same"])) == [("same", State.CANCELLED)]
    assert other.purging.purge("same", State.CANCELLED)
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
    found = Purge(store, LogDir(f"{place.location}/logs"), None).jobs([State.COMPLETED])
    next(found)
    path.write_text(document)
    grow_old(path.parent, 1)
    list(found)
    assert ids(store, State.COMPLETED) == ["j-120"]


def test_no_job_begins_to_wait_for_one_that_is_being_purged(store: Store, place: Place) -> None:
    """RACE: a job that names a parent comes between the look for such jobs and the purge."""
    fd = os.open(place.path / "pending.lock", os.O_RDWR)
    with store.purging.named_parents().held():
        assert not files.lock(fd)  # whoever is to be blocked is placed under this lock
    assert files.lock(fd)
    os.close(fd)


def test_the_logs_go_before_the_id_is_free(store: Store, place: Place) -> None:
    """RACE: the id is enqueued anew while its job is purged; its first log must not get lost."""
    complete(store, place, "a")
    other = place.open()
    logs = LogDir(f"{place.location}/logs")

    def forget(job: Job) -> None:
        with pytest.raises(DuplicateId):
            other.add(make_jobs("a"), chosen=["a"])
        logs.remove_all(job)

    assert store.purging.purge("a", State.COMPLETED, forget=forget)
    other.add(make_jobs("a"), chosen=["a"])
    log(place, "a")
    assert not store.purging.purge("a", State.COMPLETED, forget=logs.remove_all)
    assert logged(place) == ["a.1.log"]

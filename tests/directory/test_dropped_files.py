"""Files that a person or a script drops into pending/, which a worker adopts."""

import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.directory.conftest import Place
from tests.directory.support import TORN, WHOLE, names
from tests.jobs import (
    LATER,
    NOON,
    claim_next,
    claimed,
    drain,
    ended,
    fail_for_good,
    make_job,
    settle,
)

from queuectl.clock import later
from queuectl.job import Outcome, State
from queuectl.store import files, open_store
from queuectl.store.layout import StoreDirectory
from queuectl.store.protocol import Store
from queuectl.store.scan import MOST_DUE, PendingScan


@pytest.mark.parametrize("when", ["before the worker", "while it waits"])
def test_dropped_file_needs_only_a_command(
    place: Place, store: Store, pending: Path, when: str
) -> None:
    """A file that is put into pending/ is adopted: priority 5, due now, the stem as its id."""
    if when == "while it waits":
        assert claim_next(store, NOON) is None
    store.config.change(lambda _: {"max-retries": "7", "timeout": "9s", "priority": "2"})
    (pending / "report.json").write_text(WHOLE)
    assert place.open().counts(NOON).due == 1
    assert [entry.id for entry in store.entries(State.PENDING, NOON)] == ["report"]
    job = claimed(store, NOON).job
    assert (job.command, job.max_retries, job.timeout_seconds) == ("echo hi", 7, 9.0)
    assert (job.priority, job.attempts, job.cwd) == (5, 0, os.path.expanduser("~"))


def test_dropped_file_runs_in_the_root_where_nobody_is_at_home(
    store: Store, pending: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its directory is an absolute path, or the document could not be read again."""
    monkeypatch.setenv("HOME", "")
    (pending / "a.json").write_text('{"command": "x"}')
    assert claimed(store, NOON).job.cwd == "/"


def test_dropped_file_is_claimed_by_the_call_that_adopts_it(store: Store, pending: Path) -> None:
    """One claim adopts and takes the job, so that a worker does not sleep beside it."""
    (pending / "report.json").write_text(WHOLE)
    claim = claimed(store, NOON)
    assert (claim.job.id, claim.job.priority, claim.job.run_at) == ("report", 5, NOON)
    settle(store, [ended(claim)])
    assert store.get("report").state is State.COMPLETED


def test_dropped_file_has_its_documents_id_and_limits(store: Store, pending: Path) -> None:
    """What a document says of itself counts, except for the priority and the due time."""
    document = {"id": "real", "command": "x", "cwd": "/srv", "max_retries": 1, "note": "kept"}
    (pending / "file.json").write_text(json.dumps(document | {"priority": 0, "env": {"A": "b"}}))
    claim = claimed(store, NOON)
    job = claim.job
    assert (job.id, job.cwd, job.max_retries, job.priority) == ("real", "/srv", 1, 5)
    assert (job.env, job.extra) == ({"A": "b"}, {"note": "kept"})


@pytest.mark.parametrize(
    "state", [State.PENDING, State.PROCESSING, State.COMPLETED, State.DEAD, State.CANCELLED]
)
def test_dropped_file_whose_id_is_taken_gets_the_next_number(
    store: Store, pending: Path, state: State
) -> None:
    """An id that a job has already, in whatever state, becomes -2, then -3."""
    outcomes = {
        State.COMPLETED: Outcome.SUCCEEDED,
        State.DEAD: Outcome.FAILED,
        State.CANCELLED: Outcome.CANCELLED,
    }
    due = LATER if state is State.PENDING else NOON
    store.add([make_job("a", run_at=later(due, 1), max_retries=1)])
    if state is not State.PENDING:
        claim = claimed(store)
        if state in outcomes:
            settle(store, [ended(claim, outcomes[state])])
    (pending / "a.json").write_text(WHOLE)
    assert claimed(store, NOON).job.id == "a-2"
    (pending / "other.json").write_text('{"id": "a", "command": "x"}')
    assert claimed(store, NOON).job.id == "a-3"
    assert store.get("a").state is state


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a scan keep only five of the names that are to be adopted, three at a time."""
    monkeypatch.setattr(PendingScan.__init__, "__defaults__", (MOST_DUE, 5))
    monkeypatch.setattr("queuectl.store.adopting._AT_ONCE", 3)


def test_many_dropped_files_are_all_adopted(store: Store, pending: Path, few_at_once: None) -> None:
    """Every file of a crowd is adopted, however many there are."""
    for index in range(23):
        (pending / f"j{index:02}.json").write_text(WHOLE)
    assert sorted(drain(store, NOON)) == [f"j{index:02}" for index in range(23)]


def test_dropped_files_that_want_one_id_are_numbered(
    store: Store, pending: Path, few_at_once: None
) -> None:
    """However many there are, and though a job that has ended has one of the numbers."""
    store.add([make_job("x-3")])
    drain(store, NOON)
    for index in range(13):
        (pending / f"j{index:02}.json").write_text('{"id": "x", "command": "true"}')
    (pending / "x.json").write_text(WHOLE)
    wanted = {"x", *(f"x-{number}" for number in range(2, 16))} - {"x-3"}
    assert set(drain(store, NOON)) == wanted
    assert store.get("x").command == "echo hi"  # the file of that name


def test_number_that_a_file_gets_is_taken_for_those_after_it(store: Store, pending: Path) -> None:
    """Also for one that is adopted together with it, and wants just that."""
    for name, job_id in (("a", "x"), ("b", "x"), ("c", "x-2")):
        (pending / f"{name}.json").write_text(json.dumps({"id": job_id, "command": name}))
    assert {each: store.get(each).command for each in drain(store, NOON)} == {
        "x": "a", "x-2": "b", "x-2-2": "c",
    }  # fmt: skip


@pytest.mark.parametrize("first", ["a", "b"])
def test_two_dropped_files_that_want_one_id_both_run_whichever_is_met_first(
    store: Store, pending: Path, first: str
) -> None:
    """A worker meets what it is told of before what its scan finds, so no order is promised."""
    for name in (first, "ab".replace(first, "")):
        (pending / f"{name}.json").write_text(json.dumps({"id": "x", "command": name}))
        store.queue.arrivals_fd()  # from here on it is told
    found = {job_id: store.get(job_id).command for job_id in drain(store, NOON)}
    assert sorted(found) == ["x", "x-2"]
    assert sorted(found.values()) == ["a", "b"]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the directories whose names were read, each time that they were."""
    seen: list[str] = []
    names_in = StoreDirectory.names

    def counted(self: StoreDirectory, directory: str) -> Iterator[str]:
        seen.append(directory)
        return names_in(self, directory)

    monkeypatch.setattr(StoreDirectory, "names", counted)
    return seen


def test_many_dropped_files_cost_few_looks_through_the_queue(
    store: Store, pending: Path, looks: list[str]
) -> None:
    """One look serves many of them: one for each would cost the square of their number."""
    assert claim_next(store, NOON) is None
    for when in ("told by the kernel", "found by a scan"):
        looks.clear()
        for index in range(150):
            (pending / f"{when[0]}{index}.json").write_text(WHOLE)
        worker = store if when == "told by the kernel" else open_store(store.location)
        assert len(drain(worker, NOON)) == 150
        assert looks.count("pending") <= 3
    worker.close()


def test_few_descriptors_are_enough_for_many_dropped_files(
    store: Store, pending: Path, looks: list[str]
) -> None:
    """Those that are adopted at once are each open; fewer at once are tried, not one by one."""
    for index in range(60):
        (pending / f"j{index:02}.json").write_text(WHOLE)
    store.settings()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [number for number in range(1000) if str(number) not in os.listdir("/dev/fd")]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[30], hard))
    try:
        assert len(drain(store, NOON)) == 60
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert looks.count("pending") < 20
    assert not [each for each in names(pending.parent / "tmp") if not each.startswith("spare")]


@pytest.mark.parametrize("how", ["removed", "renamed"])
def test_hand_that_removes_a_file_while_it_is_adopted(
    store: Store, pending: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """RACE: what a hand has taken back does not come back, and the others are adopted."""
    for job_id in "abc":
        (pending / f"{job_id}.json").write_text(WHOLE)
    write = files.write_synced

    def take_back(*args: Any, **options: Any) -> int:
        if (pending / "b.json").exists():
            (pending / "b.json").rename(pending.parent / "by-hand")
        return write(*args, **options)

    monkeypatch.setattr(files, "write_synced", take_back)
    assert claimed(store, NOON).job.id == "a"
    monkeypatch.undo()
    assert (pending.parent / "by-hand").read_text() == WHOLE
    if how == "renamed":
        (pending.parent / "by-hand").rename(pending / "d.json")
    assert drain(store, NOON) == (["c", "d"] if how == "renamed" else ["c"])
    assert not [each for each in names(pending.parent / "tmp") if not each.startswith("spare")]


@pytest.mark.parametrize("odd", ["symlink", "newer", "torn"])
def test_files_that_cannot_be_adopted_do_not_hide_those_behind_them(
    store: Store, pending: Path, few_at_once: None, odd: str
) -> None:
    """Files that are left alone, however many there are, keep no other from being adopted."""
    for index in range(23):
        path = pending / f"l{index:02}.json"
        if odd == "symlink":
            path.symlink_to("/etc/hostname")
        else:
            path.write_text('{"schema": 2}' if odd == "newer" else TORN)
    for index in range(9):
        (pending / f"j{index:02}.json").write_text(WHOLE)
    assert len(drain(store, NOON)) == 9
    assert len(names(pending)) == 23


def test_document_of_a_dead_job_moved_into_pending_has_one_more_run(
    place: Place, store: Store, pending: Path
) -> None:
    """`mv dead/flaky-1.json pending/` keeps the attempts, and so allows one run."""
    store.add([make_job("flaky-1")])
    fail_for_good(store)
    (place.path / "dead" / "flaky-1.json").rename(pending / "flaky-1.json")
    claim = claimed(store)
    assert (claim.job.id, claim.attempt, claim.job.attempts) == ("flaky-1", 4, 3)
    claim, job = ended(claim, Outcome.FAILED)
    settle(store, [(claim, job)])
    found = store.get("flaky-1")
    assert (found.state, found.attempts, len(found.history)) == (State.DEAD, 4, 4)


@pytest.mark.parametrize("end", [State.COMPLETED, State.CANCELLED])
def test_cancel_of_a_dropped_file_touches_no_older_job_of_its_name(
    store: Store, pending: Path, end: State
) -> None:
    """A script drops the same name each night: a cancel before it is adopted replaces nothing."""
    store.add([make_job("night")])
    if end is State.COMPLETED:
        drain(store)
    else:
        list(store.cancel(["night"]))
    (pending / "night.json").write_text('{"command": "tonight"}')
    assert list(store.cancel(["night"])) == [("night", end)]
    assert store.get("night").command == "run night"
    assert store.get("night-2").command == "tonight"
    assert list(store.cancel(["night-2"])) == [("night-2", State.CANCELLED)]
    assert store.get("night").state is end


def test_dropped_file_whose_name_is_free_is_cancelled(store: Store, pending: Path) -> None:
    """What no worker has adopted yet is cancelled under its name."""
    (pending / "night.json").write_text('{"command": "tonight"}')
    assert list(store.cancel(["night"])) == [("night", State.CANCELLED)]
    assert store.get("night").command == "tonight"
    assert drain(store) == []


@pytest.mark.parametrize("stem", ["x-20260101T120000.000000Z-a", "5-20261301x000000.000000Z-a"])
def test_name_that_is_nearly_that_of_a_pending_job_is_one_that_was_dropped(
    store: Store, pending: Path, stem: str
) -> None:
    """Until it is adopted it has the id that a list tells."""
    (pending / f"{stem}.json").write_text(WHOLE)
    assert [entry.id for entry in store.entries(State.PENDING, LATER)] == [stem]
    assert list(store.ids(State.PENDING)) == [stem]
    entry = store.resolve(stem[:4])
    assert entry.id == stem
    job = store.read(entry)
    assert job is not None
    assert job.command == "echo hi"

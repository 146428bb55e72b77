"""What a person or a script may do to the files of a directory store, with rm, mv and an editor."""

import json
import os
import resource
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.conftest import Place
from tests.jobs import (
    LATER,
    NOON,
    claim_next,
    claimed,
    drain,
    ended,
    fail_for_good,
    make_job,
    make_jobs,
)

from queuectl.clock import format_instant, later
from queuectl.document import MAX_DOCUMENT_BYTES, encode_job
from queuectl.errors import JobNotFound
from queuectl.job import Job, Outcome, State
from queuectl.store import files, open_store
from queuectl.store.base import Store
from queuectl.store.layout import StoreDirectory
from queuectl.store.names import pending_name
from queuectl.store.settling import Settler

WHOLE = '{"command": "echo hi"}'
TORN = '{"command": "echo h'


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Return an empty directory store."""
    made = Place(str(tmp_path / "store"))
    yield made
    made.close()


@pytest.fixture
def pending(place: Place, store: Store) -> Path:
    """Return the directory in which hands put jobs."""
    return place.path / "pending"


def names(directory: Path) -> list[str]:
    """Return the names in a directory, sorted."""
    return sorted(os.listdir(directory))


def name_of(job_id: str) -> str:
    """Return the name under which a job of noon waits."""
    return pending_name(5, NOON, job_id)


def grow_old(path: Path, seconds: float = 10.0) -> None:
    """Make a file look as if nobody had written to it for a while."""
    at = time.time() - seconds
    os.utime(path, (at, at), follow_symlinks=False)


# --- dropping a file in ---


@pytest.mark.parametrize("when", ["before the worker", "while it waits"])
def test_dropped_file_needs_only_a_command(
    place: Place, store: Store, pending: Path, when: str
) -> None:
    """A file that is put into pending/ is adopted: priority 5, due now, the stem as its id."""
    if when == "while it waits":
        assert claim_next(store, NOON) is None
    store.change_config(lambda _: {"max-retries": "7", "timeout": "9s", "priority": "2"})
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
    store.settle([ended(claim)])
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
            store.settle([ended(claim, outcomes[state])])
    (pending / "a.json").write_text(WHOLE)
    assert claimed(store, NOON).job.id == "a-2"
    (pending / "other.json").write_text('{"id": "a", "command": "x"}')
    assert claimed(store, NOON).job.id == "a-3"
    assert store.get("a").state is state


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a scan keep only five of the names that are to be adopted, three at a time."""
    monkeypatch.setattr("queuectl.store.listing.SOON", 5)
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
        store.arrivals_fd()  # from here on it is told
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
    store.settle([(claim, job)])
    found = store.get("flaky-1")
    assert (found.state, found.attempts, len(found.history)) == (State.DEAD, 4, 4)


# --- rm, mv and an editor ---


@pytest.mark.parametrize("is_recorded", [False, True])
def test_running_job_that_was_taken_away_lets_the_others_be_settled(
    place: Place, store: Store, monkeypatch: pytest.MonkeyPatch, is_recorded: bool
) -> None:
    """Whether before its end is recorded or after: it is told, and stays where it is."""
    store.add(make_jobs("a", "b", "c"))
    claims = [claimed(store) for _ in range(3)]
    settlement = store.begin_settle([ended(claim) for claim in claims])
    settlement.sync()
    running = place.path / "processing"

    def take() -> None:
        (running / "b.1.json").rename(place.path / "cancelled" / "b.json")

    if is_recorded:
        roll_forward = Settler.roll_forward

        def take_first(self: Settler, name: str, job: Job) -> None:
            if name == "b.1.json":
                take()
            roll_forward(self, name, job)

        monkeypatch.setattr(Settler, "roll_forward", take_first)
    else:
        take()
    settlement.finish()
    assert [claim.job.id for claim in settlement.gone] == ["b"]
    assert list(running.iterdir()) == []
    assert sorted(path.name for path in (place.path / "completed").iterdir()) == [
        "a.json", "c.json",
    ]  # fmt: skip
    assert [path.name for path in (place.path / "cancelled").iterdir()] == ["b.json"]
    assert sum(store.tally().by_outcome.values()) == 2


def test_claims_are_free_when_the_whole_store_was_deleted(place: Place, store: Store) -> None:
    """There is nothing left to settle, and no worker is kept by it."""
    store.add(make_jobs("a", "b"))
    claims = [claimed(store), claimed(store)]
    shutil.rmtree(place.path)
    settlement = store.begin_settle([ended(claim) for claim in claims])
    settlement.sync()
    settlement.finish()
    assert [claim.job.id for claim in settlement.gone] == ["a", "b"]
    assert not place.path.exists()


def test_running_job_that_was_taken_away_cannot_be_given_back(place: Place, store: Store) -> None:
    """It stays where it is, and the worker is free of it."""
    store.add(make_jobs("a"))
    claim = claimed(store)
    (place.path / "processing" / "a.1.json").rename(place.path / "dead" / "a.json")
    store.give_back(claim)
    assert list((place.path / "pending").iterdir()) == []


def test_removed_file_is_a_job_that_is_gone(store: Store, pending: Path) -> None:
    """`rm` on a waiting job means that it does not run, also once a worker knows its name."""
    store.add(make_jobs("a", "b", "c"))
    assert claimed(store).job.id == "a"
    (pending / pending_name(5, later(NOON, 0.000001), "b")).unlink()
    assert drain(store) == ["c"]


def test_renamed_file_has_the_priority_and_due_time_of_its_name(
    store: Store, pending: Path
) -> None:
    """`mv` within pending/ changes priority and due time: the name decides."""
    store.add(make_jobs("a", "b", "c"))
    assert claimed(store).job.id == "a"
    old = pending / pending_name(5, later(NOON, 0.000002), "c")
    old.rename(pending / pending_name(1, later(NOON, 30), "c"))
    claim = claimed(store)
    assert (claim.job.id, claim.job.priority, claim.job.run_at) == ("c", 1, later(NOON, 30))
    assert drain(store) == ["b"]


@pytest.mark.parametrize("editor", ["in place", "by rename"])
def test_edited_document_is_what_runs(store: Store, pending: Path, editor: str) -> None:
    """An editor on a waiting document changes what runs, whether it writes in place or renames."""
    store.add(make_jobs("a", "b"))
    assert claimed(store).job.id == "a"
    path = pending / pending_name(5, later(NOON, 0.000001), "b")
    text = path.read_text().replace("run b", "edited").replace('"priority": 5', '"priority": 0')
    if editor == "in place":
        path.write_text(text)
    else:
        (pending / ".b.swp").write_text(text)
        (pending / ".b.swp").rename(path)
    claim = claimed(store)
    assert (claim.job.id, claim.job.command, claim.job.priority) == ("b", "edited", 5)


def test_unknown_keys_are_kept_when_the_store_rewrites(store: Store, pending: Path) -> None:
    """What an editor or another program added to a document survives its run."""
    document = '{"id": "a", "command": "x", "note": {"b": [1.5, "ü"]}, "max_retries": 3}'
    (pending / name_of("a")).write_text(document, encoding="utf-8")
    store.settle([ended(claimed(store))])
    assert store.get("a").extra == {"note": {"b": [1.5, "ü"]}}


def test_foreign_document_under_a_full_name_gets_the_rest_from_the_config(
    store: Store, pending: Path
) -> None:
    """A script may give the full name and only a command."""
    store.change_config(lambda _: {"max-retries": "9"})
    (pending / pending_name(1, NOON, "a")).write_text(WHOLE)
    job = claimed(store).job
    assert (job.id, job.priority, job.max_retries, job.run_at) == ("a", 1, 9, NOON)


def test_name_decides_about_the_id(store: Store, pending: Path) -> None:
    """A copy of a waiting document under another id is another job."""
    store.add([make_job("a")])
    (pending / name_of("b")).write_bytes((pending / name_of("a")).read_bytes())
    assert drain(store) == ["a", "b"]
    assert [store.get(job_id).id for job_id in ("a", "b")] == ["a", "b"]


# --- what cannot be read ---


@pytest.mark.parametrize("name", [name_of("torn"), "torn.json"])
def test_torn_document_is_left_alone_while_it_may_still_be_written(
    place: Place, store: Store, pending: Path, name: str
) -> None:
    """A document that cannot be read stays while it is young, and is taken once it is whole."""
    path = pending / name
    path.write_text(TORN)
    assert claim_next(store, NOON) is None
    assert path.exists()
    assert names(place.path / "corrupt") == []
    due = store.next_due()
    assert due is not None  # the worker looks again by itself
    path.write_text(WHOLE)
    assert claimed(store, due).job.id == "torn"


@pytest.mark.parametrize("name", [name_of("torn"), "torn.json"])
def test_young_torn_document_is_taken_at_the_second_look_though_nothing_tells(
    store: Store, pending: Path, name: str
) -> None:
    """The look that was put off does what the first would have done on the whole document."""
    path = pending / name
    path.write_text(TORN)
    assert claim_next(store, NOON) is None
    due = store.next_due()
    assert due is not None
    path.write_text(WHOLE)
    deaf(store)
    claim = claimed(store, due)
    assert (claim.job.id, claim.attempt) == ("torn", 1)


def deaf(store: Store) -> None:
    """Let a store miss what has arrived so far."""
    fd = store.arrivals_fd()
    assert fd is not None
    os.read(fd, 65536)


@pytest.mark.parametrize("name", [name_of("torn"), "torn.json"])
@pytest.mark.parametrize(
    "data",
    [
        TORN.encode(),
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"command": 5}',
        b"{}",
        b'{"command": "x", "max_retries": -1}',
        b'{"command": "x", "history": [5]}',
        b"[" * 100_000,
    ],
)
def test_old_document_that_cannot_be_read_is_set_aside_with_the_reason(
    place: Place, store: Store, pending: Path, name: str, data: bytes
) -> None:
    """What cannot be read goes to corrupt/, unchanged, with the reason beside it."""
    path = pending / name
    path.write_bytes(data)
    grow_old(path)
    store.add([make_job("good", run_at=later(NOON, 5))])
    assert drain(store) == ["good"]
    corrupt = place.path / "corrupt"
    assert names(corrupt) == [name, name + ".reason"]
    assert (corrupt / name).read_bytes() == data
    reason = (corrupt / (name + ".reason")).read_text()
    assert f"pending/{name}: " in reason
    assert reason.count("\n") == 1
    assert store.counts(NOON).unreadable == 1
    assert store.counts(NOON).by_state[State.PENDING] == 0


def test_document_with_a_time_in_the_future_is_set_aside(
    place: Place, store: Store, pending: Path
) -> None:
    """A clock that was set back does not keep a torn document in pending/ for ever."""
    (pending / name_of("a")).write_text(TORN)
    grow_old(pending / name_of("a"), -3600)
    assert claim_next(store, NOON) is None
    assert name_of("a") in names(place.path / "corrupt")


def test_corrupt_documents_of_one_name_are_all_kept(
    place: Place, store: Store, pending: Path
) -> None:
    """A second document of the same name does not replace the first."""
    for text in (TORN, "{"):
        (pending / "a.json").write_text(text)
        grow_old(pending / "a.json")
        assert claim_next(store, NOON) is None
    corrupt = place.path / "corrupt"
    assert names(corrupt) == ["a-2.json", "a-2.json.reason", "a.json", "a.json.reason"]
    assert (corrupt / "a.json").read_text() == TORN
    assert (corrupt / "a-2.json").read_text() == "{"


def test_document_beyond_all_measure_is_set_aside_unread(
    place: Place, store: Store, pending: Path
) -> None:
    """A file of more than the most bytes is not parsed."""
    for name in (name_of("big"), "big.json"):
        with open(pending / name, "wb") as file:
            file.truncate(MAX_DOCUMENT_BYTES + 1)
        grow_old(pending / name)
    assert claim_next(store, NOON) is None
    reasons = [path.read_text() for path in (place.path / "corrupt").glob("*.reason")]
    assert len(reasons) == 2
    assert all("more than" in reason for reason in reasons)


def test_document_that_would_be_written_too_long_is_set_aside(
    place: Place, store: Store, pending: Path
) -> None:
    """It could be read once, and what is recorded of its attempt by nobody."""
    numbers = b",".join([b"1e15"] * 3_400_000)  # each is written with 16 digits more
    (pending / "grows.json").write_bytes(b'{"command": "true", "note": [' + numbers + b"]}")
    grow_old(pending / "grows.json")
    assert claim_next(store, NOON) is None
    (reason,) = (place.path / "corrupt").glob("*.reason")
    assert "would be written with" in reason.read_text()


def test_torn_document_of_a_dead_worker_is_set_aside(place: Place, store: Store) -> None:
    """A document in processing/ that cannot be read goes to corrupt/, too."""
    (place.path / "processing" / "a.1.json").write_text(TORN)
    assert store.recover(lambda job, attempt: job).recovered == []
    assert names(place.path / "corrupt") == ["a.1.json", "a.1.json.reason"]


# --- what is no document ---


def put_symlink(path: Path) -> None:
    """Put a symlink to a good document."""
    target = path.parent.parent / "elsewhere"
    target.write_text(WHOLE)
    path.symlink_to(target)


def put_socket(path: Path) -> None:
    """Put a socket."""
    with socket.socket(socket.AF_UNIX) as listener:
        # A relative path: that of the test's directory may be longer than a socket's may be.
        before = os.getcwd()
        os.chdir(path.parent)
        try:
            listener.bind(path.name)
        finally:
            os.chdir(before)


def put_foreign(path: Path) -> None:
    """Put a document of another user."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    path.write_text(WHOLE)
    os.chown(path, 12345, -1)


def put_newer(path: Path) -> None:
    """Put a document of a newer version."""
    path.write_text('{"schema": 2, "command": "x"}')
    grow_old(path)


@pytest.mark.parametrize("name", [name_of("odd"), "odd.json"])
@pytest.mark.parametrize(
    "put",
    [put_symlink, os.mkfifo, put_socket, os.mkdir, put_foreign, put_newer],
    ids=["symlink", "fifo", "socket", "directory", "another's", "newer"],
)
def test_what_is_no_document_is_left_alone(
    place: Place, store: Store, pending: Path, put: object, name: str
) -> None:
    """What is not a regular file of this user and version stays, runs never and is no busy loop."""
    assert callable(put)
    put(pending / name)
    store.add([make_job("good", run_at=later(NOON, 5), priority=9)])
    assert drain(store) == ["good"]
    assert claim_next(store, LATER) is None
    due = store.next_due()
    assert due is None or due > LATER
    assert names(pending) == [name]
    assert names(place.path / "corrupt") == []
    assert names(place.path / "processing") == []


def test_newer_document_is_left_alone_by_recovery(place: Place, store: Store) -> None:
    """A running job of a newer version is not recovered by an older one."""
    path = place.path / "processing" / "a.1.json"
    path.write_text('{"schema": 2, "command": "x"}')
    assert store.recover(lambda job, attempt: job).recovered == []
    assert path.exists()


def test_document_that_becomes_readable_for_us_is_taken(store: Store, pending: Path) -> None:
    """A name that was left alone is looked at again when a new file arrives under it."""
    path = pending / name_of("a")
    put_newer(path)
    assert claim_next(store, NOON) is None
    (pending / ".new").write_bytes(encode_job(make_job("a")))
    (pending / ".new").rename(path)
    assert claimed(store, NOON).job.id == "a"


@pytest.mark.parametrize(
    "name",
    [
        "README",
        ".hidden.json",
        "a.json~",
        "a.json.tmp",
        "5-20260102T120000.250000Z-a.txt",
        "5-99999999T999999.999999Z-far",
        ".5-20260102T120000.250000Z-a.json",
    ],
)
def test_foreign_and_hidden_files_are_no_jobs(store: Store, pending: Path, name: str) -> None:
    """What is not called like a job is neither adopted nor counted nor touched."""
    (pending / name).write_text("not a job")
    grow_old(pending / name)
    assert claim_next(store, LATER) is None
    assert store.next_due() is None
    assert store.counts(LATER).by_state[State.PENDING] == 0
    assert store.entries(State.PENDING, LATER) == []
    assert names(pending) == [name]


@pytest.mark.parametrize(
    "name",
    [
        b"\xff.json",
        b"a b.json",
        b"a\nb.json",
        b"-a.json",
        b"x" * 150 + b".json",
        b"x" * 250 + b".json",
        b"5-20260102T120000.250000Z-\xff.json",
        b"5-20260102T120000.250000Z-a\nb.json",
        b"5-20260102T120000.250000Z-" + b"x" * 150 + b".json",
        b"5-30260102T120000.250000Z-\xff.json",
        b"5-30260102T120000.250000Z-a\nb.json",
        b"5-30260102T120000.250000Z-" + b"x" * 150 + b".json",
        b"x-zzzzzzzzzzzzzzzzzzzzzzZ-a.json",
        b"5-20260102Txxxxxx.250000Z-a.json",
    ],
)
def test_odd_name_is_adopted_under_the_documents_id_or_set_aside(
    place: Place, store: Store, pending: Path, name: bytes
) -> None:
    """A stem that is no id is no harm: with an id the document runs, without one it is set aside.

    The time in such a name is not looked at.
    """
    path = Path(os.fsdecode(os.fsencode(pending) + b"/" + name))
    path.write_text('{"id": "given", "command": "x"}')
    grow_old(path)
    assert drain(store, NOON) == ["given"]
    path.write_text(WHOLE)
    grow_old(path)
    ran = drain(store, NOON)
    kept = os.listdir(os.fsencode(place.path / "corrupt"))
    if name.endswith(b"Z-a.json"):  # a stem that is an id after all
        assert (ran, kept) == ([os.fsdecode(name[:-5])], [])
    else:
        assert ran == []
        kept_as = name[:-5][:200] + b".json"
        assert sorted(kept) == [kept_as, kept_as + b".reason"]


def test_month_thirteen_in_a_name_waits_for_ever_without_harm(store: Store, pending: Path) -> None:
    """A time that no calendar has is still an order of text, and does not stop a worker."""
    (pending / "5-20261332T250000.000000Z-a.json").write_text(WHOLE)
    assert claim_next(store, NOON) is None
    store.next_due()
    assert [entry.id for entry in store.entries(State.PENDING, NOON)] == ["a"]
    assert store.counts(NOON).by_state[State.PENDING] == 1


def test_order_of_ls_is_the_order_of_running(place: Place, store: Store, pending: Path) -> None:
    """Sorted names are the order in which one worker claims what is due."""
    jobs = [
        make_job(f"j{(index * 37) % 100:02}", priority=(index * 7) % 10, run_at=later(NOON, -index))
        for index in range(80)
    ]
    place.open().add(jobs[:50])
    place.open().add(jobs[50:])
    listed = [name[26:-5] for name in names(pending)]
    assert drain(store, NOON) == listed


def test_mtimes_tell_when_a_job_started_and_ended(place: Place, store: Store) -> None:
    """`ls -l` shows when a running job was started and when another ended."""
    store.add([make_job("a")])
    grow_old(place.path / "pending" / name_of("a"), 3600)
    before = time.time() - 1
    claim = claimed(store)
    assert (place.path / "processing" / "a.1.json").stat().st_mtime > before
    grow_old(place.path / "processing" / "a.1.json", 3600)
    store.settle([ended(claim)])
    assert (place.path / "completed" / "a.json").stat().st_mtime > before


def test_document_can_be_read_with_cat(place: Place, store: Store) -> None:
    """A document is one key a line, in the order that is promised."""
    store.add([make_job("a")])
    text = (place.path / "pending" / name_of("a")).read_text()
    assert list(json.loads(text)) == [
        "schema", "id", "command", "state", "priority", "attempts", "max_retries", "timeout",
        "cwd", "env", "after", "after_any", "created_at", "updated_at", "run_at", "history",
    ]  # fmt: skip
    assert f'  "run_at": "{format_instant(NOON)}",\n' in text


def test_second_document_of_a_running_job_waits_until_it_ended(
    place: Place, store: Store, pending: Path
) -> None:
    """A copy of a running job, put beside it by a hand, does not replace it."""
    store.add([make_job("a")])
    copy = (pending / name_of("a")).read_bytes()
    claim = claimed(store)
    (pending / name_of("a")).write_bytes(copy)
    assert claim_next(store, LATER) is None
    assert names(place.path / "processing") == ["a.1.json"]
    store.settle([ended(claim)])
    due = store.next_due()
    assert due is not None
    assert LATER < due <= later(LATER, 1.0)


def test_what_is_no_regular_file_counts_as_no_job(place: Place, store: Store) -> None:
    """A directory, a FIFO or a symlink in pending/ is left alone, and nobody is told of a job."""
    pending = place.path / "pending"
    (pending / "directory.json").mkdir()
    os.mkfifo(pending / "fifo.json")
    (pending / "link.json").symlink_to("/etc/passwd")
    assert store.counts(NOON).by_state[State.PENDING] == 0
    assert store.counts(NOON).due == 0
    assert store.entries(State.PENDING, NOON) == []
    store.add([make_job("fifo")], chosen=["fifo"])
    assert [entry.id for entry in store.entries(State.PENDING, NOON)] == ["fifo"]


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


# --- what is no job ---


@pytest.mark.parametrize("state", [State.PENDING, State.PROCESSING])
@pytest.mark.parametrize("kind", ["directory", "symlink", "fifo"])
def test_what_is_no_document_is_no_job_of_a_prefix(
    place: Place, store: Store, state: State, kind: str
) -> None:
    """It neither makes the beginning of an id ambiguous nor is it found itself."""
    store.add(make_jobs("abc"))
    path = place.path / state / ("abd.json" if state is State.PENDING else "abd.1.json")
    if kind == "directory":
        path.mkdir()
    elif kind == "symlink":
        path.symlink_to(name_of("abc"))
    else:
        os.mkfifo(path)
    assert store.resolve("ab").id == "abc"
    assert list(store.ids(state)) == ([] if state is State.PROCESSING else ["abc"])
    with pytest.raises(JobNotFound):
        store.resolve("abd")


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

"""What lies where documents belong and is none, or one that cannot be read."""

import os
import socket
from pathlib import Path

import pytest
from tests.directory.conftest import Place
from tests.directory.support import TORN, WHOLE, grow_old, name_of, names
from tests.jobs import (
    LATER,
    NOON,
    claim_next,
    claimed,
    drain,
    make_job,
    make_jobs,
)

from queuectl.clock import later
from queuectl.document import MAX_DOCUMENT_BYTES, encode_job
from queuectl.errors import JobNotFound
from queuectl.job import State
from queuectl.store.protocol import Store


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
    due = store.queue.next_due()
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
    due = store.queue.next_due()
    assert due is not None
    path.write_text(WHOLE)
    deaf(store)
    claim = claimed(store, due)
    assert (claim.job.id, claim.attempt) == ("torn", 1)


def deaf(store: Store) -> None:
    """Let a store miss what has arrived so far."""
    fd = store.queue.arrivals_fd()
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
    assert store.pool.recover(lambda job, attempt: job).recovered == []
    assert names(place.path / "corrupt") == ["a.1.json", "a.1.json.reason"]


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
    due = store.queue.next_due()
    assert due is None or due > LATER
    assert names(pending) == [name]
    assert names(place.path / "corrupt") == []
    assert names(place.path / "processing") == []


def test_newer_document_is_left_alone_by_recovery(place: Place, store: Store) -> None:
    """A running job of a newer version is not recovered by an older one."""
    path = place.path / "processing" / "a.1.json"
    path.write_text('{"schema": 2, "command": "x"}')
    assert store.pool.recover(lambda job, attempt: job).recovered == []
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
    assert store.queue.next_due() is None
    assert store.counts(LATER).by_state[State.PENDING] == 0
    assert list(store.entries(State.PENDING, LATER)) == []
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
    store.queue.next_due()
    assert [entry.id for entry in store.entries(State.PENDING, NOON)] == ["a"]
    assert store.counts(NOON).by_state[State.PENDING] == 1


def test_what_is_no_regular_file_counts_as_no_job(place: Place, store: Store) -> None:
    """A directory, a FIFO or a symlink in pending/ is left alone, and nobody is told of a job."""
    pending = place.path / "pending"
    (pending / "directory.json").mkdir()
    os.mkfifo(pending / "fifo.json")
    (pending / "link.json").symlink_to("/etc/passwd")
    assert store.counts(NOON).by_state[State.PENDING] == 0
    assert store.counts(NOON).due == 0
    assert list(store.entries(State.PENDING, NOON)) == []
    store.add([make_job("fifo")], chosen=["fifo"])
    assert [entry.id for entry in store.entries(State.PENDING, NOON)] == ["fifo"]


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

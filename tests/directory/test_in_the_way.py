"""What lies where a job is to go, as only a hand can have put it there: neither record is lost."""

import errno
import fcntl
import os
from pathlib import Path

import pytest
from tests.directory.conftest import Place
from tests.jobs import LATER, claimed, decide, ended, make_job, settle

from queuectl.document import encode_job
from queuectl.errors import StoreError
from queuectl.job import Outcome, State
from queuectl.store import files
from queuectl.store.directory import DirectoryStore
from queuectl.store.protocol import Store

OLDER = encode_job(make_job("a", command="older"))


def put_older(place: Place, state: State) -> Path:
    """Put an older document of the job into a state."""
    path = place.path / state / "a.json"
    path.write_bytes(OLDER)
    return path


def is_kept_aside(place: Place, state: State, name: str = "a.json") -> bool:
    """Return whether the older document lies in corrupt/, with its reason."""
    corrupt = place.path / "corrupt"
    reason = (corrupt / "a.json.reason").read_text()
    what = f"{state}/{name}: another job of this id has come there\n"
    return (corrupt / "a.json").read_bytes() == OLDER and reason.endswith(what)


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome.SUCCEEDED, State.COMPLETED),
        (Outcome.FAILED, State.DEAD),
        (Outcome.CANCELLED, State.CANCELLED),
    ],
)
def test_a_job_that_ends_puts_an_older_one_aside(
    place: Place, store: Store, outcome: Outcome, state: State
) -> None:
    """Its own record goes where it belongs, and the other one to corrupt/ with the reason."""
    store.add([make_job("a", max_retries=1)])
    claim = claimed(store)
    put_older(place, state)
    settle(store, [ended(claim, outcome)])
    assert store.get("a").state is state
    assert [each.outcome for each in store.get("a").history] == [outcome]
    assert is_kept_aside(place, state)


def test_recovery_puts_an_older_one_aside(place: Place, store: Store) -> None:
    """As the worker would have done that is dead."""
    store.add([make_job("a", max_retries=1)])

    def claim_and_die(other: Store) -> None:
        claimed(other)

    place.process_that(claim_and_die)
    put_older(place, State.DEAD)
    (found,) = store.pool.recover(decide).recovered
    assert found.job.state is State.DEAD
    assert store.get("a").history[-1].outcome is Outcome.LOST
    assert is_kept_aside(place, State.DEAD)


def test_a_cancel_puts_an_older_one_aside(place: Place, store: DirectoryStore) -> None:
    """The job that waited is in cancelled/ afterwards, with its own command."""
    store.add([make_job("a")])
    entry = store.resolve("a")
    path = put_older(place, State.CANCELLED)
    store.parts.canceller._move_to_cancelled(entry)
    assert b"run a" in path.read_bytes()
    assert is_kept_aside(place, State.CANCELLED)


def test_an_older_one_that_is_held_is_waited_for(place: Place, store: Store) -> None:
    """Somebody is about to move it; the job keeps its claim and is settled later."""
    store.add([make_job("a")])
    claim, job = ended(claimed(store))
    fd = os.open(put_older(place, State.COMPLETED), os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(StoreError, match=r"completed/a\.json is in the way, and held"):
        settle(store, [(claim, job)])
    assert (place.path / "processing" / "a.1.json").exists()
    os.close(fd)
    settle(store, [(claim, job)])
    assert len(store.get("a").history) == 1
    assert is_kept_aside(place, State.COMPLETED)


@pytest.mark.parametrize("refused", ["completed", "processing"])
def test_a_job_that_cannot_be_settled_holds_up_no_other(
    store: Store, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    """One bad sector, say, and the others of its batch are settled as ever."""
    store.add([make_job("a"), make_job("b"), make_job("c")])
    ends = [ended(claimed(store)) for _ in range(3)]
    with monkeypatch.context() as patch:
        refuse(patch, refused, "b")
        with pytest.raises(StoreError, match="Input/output error"):
            settle(store, ends)
    assert [store.find([each])[each].state for each in "abc"] == [
        State.COMPLETED, State.PROCESSING, State.COMPLETED,
    ]  # fmt: skip
    settle(store, ends)
    assert len(store.get("b").history) == 1


def refuse(patch: pytest.MonkeyPatch, where: str, job_id: str) -> None:
    """Let the system refuse to move a job: to completed/, or its record to processing/."""
    error = OSError(errno.EIO, os.strerror(errno.EIO))
    move_new, exchange = files.move_new, files.exchange

    def refused(first_fd: int, first: str, second_fd: int, second: str) -> None:
        is_record = first.startswith("spare.")
        if (second if is_record else first) == f"{job_id}.1.json":
            raise error
        (exchange if is_record else move_new)(first_fd, first, second_fd, second)

    patch.setattr(files, "move_new" if where == "completed" else "exchange", refused)


@pytest.mark.parametrize("kind", ["directory", "fifo", "link"])
def test_what_is_no_document_is_put_aside_too(place: Place, store: Store, kind: str) -> None:
    """It stands in the way of no job, and is not written over."""
    store.add([make_job("a")])
    claim = claimed(store)
    path = place.path / "completed" / "a.json"
    make = {"directory": path.mkdir, "fifo": lambda: os.mkfifo(path)}
    make.get(kind, lambda: path.symlink_to("/etc/passwd"))()
    settle(store, [ended(claim)])
    assert store.get("a").state is State.COMPLETED
    assert os.path.lexists(place.path / "corrupt" / "a.json")


def test_a_job_that_is_given_back_puts_aside_what_has_its_name(place: Place, store: Store) -> None:
    """A hand has put a copy where the job was."""
    store.add([make_job("a")])
    (name,) = os.listdir(place.path / "pending")
    claim = claimed(store)
    (place.path / "pending" / name).write_bytes(OLDER)
    store.queue.give_back(claim)
    assert store.get("a").command == "run a"
    (kept,) = (place.path / "corrupt").glob("*.json")
    assert kept.read_bytes() == OLDER
    assert claimed(store, LATER).job.command == "run a"


def test_a_job_that_waits_for_the_next_parent_puts_an_older_one_aside(
    place: Place, store: Store
) -> None:
    """Under that parent, too, no document takes the place of another."""
    store.add([make_job("one"), make_job("two", priority=9)])
    store.add([make_job("a", after=("one", "two"))])
    parent = place.path / "blocked" / "two"
    parent.mkdir(mode=0o700)
    (parent / "a.json").write_bytes(OLDER)
    settle(store, [ended(claimed(store))])
    assert b"run a" in (parent / "a.json").read_bytes()
    assert is_kept_aside(place, State.BLOCKED, "two/a.json")
    settle(store, [ended(claimed(store))])
    assert claimed(store, LATER).job.command == "run a"

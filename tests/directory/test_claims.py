"""Moments between two steps of a claim, each forced, at which somebody else acts."""

import errno
import os
from pathlib import Path

import pytest
from tests.directory.conftest import Place
from tests.directory.support import Before, name_of
from tests.jobs import LATER, NOON, claim_next, claimed, drain, ended, make_job, make_jobs, settle

from queuectl.clock import later
from queuectl.document import encode_job
from queuectl.errors import StoreError
from queuectl.job import Outcome
from queuectl.store import files
from queuectl.store.directory import DirectoryStore
from queuectl.store.names import pending_name


def test_loser_of_a_claim_takes_the_next_job(
    place: Place, store: DirectoryStore, before: Before
) -> None:
    """A job that another worker claims between the open and the lock is left to it."""
    store.add(make_jobs("a", "b"))
    other = place.open()
    won = []
    before(files, "lock", lambda: won.append(claimed(other)))
    assert claimed(store).job.id == "b"
    assert [claim.job.id for claim in won] == ["a"]
    assert claim_next(store, LATER) is None


def test_job_that_was_claimed_settled_and_came_back_is_not_claimed_by_its_old_name(
    place: Place, store: DirectoryStore, before: Before
) -> None:
    """A job that went round between the open and the lock is claimed as it stands then."""
    store.add([make_job("a")])
    other = place.open()
    before(files, "lock", lambda: settle(other, [ended(claimed(other, NOON), Outcome.FAILED)]))
    assert claim_next(store, NOON) is None
    claim = claimed(store)
    assert (claim.attempt, claim.job.attempts) == (2, 1)


@pytest.mark.parametrize("act", ["remove", "rename"])
@pytest.mark.parametrize("step", ["open", "lock", "move"])
def test_hand_that_moves_a_document_while_it_is_claimed(
    store: DirectoryStore, pending: Path, before: Before, step: str, act: str
) -> None:
    """A job that a hand removes or renames at the last moment is not an error for the worker."""
    store.add(make_jobs("a", "b"))
    path = pending / name_of("a")

    def happen() -> None:
        if act == "remove":
            path.unlink()
        else:
            path.rename(pending / pending_name(9, LATER, "a"))

    if step == "open":
        before(files, "open_and_stat", happen)
    elif step == "lock":
        before(files, "lock", happen)
    else:
        before(files, "move_new", happen)
    assert claimed(store).job.id == "b"
    assert drain(store) == ([] if act == "remove" else ["a"])


def test_hand_that_replaces_a_document_while_it_is_claimed(
    store: DirectoryStore, pending: Path, before: Before
) -> None:
    """Where an editor renames its copy over the document at the last moment, the copy runs."""
    store.add([make_job("a")])
    edited = encode_job(make_job("a", command="edited"))

    def happen() -> None:
        (pending / ".a.swp").write_bytes(edited)
        os.replace(pending / ".a.swp", pending / name_of("a"))

    before(files, "move_new", happen)
    claim = claim_next(store, LATER) or claimed(store)
    assert claim.job.command == "edited"
    settle(store, [ended(claim)])
    assert store.get("a").command == "edited"
    assert os.listdir(pending) == []


def test_claims_made_before_one_is_refused_are_kept(store: DirectoryStore, before: Before) -> None:
    """What keeps one of several jobs from being claimed is told by the next call, if it lasts."""
    store.add(make_jobs("a", "b", "c"))

    def refuse() -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    before(files, "move_new", refuse, call=2)
    first = store.queue.claim(LATER, ["w-1", "w-2", "w-3"])
    assert [claim.job.id for claim in first] == ["a"]
    before(files, "move_new", refuse)
    with pytest.raises(StoreError, match="cannot be claimed"):
        store.queue.claim(LATER, ["w-2", "w-3"])
    second = store.queue.claim(LATER, ["w-2", "w-3"])
    assert [claim.job.id for claim in second] == ["b", "c"]


def test_document_that_was_not_locked_is_never_moved(
    store: DirectoryStore, pending: Path, before: Before, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a name stands for another file once it is locked, nobody moves that file unlocked."""
    store.add([make_job("a")])

    def replace_it() -> None:
        (pending / ".a.swp").write_bytes(encode_job(make_job("a", command="edited")))
        os.replace(pending / ".a.swp", pending / name_of("a"))

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("it was moved")

    before(files, "lock", replace_it)
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", refuse)
        patched.setattr(files, "move_new", refuse)
        assert claim_next(store, LATER) is None
    assert claimed(store).job.command == "edited"


def test_lock_that_somebody_holds_puts_a_job_off(store: DirectoryStore, pending: Path) -> None:
    """A document that is held by somebody is looked at again a second later, without a scan."""
    store.add(make_jobs("a", "b"))
    fd = os.open(pending / name_of("a"), os.O_RDONLY)
    assert files.lock(fd)
    assert drain(store, NOON) == []
    assert drain(store, later(NOON, 0.5)) == ["b"]
    due = store.queue.next_due()
    assert due is not None
    assert NOON < due <= later(NOON, 1.5)
    os.close(fd)
    assert drain(store, due) == ["a"]


def test_stranger_that_somebody_holds_is_adopted_when_it_is_free(
    store: DirectoryStore, pending: Path
) -> None:
    """A dropped file whose adopter died is adopted by the next look."""
    (pending / "a.json").write_text('{"command": "x"}')
    fd = os.open(pending / "a.json", os.O_RDONLY)
    assert files.lock(fd)
    assert claim_next(store, NOON) is None
    os.close(fd)  # the other one died before it had done anything
    due = store.queue.next_due()
    assert due is not None
    assert claimed(store, due).job.id == "a"


def test_names_that_are_gone_are_passed_over(place: Place, store: DirectoryStore) -> None:
    """A scan that is out of date costs nothing but a look at each name."""
    store.add(make_jobs(*(f"j{number}" for number in range(10))))
    assert claimed(store).job.id == "j0"
    assert len(drain(place.open())) == 9
    assert claim_next(store, LATER) is None
    store.add([make_job("new")])
    assert drain(store) == ["new"]


def test_claim_that_fails_leaves_its_name_for_the_next_one(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job whose claim failed for want of a descriptor is claimed by the same worker after."""
    store.add(make_jobs("a", "b"))
    original = files.open_and_stat

    def refuse(directory_fd: int, name: str) -> tuple[int, os.stat_result] | None:
        if name.endswith("-a.json"):
            raise OSError(errno.EMFILE, "Too many open files")
        return original(directory_fd, name)

    with monkeypatch.context() as patched:
        patched.setattr(files, "open_and_stat", refuse)
        with pytest.raises(Exception, match="Too many open files"):
            claim_next(store, LATER)
    assert drain(store) == ["a", "b"]

"""Ids that differ in case alone, on a file system that does not tell them apart."""

import json
import os

import pytest
from tests.directory.conftest import Place
from tests.jobs import LATER, claim_next, claimed, ended, make_job, settle

from queuectl.errors import JobNotFound, LookAlike
from queuectl.job import State
from queuectl.store.protocol import Store

STATES = [State.BLOCKED, State.PENDING, State.PROCESSING, State.COMPLETED]


@pytest.fixture
def store(place: Place) -> Store:
    """Return a store that looks as if it were on such a file system: one name finds the other."""
    opened = place.open()
    (place.path / "PENDING").symlink_to("pending")
    return opened


def put_ada(store: Store, state: State) -> None:
    """Put a job called Ada into a state."""
    store.add([make_job("first"), make_job("Ada", after=("first",))], chosen=["first", "Ada"])
    if state is State.BLOCKED:
        return
    settle(store, [ended(claimed(store))])
    if state is not State.PENDING:
        claim = claimed(store)
        if state is State.COMPLETED:
            settle(store, [ended(claim)])
    assert store.get("Ada").state is state


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("skip", [False, True])
def test_id_that_looks_like_that_of_another_job_is_refused(
    store: Store, state: State, skip: bool
) -> None:
    """Wherever that one is; both would have one file as soon as they ran."""
    put_ada(store, state)
    jobs = [make_job("eve"), make_job("ada")]
    with pytest.raises(LookAlike, match="cannot distinguish job 'ada' from job 'Ada'; choose"):
        store.add(jobs, chosen=["eve", "ada"], skip_existing=skip)
    with pytest.raises(JobNotFound):
        store.get("eve")
    assert store.add([make_job("Ada")], chosen=["Ada"], skip_existing=True) == ["Ada"]


def test_ids_of_one_batch_that_look_alike_are_refused(store: Store) -> None:
    """Nothing of the batch is added."""
    with pytest.raises(LookAlike, match="cannot distinguish job"):
        store.add([make_job("eve"), make_job("Eve")], chosen=["eve", "Eve"])
    assert store.find(["eve", "Eve"]) == {}


def test_ids_that_differ_in_case_are_two_jobs_elsewhere(place: Place) -> None:
    """Where the file system tells them apart, so does the queue."""
    store = place.open()
    store.add([make_job("Ada"), make_job("ada")], chosen=["Ada", "ada"])
    assert store.find(["Ada", "ada", "ADA"]).keys() == {"Ada", "ada"}


@pytest.mark.parametrize("state", STATES)
def test_dropped_file_that_looks_like_another_job_gets_a_number(
    store: Store, place: Place, state: State
) -> None:
    """As one of the same id does."""
    put_ada(store, state)
    if state is State.COMPLETED:  # as the file system would find it
        os.link(place.path / "completed/Ada.json", place.path / "completed/ada.json")
    path = place.path / "pending" / "ada.json"
    path.write_text(json.dumps({"command": "true"}))
    path.chmod(0o600)
    claim = claim_next(store, LATER)
    while claim is not None and claim.job.id != "ada-2":
        claim = claim_next(store, LATER)
    assert claim is not None


def test_job_is_found_under_its_own_id_alone(store: Store, place: Place) -> None:
    """Else a retry of ADA would call job Ada so."""
    put_ada(store, State.COMPLETED)
    directory = store.core.directory  # type: ignore[attr-defined]
    names = directory.names
    os.link(place.path / "completed/Ada.json", place.path / "completed/ADA.json")
    directory.names = lambda state: (each for each in names(state) if each != "ADA.json")
    assert store.find(["ADA"]) == {}
    with pytest.raises(JobNotFound):
        store.retry("ADA", [State.COMPLETED], LATER)

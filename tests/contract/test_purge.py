"""Finished jobs that are kept from a purge, and whose turn it is to purge."""

import pytest
from tests.jobs import NOON, claimed, drain, ended, make_jobs, settle
from tests.stores import Place

from queuectl.job import Job, Outcome, State
from queuectl.store.protocol import Store


def test_a_job_that_is_held_or_went_on_is_not_purged(store: Store, place: Place) -> None:
    """Its logs stay, too."""
    store.add(make_jobs("a", "b"), chosen=["a", "b"])
    drain(store)
    store.retry("b", [State.COMPLETED], NOON)
    forgotten: list[Job] = []
    with place.open().purging.hold("a") as is_held:
        assert is_held
        assert not store.purging.purge("a", State.COMPLETED, forget=forgotten.append)
    assert not store.purging.purge("b", State.COMPLETED, forget=forgotten.append)
    assert forgotten == []
    assert store.purging.purge("a", State.COMPLETED, forget=forgotten.append)
    assert [job.id for job in forgotten] == ["a"]


@pytest.mark.parametrize("state", [State.COMPLETED, State.DEAD])
def test_only_a_finished_job_can_be_held(store: Store, place: Place, state: State) -> None:
    """One that waits or runs is not, wherever it was before."""
    store.add(make_jobs("a", max_retries=1), chosen=["a"])
    with store.purging.hold("a") as is_held:
        assert not is_held
    outcome = Outcome.SUCCEEDED if state is State.COMPLETED else Outcome.FAILED
    claim, job = ended(claimed(store), outcome)
    with store.purging.hold("a") as is_held:
        assert not is_held
    settle(store, [(claim, job)])
    with store.purging.hold("a") as is_held:
        assert is_held
    with store.purging.hold("nobody") as is_held:
        assert not is_held


def test_a_purge_that_failed_is_tried_again(store: Store) -> None:
    """It does not count as one."""

    def fail() -> None:
        with store.purging.turn(3600):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with store.purging.turn(3600) as is_ours:
        assert is_ours

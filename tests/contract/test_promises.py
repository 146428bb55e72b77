"""Promises of the protocol that are easily forgotten."""

import select
from contextlib import suppress

import pytest
from tests.jobs import NOON, claimed, drain, ended, make_job, settle
from tests.stores import Place

from queuectl.clock import utc_now
from queuectl.errors import QueuectlError, WrongState
from queuectl.job import Outcome, State
from queuectl.store.protocol import Store


def test_turn_is_taken_by_one(place: Place) -> None:
    """Another one learns that it is taken."""
    first, second = place.open(), place.open()
    with first.purging.turn(3600) as one, second.purging.turn(3600) as other:
        assert (one, other) == (True, False)


def test_a_settlement_moves_a_job_when_it_is_finished(store: Store) -> None:
    """Until then its claim is held."""
    store.add([make_job("a")])
    settlement = store.queue.begin_settle([ended(claimed(store))])
    seen = store.find(["a"])["a"].state
    settlement.sync()
    settlement.finish()
    assert (seen, store.get("a").state) == (State.PROCESSING, State.COMPLETED)


def test_reserved_for_one_pool(place: Place) -> None:
    """As long as its process lives."""
    first, second = place.open(), place.open()
    assert first.pool.reserve()
    assert not second.pool.reserve()


def test_generated_id_overwrites_nothing(store: Store) -> None:
    """The second of two jobs of one id is refused."""
    store.add([make_job("a", command="first")])
    with pytest.raises(QueuectlError):
        store.add([make_job("a", command="second")])
    assert store.get("a").command == "first"


def test_held_job_stays_finished(store: Store, place: Place) -> None:
    """Nobody sends it back while its logs are deleted."""
    store.add([make_job("a")])
    drain(store)
    other = place.open()
    with store.purging.hold("a"):
        with suppress(WrongState):
            other.retry("a", [State.COMPLETED], NOON)
        assert store.get("a").state is State.COMPLETED


def test_record_counts_what_was_settled(store: Store) -> None:
    """One for each attempt."""
    store.queue.register("w-1", utc_now())
    store.add([make_job("a")])
    settle(store, [ended(claimed(store), Outcome.SUCCEEDED)])
    (record,) = store.workers.live()
    assert record.settled == 1
    store.queue.unregister()


def test_end_of_another_job_is_an_arrival_once_asked(place: Place) -> None:
    """A pool that drains waits for what other pools run, too."""
    store, other = place.open(), place.open()
    store.add([make_job("a")])
    claim = claimed(other)
    store.queue.claim(NOON, ["w"])
    store.pool.is_busy()
    store.queue.claim(NOON, ["w"])
    fd = store.queue.arrivals_fd()
    assert fd is not None
    settle(other, [ended(claim)])
    assert select.select([fd], [], [], 1)[0]

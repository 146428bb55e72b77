"""Names of workers that are used twice."""

import pytest
from tests.jobs import NOON, claimed, ended, make_job, settle
from tests.stores import Place

from queuectl.errors import NameTaken


def test_what_two_workers_of_one_name_have_counted_counts(place: Place) -> None:
    """A name is given again only when the count of who had it cannot be taken for its own."""
    store = place.open()
    store.add([make_job("a"), make_job("b")])
    store.queue.register("w-same", NOON)
    settle(store, [ended(claimed(store))])
    store.queue.unregister()
    with pytest.raises(NameTaken):
        store.queue.register("w-same", NOON)
    store.queue.register("w-other", NOON)
    settle(store, [ended(claimed(store))])
    store.queue.unregister()
    assert sum(store.workers.tally().by_outcome.values()) == 2

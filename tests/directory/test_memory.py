"""What a store holds in memory depends on its limits, and not on how many jobs there are."""

import os
import tracemalloc
from collections.abc import Callable

import pytest
from tests.directory.conftest import Place
from tests.jobs import LATER, NOON, make_job

from queuectl.clock import later
from queuectl.document import encode_job
from queuectl.job import State
from queuectl.store.names import pending_name
from queuectl.store.protocol import Store

_MANY = 12_000  # fewer than the kernel holds of arrivals, so that each is told


def allocated(act: Callable[[], object]) -> tuple[int, int]:
    """Return how many bytes of Python's memory are kept after an act, and used most during it."""
    act()  # what is made once is not counted
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()


@pytest.mark.timeout(240)  # as many files as that take long on a busy machine
def test_a_worker_that_waits_holds_few_of_the_jobs_that_arrive(place: Place, store: Store) -> None:
    """Delayed jobs that arrive while a worker is idle cost it next to no memory."""
    assert store.queue.claim(NOON, ["w"]) == []
    document = place.path / "tmp" / "document"
    document.write_bytes(encode_job(make_job("a")))
    count = 0

    def hear_of_many() -> None:
        nonlocal count
        for number in range(count, count + _MANY):
            name = pending_name(5, later(LATER, number), f"job-{number:06}")
            os.link(document, f"{place.path}/pending/{name}")
        count += _MANY
        assert store.queue.claim(NOON, ["w"]) == []

    kept, most = allocated(hear_of_many)
    assert store.counts(NOON).by_state[State.PENDING] > _MANY
    assert kept < 1_000_000
    assert most < 2_000_000
    assert store.queue.next_due() == LATER

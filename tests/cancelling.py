"""Cancel jobs in a thread, and wait for what becomes of them."""

import select
import threading

from tests.jobs import (
    claimed,
)
from tests.stores import Place

from queuectl.clock import utc_now
from queuectl.job import Job, State
from queuectl.store.protocol import Store
from queuectl.store.worker_protocol import Claim


class Cancelling:
    """Cancel jobs in a thread, through a store of its own."""

    def __init__(self, place: Place, *job_ids: str) -> None:
        """Begin."""
        self._store = place.open()
        self._job_ids = job_ids
        self.told: dict[str, State | None] = {}
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.told.update(self._store.cancel(self._job_ids))

    def wait(self) -> dict[str, State | None]:
        """Return what is told of each when all are cancelled."""
        self._thread.join(20)
        assert not self._thread.is_alive(), "the jobs are not cancelled"
        return self.told


def asked(worker: Store, claim: Claim) -> bool:
    """Wait until the worker is asked for something; return whether it is to end this attempt."""
    fd = worker.queue.control_fd()
    assert fd is not None
    assert select.select([fd], [], [], 20)[0], "the worker is not asked"
    return worker.queue.cancel_requested(claim)


def claim_and_say(store: Store) -> None:
    """Claim a job as a worker that dies then."""
    store.queue.register("w-9", utc_now())
    claimed(store)


def first_end(store: Store, *job_ids: str) -> Job:
    """Return the next of the jobs to end."""
    return next(iter(store.ends(job_ids, 20.0)))

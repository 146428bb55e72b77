"""Claims jobs for all workers of a process that want one at the same moment."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

from queuectl.errors import ConfigError, StoreError, UnsafeStore
from queuectl.store.worker_protocol import Claim
from queuectl.worker.context import WorkerContext
from queuectl.worker.idle import Idle
from queuectl.worker.loop import Batcher


class ClaimResult(NamedTuple):
    """The outcome of one worker's request for a job.

    ``arrivals`` is Queue.arrivals_read at that claim. If ``is_refused``, the store could not be
    read or written, and there may be a job nevertheless.
    """

    claim: Claim | None
    arrivals: int
    is_refused: bool


class Claimer:
    """The claims of one process."""

    def __init__(self, context: WorkerContext, idle: Idle) -> None:
        self._context = context
        self._idle = idle
        self._arrivals = 0  # at the last claim
        # Claims a job for a worker, together with the others that want one now.
        self.claim = Batcher(context.loop, self._claim_for).call

    def _claim_for(self, workers: Sequence[str]) -> list[ClaimResult]:
        store, problems = self._context.store, self._context.problems
        claims: list[Claim] = []
        is_refused = False
        self._idle.note_claim()
        try:
            self._context.settings = store.settings()
            while left := workers[len(claims) :]:
                more = self._context.queue.claim(store.now(), left)
                if not more:
                    break
                claims += more
        except (ConfigError, StoreError, UnsafeStore) as error:
            is_refused = True
            problems.report("claim", f"cannot claim a job, retrying: {error}")
        else:
            problems.resolve("claim")
        finally:
            if (arrivals := self._context.queue.arrivals_read()) != self._arrivals:
                self._arrivals = arrivals
                fd = self._context.queue.arrivals_fd()
                if fd is not None:
                    self._context.loop.notify(fd)  # the idle workers of this process look, too
        return [
            ClaimResult(claim, self._arrivals, is_refused and claim is None)
            for _, claim in zip_longest(workers, claims)
        ]

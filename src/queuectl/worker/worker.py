"""One worker: claims a job, runs it, hands its result to the settler, and claims the next one."""

import errno
import random
import time
from datetime import datetime

from queuectl.clock import later
from queuectl.errors import ConfigError, StoreError, UnsafeStore
from queuectl.job import Job
from queuectl.policy import after_attempt
from queuectl.store.worker_protocol import Claim
from queuectl.worker.claiming import Claimer
from queuectl.worker.command import Obstacle, Result
from queuectl.worker.context import WorkerContext
from queuectl.worker.events import EventLog
from queuectl.worker.execution import Execution, deferral_kinds, waits_text
from queuectl.worker.idle import Idle
from queuectl.worker.signals import Stop

_RETRY_SECONDS = 1.0
_DEFER_SECONDS = 10.0  # for a job that the machine cannot start now, though it can start others


class Worker:
    """A worker of a process: a coroutine that runs one job at a time."""

    def __init__(self, context: WorkerContext, claimer: Claimer, idle: Idle, log: EventLog) -> None:
        self._context = context
        self._claimer = claimer
        self._idle = idle
        self.log = log
        self._is_refused = False  # the last claim; there may be a job nevertheless
        self._arrivals = 0  # at the last claim

    @property
    def name(self) -> str:
        """Return the name of the worker; it is final when the worker is registered."""
        return self.log.name

    async def run(self) -> None:
        """Work until the process should stop or, with drain, nothing is left."""
        signals, settler = self._context.signals, self._context.settler
        await self._context.loop.yield_now()  # signals may have come since the fork
        nothing_ran = False
        while not signals.should_stop:
            if settler.is_stuck:
                await settler.settle_all()
                continue
            if settler.is_full():
                await settler.wait_for_room()
                continue
            if signals.is_paused:
                await settler.settle_all()
                if signals.is_paused:
                    await self._context.loop.wait((), None)
                continue
            claim = await self._claim()
            if claim is not None:
                nothing_ran = False
                await self._work_on(claim)
            elif self._context.drain and nothing_ran and not self._is_refused:
                break
            else:
                nothing_ran = await self._rest()
        await settler.settle_all()

    async def _claim(self) -> Claim | None:
        claim, self._arrivals, self._is_refused = await self._claimer.claim(self.name)
        if self._is_refused:
            await self._context.settler.settle_all()
            await self._sleep(_RETRY_SECONDS)
        elif claim is not None and self._context.signals.should_stop:
            await self._give_back(claim)
            return None
        return claim

    # --- idle ---

    async def _rest(self) -> bool:
        """Do the duties of an idle process, then sleep; return whether nothing ran at all.

        In a drain it does not sleep if nothing ran: then one more claim decides.
        """
        problems = self._context.problems
        await self._context.settler.settle_all()
        try:
            rest = self._idle.rest()
        except (ConfigError, StoreError, UnsafeStore) as error:
            # The commands of other workers of this process run on, and so does this worker.
            problems.report("rest", f"cannot look for work: {error}")
            await self._sleep(_RETRY_SECONDS)
            return False
        if rest.nothing_runs:
            return True
        if rest.until is None:
            await self._context.loop.yield_now()
        # After a refused claim there may be a job that no event will report again.
        elif not self._is_refused:
            problems.resolve("rest")
            await self._sleep_until_arrival(max(0.0, rest.until - time.monotonic()))
        return False

    async def _sleep_until_arrival(self, timeout_seconds: float) -> None:
        queue = self._context.queue
        # RACE: while this worker settled, another one may have read of arrivals, and have taken
        # only a part of them (test_what_comes_while_one_waits_for_the_disk_is_taken_at_once).
        if queue.arrivals_read() != self._arrivals:
            return
        fd = queue.arrivals_fd()
        if fd is None:
            await self._sleep(min(timeout_seconds, queue.poll_seconds))
        else:
            await self._sleep(timeout_seconds, fd)

    async def _sleep(self, timeout_seconds: float, *fds: int) -> None:
        if not self._context.signals.should_stop:
            await self._context.loop.wait(fds, timeout_seconds)

    # --- run ---

    async def _work_on(self, claim: Claim) -> None:
        try:
            result = await Execution(self._context, claim, self.log).run()
        except Obstacle as obstacle:
            await self._defer(claim, obstacle)
            return
        if result is not None:
            self._finish(claim, result)
        elif await self._give_back(claim):
            self.log.job_event(claim.job.id, claim.attempt, "returned to the queue (not counted)")

    async def _defer(self, claim: Claim, obstacle: Obstacle) -> None:
        """Return a job to the queue for a while, its attempt not counted: others may run now."""
        job, problems = claim.job, self._context.problems
        of_directory, of_job = deferral_kinds(job)
        kind = of_job if obstacle.errno == errno.E2BIG else of_directory
        if not problems.has(kind):  # once for all jobs of a directory
            problems.report(kind, waits_text(job, obstacle))
        await self._give_back(claim, later(self._context.store.now(), _DEFER_SECONDS))

    async def _give_back(self, claim: Claim, due: datetime | None = None) -> bool:
        """Return a job to the queue, however long that takes; only a stop at once gives up."""
        context, job_id, attempt = self._context, claim.job.id, claim.attempt
        while True:
            try:
                context.queue.give_back(claim, due)
            except StoreError as error:
                if context.signals.level is Stop.NOW:
                    what = f"cannot be returned to the queue, and counts as lost: {error}"
                    self.log.job_error(job_id, attempt, what)
                    return False
                what = f"cannot return {job_id} attempt {attempt} to the queue, retrying: {error}"
                context.problems.report("give back", what)
                context.settler.free_reserve()
            else:
                context.problems.resolve("give back")
                return True
            await context.settler.pause()

    def _finish(self, claim: Claim, result: Result) -> None:
        now = self._context.store.now()
        attempt = claim.job.ended_attempt(
            claim.attempt,
            worker=self.name,
            started_at=claim.started_at,
            finished_at=now,
            **result._asdict(),
        )
        job: Job = after_attempt(claim.job, attempt, self._context.settings, now, random.random())
        self._context.settler.add(claim, job)
        self.log.attempt_ended(job, now)

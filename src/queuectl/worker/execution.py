"""One attempt of a claimed job: its command is started, waited for, and ended in time."""

import errno
import os

from queuectl.errors import StoreUnavailable, UnsafeStore
from queuectl.job import Job, Outcome
from queuectl.store.worker_protocol import Claim
from queuectl.worker.command import Command, Obstacle, Result
from queuectl.worker.context import WorkerContext
from queuectl.worker.environment import job_environment
from queuectl.worker.events import EventLog
from queuectl.worker.signals import Stop
from queuectl.worker.workdir import PATIENCE_SECONDS

_RETRY_SECONDS = 1.0


class Execution:
    """The execution of one attempt by one worker."""

    def __init__(self, context: WorkerContext, claim: Claim, log: EventLog) -> None:
        self._context = context
        self._claim = claim
        self._job = claim.job
        self._log = log

    async def run(self) -> Result | None:
        """Run the command; return how it ended, or None if the attempt is not to count.

        Raises: Obstacle if this job cannot be started now, though others may be.
        """
        # A job that was deferred is only logged as started when it is.
        was_deferred = any(map(self._context.problems.has, deferral_kinds(self._job)))
        if not was_deferred:
            self._log_started()
        try:
            command = await self._start()
        except Obstacle:
            raise
        except OSError as error:
            self._log_start_failure(f"cannot be started: {describe(error)}")
            # Nothing else here waits, and what has ended keeps its descriptors until it is settled.
            await self._context.loop.yield_now()
            self._context.settler.poll()
            return Result(Outcome.NOT_STARTED)
        if command is None:
            return None if self._context.signals.should_stop else Result(Outcome.CANCELLED)
        if was_deferred:
            self._log_started()
        return await self._wait_for(command)

    def _log_started(self) -> None:
        self._log.job_event(self._job.id, self._claim.attempt, "started")

    # --- start ---

    async def _start(self) -> Command | None:
        """Start the command, retrying while the machine lacks something all commands need.

        Returns: None if the attempt was called off before.
        Raises: Obstacle; OSError if this job can never be started.
        """
        context = self._context
        problem = (
            f"start {self._log.name}"  # that another worker starts a job does not help this one
        )
        while True:
            try:
                command = await self._try_to_start()
            except Obstacle as obstacle:
                if not obstacle.is_general:
                    raise
                context.problems.report(problem, waits_text(self._job, obstacle))
            else:
                for kind in (problem, *deferral_kinds(self._job)) if command else ():
                    context.problems.resolve(kind)
                return command
            await context.settler.settle_all()
            if not context.signals.should_stop:
                await context.loop.wait((), _RETRY_SECONDS)
            if self._is_called_off():
                return None

    async def _try_to_start(self) -> Command | None:
        context, job = self._context, self._job
        output_fd = self._open_log()
        try:
            command = Command(
                job.command,
                cwd=job.cwd,
                env=job_environment(context.env, job, self._claim.attempt),
                own_env=job.env,
                output_fd=output_fd,
                pass_fds=self._claim.pass_fds,
            )
            probe = context.workdirs.probe(command.cwd)
            while probe is not None and not probe.is_done:
                if not await self._wait_for_directory(PATIENCE_SECONDS - probe.age_seconds()):
                    return None
            # A command empties the processor's caches, so all workers do what comes before that
            # together, and then what follows.
            await context.loop.yield_to_ready()
            command.start()
            if probe is not None:
                context.workdirs.note_entered(command.cwd)
            await context.loop.yield_to_ready()
        finally:
            os.close(output_fd)
        command.watch()
        if command.needs_sigchld:
            context.signals.wake_on_child_exit()
        return command

    def _open_log(self) -> int:
        """Open the attempt's log. Raises: Obstacle; OSError if it is this log that is at fault."""
        logs, job, attempt = self._context.logs, self._job, self._claim.attempt
        try:
            return logs.open_for_append(job.id, attempt, created_at=job.created_at)
        except OSError as error:
            if logs.is_at_fault(job.id, attempt, error):
                raise
            raise Obstacle(error, is_general=True) from error
        except (StoreUnavailable, UnsafeStore) as error:
            raise Obstacle(OSError(errno.EIO, str(error)), is_general=True) from error

    async def _wait_for_directory(self, left_seconds: float) -> bool:
        """Wait for a directory that has not answered yet; return False if that is called off.

        Raises: Obstacle if the time is up.
        """
        if left_seconds <= 0:
            error = OSError(errno.ETIMEDOUT, "the directory does not answer", self._job.cwd)
            raise Obstacle(error, is_general=False)
        pause = self._context.settler.poll()
        await self._context.loop.wait(
            (), min(left_seconds, left_seconds if pause is None else pause)
        )
        return not self._is_called_off()

    def _is_called_off(self) -> bool:
        is_cancelled = self._context.queue.cancel_requested(self._claim)
        self._context.check_stop_request(self._log.name)  # may have come together with that
        return is_cancelled or self._context.signals.should_stop

    def _log_start_failure(self, reason: str) -> None:
        """Write into the attempt's log why there is no output."""
        logs, job_id, attempt = self._context.logs, self._job.id, self._claim.attempt
        try:
            with open(logs.open_for_append(job_id, attempt), "ab", buffering=0) as file:
                file.write(f"queuectl: {reason}\n".encode(errors="backslashreplace"))
        except OSError as error:
            reason += f"; nor can its log be written: {error.strerror}"
        self._log.job_event(job_id, attempt, reason)

    # --- wait ---

    async def _wait_for(self, command: Command) -> Result | None:
        """Wait for the command, and end it at its timeout, if it is cancelled, or to stop now."""
        context, timeout_seconds = self._context, self._job.timeout_seconds
        kill_grace = context.settings.kill_grace
        while True:
            pause = context.settler.poll()
            if timeout_seconds is not None:
                left = timeout_seconds - command.elapsed_seconds()
                if left <= 0:
                    await command.end(kill_grace, context.loop)
                    return command.result()._replace(outcome=Outcome.TIMED_OUT)
                pause = left if pause is None else min(pause, left)
            if await command.wait(pause, context.loop):
                return command.result()
            is_cancelled = context.queue.cancel_requested(self._claim)
            context.check_stop_request(self._log.name)
            if context.signals.level is Stop.NOW:
                await command.end(kill_grace, context.loop)
                return None
            if is_cancelled:
                await command.end(kill_grace, context.loop)
                return command.result()._replace(outcome=Outcome.CANCELLED)


def deferral_kinds(job: Job) -> tuple[str, str]:
    """Return the kinds of problems that defer a job: one of its directory, and one of its own."""
    return f"start in {job.cwd}", f"start {job.id}"


def waits_text(job: Job, obstacle: Obstacle) -> str:
    """Return why a job is not started yet."""
    return f"{job.id} waits to be started: {describe(obstacle)}"


def describe(error: OSError) -> str:
    """Return an error as text, with the file that it is about."""
    text = error.strerror or str(error)
    return f"{text}: {os.fsdecode(error.filename)}" if error.filename else text

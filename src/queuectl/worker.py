"""Take jobs and run them, one after the other: claim, run, settle.

A job that ended is settled while the next one runs, several at once where they are short: what the
disk must do for one it does for all. Each keeps its claim until then.
"""

import os
import random
import select
import signal
import threading
import time
from contextlib import suppress
from datetime import datetime
from queue import SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

from queuectl.clock import format_duration, format_instant, poll_milliseconds, utc_now
from queuectl.config import Settings
from queuectl.errors import ConfigError, StoreError, StoreUnavailable, UnsafeStore
from queuectl.job import Attempt, Job, Outcome, State
from queuectl.logs import LogDir, log_name
from queuectl.policy import after_attempt
from queuectl.runner import Command, Result, environment_as_given, is_scarcity
from queuectl.store.base import Claim, RecoveryReport, Settlement, Store

if TYPE_CHECKING:
    from queuectl.purge import IdlePurge

_RETRY_SECONDS = 1.0
_LONGEST_SLEEP_SECONDS = 60.0  # a wall clock that is set forward is noticed after so long
_UNOWNED_SECONDS = 1.0
_RUNNING_SECONDS = 5.0
_RELEASE_SECONDS = 10.0
_SHORT_SECONDS = 0.02  # a command that takes longer leaves time to settle those before it
_MANY_UNSETTLED = 128
_MOST_UNSETTLED_SECONDS = 0.1
# A disk that takes longer is waited for by a thread, which costs each job a little.
_QUICK_SYNC_SECONDS = 0.01


class Talk:
    """Tell on stderr what happens, a line for each event; nothing depends on whether it arrives."""

    def __init__(self, name: str, *, quiet: bool) -> None:
        """Take the name that stands in each line; with ``quiet`` only errors are told."""
        self._name = name
        self.is_quiet = quiet

    def event(self, text: str) -> None:
        """Tell what happened."""
        if not self.is_quiet:
            self.error(text)

    def error(self, text: str) -> None:
        """Tell what went wrong."""
        if not text.isprintable():  # the name of a directory may hold anything
            text = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
        line = f"{format_instant(utc_now())[:-4]}Z {self._name} {text}\n"
        try:
            os.write(2, line.encode())
        except OSError:
            return  # the terminal or the pipe is gone, and the jobs go on

    def job(self, job_id: str, attempt: int, text: str) -> None:
        """Tell what happened to a job in an attempt."""
        if not self.is_quiet:
            self.job_error(job_id, attempt, text)

    def job_error(self, job_id: str, attempt: int, text: str) -> None:
        """Tell what went wrong with a job in an attempt."""
        self.error(f"{job_id} attempt {attempt} {text}")

    def report(self, report: RecoveryReport) -> None:
        """Tell what became of the jobs that belonged to nobody."""
        for job_id, attempt in report.overdue:
            self.job(job_id, attempt, "has outlived its worker and its timeout, and is ended")
        for found in report.recovered:
            how = "was lost with its worker" if found.lost else "ended before its worker did"
            self.job(found.job.id, found.attempt, how + _fate(found.job, utc_now()))


class Interrupts:
    """Collect the signals to this process, and wake it from any wait through a descriptor.

    ``level`` is 0 to go on, 1 to take no new job, 2 to end what runs.
    """

    def __init__(self) -> None:
        """Take over SIGTERM and SIGINT (the second one makes 2), and what a supervisor passes on.

        That is SIGUSR2 for 1 and SIGUSR1 for 2. They are counted apart: who sends one SIGTERM to
        all processes of a pool asks for 1, though each worker then gets two signals.
        """
        self.level = 0
        self._terminations = 0
        self.fd, self._write_fd = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write_fd, False)
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._terminate)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self._pass_on)
        # Writing to the terminal from a process group in the background must not stop it.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # Whoever has started us may have blocked some, as a supervisor does while it forks.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def hear_children(self) -> None:
        """Let the end of a child wake this process, too, from now on."""
        # Having a handler is what makes the kernel tell, and the descriptor readable.
        signal.signal(signal.SIGCHLD, self._note)

    def _terminate(self, _number: int, _frame: FrameType | None) -> None:
        self._terminations += 1
        self.level = max(self.level, min(self._terminations, 2))

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        self.level = max(self.level, 2 if number == signal.SIGUSR1 else 1)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        pass

    def wake(self) -> None:
        """Wake the process from its wait, from another thread."""
        with suppress(BlockingIOError):  # it is about to wake
            os.write(self._write_fd, b"\0")

    def drain(self) -> None:
        """Read what woke us."""
        try:
            while os.read(self.fd, 512):
                pass
        except BlockingIOError:
            return


class _Unsettled(NamedTuple):
    claim: Claim
    job: Job
    since: float


class _Settling(NamedTuple):
    settlement: Settlement
    batch: list[_Unsettled]
    is_synced: threading.Event


class Worker:
    """Be one worker of a pool, alone in its process."""

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        drain: bool,
        quiet: bool,
        supervisor_pid: int,
        supervisor_fd: int,
        ready_fd: int,
    ) -> None:
        """Take the store, and two descriptors; -1 where nobody waits until it is ready.

        ``supervisor_fd`` becomes readable when the supervisor is gone; ``ready_fd`` gets a byte
        and is closed when the worker is registered.
        """
        self._store = store
        self._name = name
        self._drain = drain
        self._supervisor_fd = supervisor_fd
        self._supervisor_pid = supervisor_pid
        self._ready_fd = ready_fd
        self._talk = Talk(name, quiet=quiet)
        self._logs = LogDir.of(store.location)
        self._interrupts = Interrupts()
        self._unsettled: list[_Unsettled] = []
        self._settling: _Settling | None = None
        self._to_sync: SimpleQueue[_Settling] | None = None
        self._sync_seconds = 0.0  # how long the last one took
        self._settle_again_at = 0.0  # after a failure, it is tried again no sooner
        self._keeps = False  # what ended could not be settled, and no new job is taken
        self._is_refused = False  # whether there is a job to take could not be told
        self._troubles: dict[str, set[str]] = {}  # what is told of each, while it lasts
        self._release_at = 0.0
        self._settings = Settings()
        self._idle_purge: IdlePurge | None = None
        self._env = {
            name: value
            for name, value in environment_as_given().items()
            if not name.startswith(b"QUEUECTL_") or name == b"QUEUECTL_STORE"
        }
        self._env[b"QUEUECTL_STORE"] = os.fsencode(store.location)

    def run(self) -> None:
        """Work until told to stop, the supervisor is gone or, with drain, nothing is left."""
        null_fd = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null_fd, 0)  # that the commands inherit
        os.close(null_fd)
        self._store.register(self._name, utc_now())
        if self._ready_fd >= 0:
            with suppress(OSError):  # who waited is gone
                os.write(self._ready_fd, b".")
            os.close(self._ready_fd)
        try:
            self._recover()
            self._tidy()
            self._release_blocked()
            nothing_ran = False
            while not self._must_leave():
                if self._keeps:
                    self._settle_all()
                    continue
                claim = self._claim()
                if claim is not None:
                    nothing_ran = False
                    self._work_on(claim)
                elif self._drain and nothing_ran and not self._is_refused:
                    break
                else:
                    nothing_ran = self._idle()
            self._settle_all()
        finally:
            self._store.unregister()
            self._store.close()

    def _tidy(self) -> None:
        try:
            self._store.tidy()
        except StoreError as error:  # what stays is in nobody's way, and the next worker's
            self._talk.error(str(error))

    def _must_leave(self) -> bool:
        return self._interrupts.level > 0 or os.getppid() != self._supervisor_pid

    # --- claim ---

    def _claim(self) -> Claim | None:
        try:
            self._settings = self._store.settings()
            claim = self._store.claim(utc_now())
        except (ConfigError, StoreError, UnsafeStore) as error:
            self._is_refused = True
            self._tell_once("claim", f"takes no job: {error}")
            self._sleep(_RETRY_SECONDS)
            return None
        self._is_refused = False
        self._is_over("claim")
        if claim is not None and self._interrupts.level > 0:
            self._give_back(claim)
            return None
        return claim

    def _idle(self) -> bool:
        """Look after what is left, then sleep in the kernel; return whether nothing ran at all.

        With drain it does not sleep where nothing ran: then one more claim decides.
        """
        self._settle_all()
        report = self._recover()
        if report.recovered or self._purge():
            return False
        if self._drain and not self._store.running():
            # RACE: another worker may have settled a job and not yet let go on what waits for it.
            self._release_blocked()
            return True
        if time.monotonic() >= self._release_at:
            self._release_blocked()
        if self._is_refused:
            return False  # there may be a job that nothing tells of once more
        timeout = max(0.0, self._release_at - time.monotonic())
        if report.unowned:
            timeout = min(timeout, _UNOWNED_SECONDS)
        elif report.running:
            # Another pool may be killed as a whole, and then nobody else looks after its jobs.
            timeout = min(timeout, _RUNNING_SECONDS)
        next_due = self._store.next_due()
        if next_due is not None:
            timeout = min(timeout, max(0.0, (next_due - utc_now()).total_seconds()))
        os.chdir("/")  # not the last job's directory: its file system may be unmounted now
        self._sleep(timeout, arrivals=True)
        return False

    def _release_blocked(self) -> None:
        """Let blocked jobs go on whose parents' ends were missed, and note when to look again."""
        again_seconds = _LONGEST_SLEEP_SECONDS
        try:
            if self._store.release_blocked():
                again_seconds = _RELEASE_SECONDS
        except (ConfigError, StoreError, UnsafeStore) as error:
            self._tell_once("release", f"leaves jobs blocked: {error}")
            again_seconds = _RELEASE_SECONDS
        else:
            self._is_over("release")
        self._release_at = time.monotonic() + again_seconds

    def _recover(self) -> RecoveryReport:
        report = recover(self._store)
        for problem in report.problems:
            self._tell_once("recover", f"cannot recover: {problem}")
        if not report.problems:
            self._is_over("recover")
        self._talk.report(report)
        return report

    def _purge(self) -> bool:
        """Delete what the settings keep no longer; return whether that was left for other work."""
        settings = self._settings
        if settings.keep_completed is None and settings.keep_logs is None:
            return False
        if self._idle_purge is None:
            from queuectl.purge import IdlePurge

            self._idle_purge = IdlePurge(self._store, self._logs)
        poll = self._wakers(self._store.arrivals_fd())
        look_at = time.monotonic() + self._store.poll_seconds
        next_due = self._store.next_due()

        def is_wanted() -> bool:
            return (
                self._interrupts.level > 0
                or bool(poll.poll(0))
                or time.monotonic() >= look_at
                or (next_due is not None and utc_now() >= next_due)
            )

        try:
            return self._idle_purge.go_on(settings, utc_now(), is_wanted)
        except (ConfigError, StoreError, OSError) as error:
            self._talk.error(f"cannot purge: {error}")
            return False

    def _wakers(self, arrivals_fd: int | None = None) -> select.poll:
        poll = select.poll()
        for fd in (self._interrupts.fd, self._supervisor_fd, arrivals_fd):
            if fd is not None:
                poll.register(fd, select.POLLIN)
        return poll

    def _sleep(self, timeout_seconds: float, *, arrivals: bool = False) -> None:
        fd = self._store.arrivals_fd() if arrivals else None
        if arrivals and fd is None:
            timeout_seconds = min(timeout_seconds, self._store.poll_seconds)
        poll = self._wakers(fd)
        if self._interrupts.level == 0:
            poll.poll(poll_milliseconds(timeout_seconds))
        self._interrupts.drain()

    def _tell_once(self, trouble: str, text: str) -> None:
        """Tell what is wrong with something, once as long as it is not over."""
        told = self._troubles.setdefault(trouble, set())
        if text not in told:
            self._talk.error(text)
            told.add(text)

    def _is_over(self, trouble: str) -> None:
        """Note that a trouble is over, if there was one, and tell when nothing is wrong any more.

        A worker that can settle again, say, may still be unable to take a job.
        """
        if trouble in self._troubles:
            del self._troubles[trouble]
            if not self._troubles:
                self._talk.error("goes on")

    # --- run ---

    def _work_on(self, claim: Claim) -> None:
        job, number = claim.job, claim.attempt
        self._talk.job(job.id, number, "started")
        result: Result | None = None
        try:
            started = self._start(claim)
        except OSError as error:
            result = Result(
                outcome=Outcome.NOT_STARTED, exit_code=None, signal=None, duration_seconds=0.0
            )
            what = f": {os.fsdecode(error.filename)}" if error.filename else ""
            self._explain(claim, f"cannot be started: {error.strerror}{what}")
        else:
            result = self._wait_for(started, claim) if isinstance(started, Command) else started
        if result is None:
            if self._give_back(claim):
                self._talk.job(job.id, number, "is given back, not counted")
        else:
            self._finish(claim, result)

    def _start(self, claim: Claim) -> Command | Result | None:
        """Start the command, trying again while the machine lacks something.

        Returns None where we were told to stop meanwhile, the result where it was cancelled.
        """
        job = claim.job
        while True:
            output_fd = -1
            try:
                output_fd = self._logs.open_for_append(job.id, claim.attempt)
                command = Command(
                    job.command,
                    cwd=job.cwd,
                    env=self._environment(job, claim.attempt),
                    output_fd=output_fd,
                    pass_fds=claim.pass_fds,
                )
                if not command.wakes:
                    self._interrupts.hear_children()
                self._is_over("start")
                return command
            except OSError as error:
                if not is_scarcity(error):
                    raise
                self._tell_once("start", f"{job.id} waits to be started: {error.strerror}")
            except (StoreUnavailable, UnsafeStore) as error:  # the log directory; no job's fault
                self._tell_once("start", f"{job.id} waits to be started: {error}")
            finally:
                if output_fd >= 0:
                    os.close(output_fd)
            self._settle_all()
            self._sleep(_RETRY_SECONDS)
            if self._must_leave():
                return None
            if self._store.cancel_requested(claim):
                return Result(
                    outcome=Outcome.CANCELLED, exit_code=None, signal=None, duration_seconds=0.0
                )

    def _environment(self, job: Job, attempt: int) -> dict[bytes, bytes]:
        env = dict(self._env)
        for name, value in job.env.items():
            env[name.encode()] = value.encode("utf-8", "surrogateescape")
        env[b"QUEUECTL_JOB_ID"] = job.id.encode()
        env[b"QUEUECTL_ATTEMPT"] = b"%d" % attempt
        env[b"QUEUECTL_MAX_RETRIES"] = b"%d" % job.max_retries
        env[b"QUEUECTL_STORE"] = self._env[b"QUEUECTL_STORE"]
        return env

    def _wait_for(self, command: Command, claim: Claim) -> Result | None:
        """Wait for the command and see to it that it ends in time; None where it was given up."""
        job = claim.job
        wake_fds = [self._interrupts.fd]
        if (control_fd := self._store.control_fd()) is not None:
            wake_fds.append(control_fd)
        self._collect_settled()
        if self._unsettled and (
            len(self._unsettled) >= _MANY_UNSETTLED
            or time.monotonic() - self._unsettled[0].since > _MOST_UNSETTLED_SECONDS
        ):
            self._begin_settling()
        while True:
            timeout = None
            if job.timeout_seconds is not None:
                timeout = job.timeout_seconds - command.elapsed_seconds()
                if timeout <= 0:
                    command.end(self._settings.kill_grace)
                    return command.result()._replace(outcome=Outcome.TIMED_OUT)
            pause = max(_SHORT_SECONDS, self._settle_again_at - time.monotonic())
            to_settle = self._unsettled and self._settling is None
            if to_settle and (timeout is None or timeout > pause):
                if command.wait(pause, *wake_fds):
                    return command.result()
                self._begin_settling()
            elif command.wait(timeout, *wake_fds):
                return command.result()
            self._interrupts.drain()
            self._collect_settled()
            is_cancelled = self._store.cancel_requested(claim)
            self._hear_stop()
            if self._interrupts.level > 1:
                command.end(self._settings.kill_grace)
                return None
            if is_cancelled:
                command.end(self._settings.kill_grace)
                return command.result()._replace(outcome=Outcome.CANCELLED)

    def _explain(self, claim: Claim, reason: str) -> None:
        """Write into the attempt's log why there is no output."""
        try:
            fd = self._logs.open_for_append(claim.job.id, claim.attempt)
            try:
                os.write(fd, f"queuectl: {reason}\n".encode(errors="backslashreplace"))
            finally:
                os.close(fd)
        except OSError as error:
            reason += f"; nor can its log be written: {error.strerror}"
        self._talk.job(claim.job.id, claim.attempt, reason)

    # --- settle ---

    def _give_back(self, claim: Claim) -> bool:
        """Put a job back, however long it takes; only a second signal gives up."""
        while True:
            try:
                self._store.give_back(claim)
            except StoreError as error:
                job_id, number = claim.job.id, claim.attempt
                if self._interrupts.level > 1:
                    what = f"cannot be given back, and counts as lost: {error}"
                    self._talk.job_error(job_id, number, what)
                    return False
                what = f"tries again to give back {job_id} attempt {number}: {error}"
                self._tell_once("give back", what)
            else:
                self._is_over("give back")
                return True
            self._pause()

    def _finish(self, claim: Claim, result: Result) -> None:
        now = utc_now()
        attempt = Attempt(
            number=claim.attempt,
            worker=self._name,
            started_at=claim.started_at,
            finished_at=now,
            duration_seconds=result.duration_seconds,
            exit_code=result.exit_code,
            signal=result.signal,
            outcome=result.outcome,
            log=log_name(claim.job.id, claim.attempt),
        )
        job = after_attempt(claim.job, attempt, self._settings, now, random.random())
        self._unsettled.append(_Unsettled(claim, job, time.monotonic()))
        if not self._talk.is_quiet:
            length = format_duration(result.duration_seconds)
            told = f"{_ending(attempt)} after {length}{_fate(job, now)}"
            self._talk.job(job.id, attempt.number, told)

    def _begin_settling(self) -> None:
        """Record what ended, and wait for the disk while the next command runs.

        A disk that was slow the last time is waited for by a thread: cancelling and timeouts must
        not wait for it, too.
        """
        if self._settling is not None or time.monotonic() < self._settle_again_at:
            return
        batch, self._unsettled = self._unsettled, []
        try:
            settlement = self._store.begin_settle([(each.claim, each.job) for each in batch])
        except StoreError as error:
            self._keep_unsettled(batch, error)
            return
        self._settling = _Settling(settlement, batch, threading.Event())
        if self._sync_seconds <= _QUICK_SYNC_SECONDS or not self._sync_in_thread(self._settling):
            self._sync(self._settling)
            self._collect_settled()

    def _sync_in_thread(self, settling: _Settling) -> bool:
        """Let a thread wait for the disk; False where none can be started."""
        if self._to_sync is None:
            # One thread for all: starting one takes as long as settling a job.
            to_sync: SimpleQueue[_Settling] = SimpleQueue()
            try:
                threading.Thread(target=self._sync_each, args=(to_sync,), daemon=True).start()
            except RuntimeError:  # no more processes for this user, and a thread counts as one
                return False
            self._to_sync = to_sync
        self._to_sync.put(settling)
        return True

    def _sync_each(self, to_sync: SimpleQueue[_Settling]) -> None:
        while True:
            settling = to_sync.get()
            try:
                self._sync(settling)
            finally:
                # RACE: whoever is woken looks at once, and would not look again; so it is told
                # first that it is synced.
                self._interrupts.wake()

    def _sync(self, settling: _Settling) -> None:
        started = time.monotonic()
        try:
            settling.settlement.sync()
        finally:
            self._sync_seconds = time.monotonic() - started
            settling.is_synced.set()

    def _collect_settled(self, *, wait: bool = False) -> None:
        """Finish the settlement that the disk has taken, if there is one."""
        settling = self._settling
        if settling is None or (not wait and not settling.is_synced.is_set()):
            return
        settling.is_synced.wait()
        self._settling = None
        try:
            settling.settlement.finish()
        except StoreError as error:
            self._keep_unsettled(settling.batch, error)
        else:
            self._keeps = False
            self._is_over("settle")
        for claim in settling.settlement.gone:
            what = "is not recorded: somebody has taken it from processing/"
            self._talk.job_error(claim.job.id, claim.attempt, what)

    def _keep_unsettled(self, batch: list[_Unsettled], error: StoreError) -> None:
        self._unsettled = batch + self._unsettled
        self._settle_again_at = time.monotonic() + _RETRY_SECONDS
        if not self._keeps:  # told once, however many they become
            ended = "an ended job" if len(batch) == 1 else f"{len(batch)} ended jobs"
            self._tell_once("settle", f"keeps {ended}, and tries again: {error}")
        self._keeps = True

    def _settle_all(self) -> None:
        """Settle what ended, however long it takes; only a second signal gives up."""
        self._collect_settled(wait=True)
        while self._unsettled:
            self._settle_again_at = 0.0  # who comes here has waited
            self._begin_settling()
            self._collect_settled(wait=True)
            if not self._unsettled:
                return
            if self._interrupts.level > 1:
                what = "leaves ended jobs unsettled: what is not recorded counts as lost"
                self._tell_once("leave", what)
                return
            self._pause()

    def _pause(self) -> None:
        """Wait until another signal has come, or it is time to try again."""
        # Not _sleep, which ends at once where a stop is asked for or the supervisor is gone. Nor
        # does it end for the thread that has synced, whose call to wake may come late.
        poll = select.poll()
        poll.register(self._interrupts.fd, select.POLLIN)
        if (control_fd := self._store.control_fd()) is not None:
            poll.register(control_fd, select.POLLIN)
        level, until = self._interrupts.level, time.monotonic() + _RETRY_SECONDS
        while self._interrupts.level == level and (left := until - time.monotonic()) > 0:
            poll.poll(poll_milliseconds(left))
            self._interrupts.drain()
            self._hear_stop()

    def _hear_stop(self) -> None:
        """Take note of a request to stop now that has come past the supervisor."""
        if self._store.stop_now_requested():
            self._interrupts.level = 2


def recover(store: Store) -> RecoveryReport:
    """Settle the claims that nobody holds, lost attempts by the policy.

    What keeps that from being done is one of the report's problems.
    """
    try:
        settings = store.settings()

        def decide(job: Job, attempt: Attempt) -> Job:
            return after_attempt(job, attempt, settings, utc_now(), random.random())

        return store.recover(decide)
    except (ConfigError, StoreError) as error:
        return RecoveryReport(unowned=1, problems=[str(error)])


def _ending(attempt: Attempt) -> str:
    text = attempt.outcome.replace("_", " ")
    if attempt.exit_code:
        text += f" (exit code {attempt.exit_code})"
    if attempt.signal is not None:
        text += f" (signal {attempt.signal})"
    return text


def _fate(job: Job, now: datetime) -> str:
    if job.state is State.COMPLETED:
        return ""
    if job.state is State.PENDING:
        wait = max(0.0, (job.run_at - now).total_seconds())
        return f"; runs again in {format_duration(wait)} ({job.attempts} of {job.max_retries} used)"
    return f"; is {job.state}"

"""Take jobs and run them, one after the other: claim, run, settle.

A job that ended is settled while the next one runs, several at once where they are short: what the
disk must do for one it does for all. Each keeps its claim until then.
"""

import errno
import math
import os
import random
import select
import signal
import sys
import time
from collections.abc import Collection, Sequence
from contextlib import redirect_stderr, suppress
from datetime import datetime
from io import StringIO
from itertools import zip_longest
from types import FrameType
from typing import NamedTuple

from queuectl.clock import format_duration, format_instant, later, utc_now
from queuectl.config import Settings
from queuectl.errors import ConfigError, NameTaken, StoreError, StoreUnavailable, UnsafeStore
from queuectl.job import Attempt, Job, Outcome, State, log_name
from queuectl.logs import LogDir
from queuectl.loop import Loop
from queuectl.outlet import Outlet
from queuectl.policy import after_attempt
from queuectl.purge import IdlePurge
from queuectl.runner import Command, Obstacle, Result, environment_as_given
from queuectl.settler import Settler
from queuectl.store.base import Claim, RecoveryReport, Store
from queuectl.text import encoded, printable
from queuectl.workdir import Question, WorkDirs

_RETRY_SECONDS = 1.0
_MOST_TROUBLES = 100  # of a kind; each may name another job
_PUT_OFF_SECONDS = 10.0  # for a job that the machine cannot start now, though it can others
_LONGEST_SLEEP_SECONDS = 60.0  # a wall clock that is set forward is noticed after so long
_LOOK_SECONDS = 1.0  # so often at most a process looks for lost jobs
_NAME_ALPHABET = "23456789abcdefghjkmnpqrstvwxyz"


class Talk:
    """Tell on stderr what happens, a line for each event; nothing depends on whether it arrives.

    Lines that nobody reads are dropped, and counted for all of the process together.
    """

    _outlet: Outlet | None = None

    def __init__(self, name: str, *, quiet: bool) -> None:
        """Take the name that stands in each line; with ``quiet`` only errors are told."""
        self.name = name
        self.is_quiet = quiet

    @staticmethod
    def begin_anew() -> None:
        """Write to what stderr is now, with nothing dropped; a fork inherits what there was."""
        if Talk._outlet is not None:
            Talk._outlet.close()
        Talk._outlet = Outlet(2)

    def event(self, text: str) -> None:
        """Tell what happened."""
        if not self.is_quiet:
            self.error(text)

    def error(self, text: str) -> None:
        """Tell what went wrong."""
        self._write(self._line(printable(text)))  # the name of a directory may hold anything

    def bug(self) -> None:
        """Tell the exception that is being handled, with its traceback."""
        # Python itself writes it, which needs no descriptor to import anything.
        with redirect_stderr(StringIO()) as text:
            sys.excepthook(*sys.exc_info())
        self._write(text.getvalue())

    def catch_up(self) -> float:
        """Say how many lines were dropped, if any; return after how many seconds to try again."""
        if Talk._outlet is None or Talk._outlet.catch_up(self._dropped_line):
            return math.inf
        return _RETRY_SECONDS

    def _line(self, text: str) -> str:
        return f"{format_instant(utc_now())[:-4]}Z {self.name} {text}\n"

    def _dropped_line(self, count: int) -> bytes:
        were = "1 line was" if count == 1 else f"{count} lines were"
        return self._line(f"{were} dropped: nobody read them, or the disk was full").encode()

    def _write(self, text: str) -> None:
        """Write by one call: others write to the same place."""
        if Talk._outlet is None:
            self.begin_anew()
        assert Talk._outlet is not None
        Talk._outlet.write(encoded(text), self._dropped_line)

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

    ``level`` is 0 to go on, 1 to take no new job, 2 to end what runs; ``is_paused`` is true between
    SIGTSTP, which Ctrl-Z sends, and SIGCONT.
    """

    def __init__(self) -> None:
        """Take over SIGTERM and SIGINT (the second one makes 2), and what a supervisor passes on.

        That is SIGUSR2 for 1 and SIGUSR1 for 2. They are counted apart: who sends one SIGTERM to
        all processes of a pool asks for 1, though each worker then gets two signals. SIGHUP makes
        1, however often it comes: of a terminal that is closed, the shell may send one as well.
        """
        self.level = 0
        self.is_paused = False
        self._terminations = 0
        self.fd, self._write_fd = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write_fd, False)
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._terminate)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self._pass_on)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # not by nohup
            signal.signal(signal.SIGHUP, self._pass_on)
        if signal.getsignal(signal.SIGTSTP) != signal.SIG_IGN:
            signal.signal(signal.SIGTSTP, self._pause)
            signal.signal(signal.SIGCONT, self._pause)
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

    def _pause(self, number: int, _frame: FrameType | None) -> None:
        self.is_paused = number == signal.SIGTSTP

    def stop_process(self) -> None:
        """Stop this process as SIGTSTP does without a handler; return when it is continued."""
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self.is_paused = False  # where nobody could continue it, the kernel does not stop it

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


class Troubles:
    """Tell what is wrong, once as long as it is not over."""

    def __init__(self, talk: Talk) -> None:
        """Take the name under which it is told."""
        self._talk = talk
        self._told: dict[str, set[str]] = {}

    def tell(self, trouble: str, text: str) -> None:
        """Report what is wrong with something, unless that was reported, or a hundred others."""
        told = self._told.setdefault(trouble, set())
        if text not in told and len(told) < _MOST_TROUBLES:
            told.add(text)
            self._talk.error(text)
            if len(told) == _MOST_TROUBLES:
                self._talk.error("reports no more of this kind until it is over")

    def has(self, trouble: str) -> bool:
        """Return whether a trouble was told and is not over."""
        return trouble in self._told

    def are_over(self, trouble: str) -> None:
        """Note that a trouble is over, if there was one, and tell when nothing is wrong any more.

        A worker that can settle again, say, may still be unable to take a job.
        """
        if trouble in self._told:
            del self._told[trouble]
            if not self._told:
                self._talk.error("goes on")


class _Asked(NamedTuple):
    """Be what a worker got when it asked for a job.

    ``heard`` is of arrivals, at that claim; with ``is_refused`` there may be a job all the same.
    """

    claim: Claim | None
    heard: int
    is_refused: bool


class _Rest(NamedTuple):
    """What the workers of a process do that have all found no job: look again, or sleep.

    ``until`` is on the monotonic clock, None to look again at once; ``nothing_runs`` is looked at
    with drain alone.
    """

    until: float | None = None
    nothing_runs: bool = False


class WorkerProcess:
    """Be one process of a pool, and run its workers, each with one job at a time."""

    def __init__(
        self,
        store: Store,
        names: Sequence[str],
        *,
        drain: bool,
        quiet: bool,
        supervisor_fd: int,
        ready_fd: int,
    ) -> None:
        """Take the store, the names, and two descriptors; -1 where nobody waits until it is ready.

        ``supervisor_fd`` becomes readable when the supervisor is gone; ``ready_fd`` gets a byte
        for each worker and is closed when all are registered.
        """
        self.store = store
        self.drain = drain
        self._supervisor_fd = supervisor_fd
        self._is_orphaned = False
        self._ready_fd = ready_fd
        talks = [Talk(name, quiet=quiet) for name in names]
        self._talk = talks[0]
        store.on_set_aside = self._talk.error
        self.logs = LogDir.of(store.location)
        self.interrupts = Interrupts()
        self.loop = Loop()
        self.loop.wake_all(self.interrupts.fd, self.interrupts.drain)
        self.loop.wake_all(supervisor_fd, self._note_orphaned)
        self.troubles = Troubles(self._talk)
        self.settler = Settler(store, self.interrupts, self._talk, self.troubles)
        self.workdirs = WorkDirs(self.interrupts)
        self.settings = Settings()
        self._heard = 0  # of arrivals, at the last claim
        self._rest: _Rest | None = None  # of those that found no job at the last claim
        self._look_at = 0.0  # for lost jobs
        self._looked_at = -math.inf
        self._wanting: list[str] = []
        self._asked: dict[str, _Asked] = {}
        self._leaving: list[str] = []
        self._idle_purge: IdlePurge | None = None
        self.env = {
            name: value
            for name, value in environment_as_given().items()
            if not name.startswith(b"QUEUECTL_") or name == b"QUEUECTL_STORE"
        }
        self.env[b"QUEUECTL_STORE"] = os.fsencode(store.location)
        self._workers = [Worker(self, talk) for talk in talks]

    def run(self) -> None:
        """Work until told to stop, the supervisor is gone or, with drain, nothing is left."""
        null_fd = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null_fd, 0)  # that the commands inherit
        os.close(null_fd)
        try:
            for worker in self._workers:
                worker.register()
                self._listen(worker.name)
            self.settler.reserve(len(self._workers))
            if self._ready_fd >= 0:
                with suppress(OSError):  # who waited is gone
                    os.write(self._ready_fd, b"." * len(self._workers))
                os.close(self._ready_fd)
            self.loop.run([worker.run() for worker in self._workers])
        finally:
            self._talk.catch_up()
            # Nothing is left of them but where something failed.
            self.store.unregister(*(worker.name for worker in self._workers))
            self.store.leave_pool()
            self.store.close()

    async def leave(self, name: str) -> None:
        """Remove the record of a worker that leaves, together with those that leave now, too."""
        self._leaving.append(name)
        await self.loop.others_first()
        names, self._leaving = self._leaving, []
        for each in names:
            fd = self.store.control_fd(each)
            if fd is not None:
                self.loop.forget(fd)
        if names:
            self.store.unregister(*names)

    def _listen(self, name: str) -> None:
        fd = self.store.control_fd(name)
        if fd is not None:
            self.loop.wake_all(fd, lambda: self.hear_stop(name))

    def hear_stop(self, name: str) -> None:
        """Take note of a request to stop that has come to a worker past the supervisor."""
        self.interrupts.level = max(self.interrupts.level, self.store.stop_level(name))

    def must_leave(self) -> bool:
        """Tell whether no new job is to be taken."""
        return self.interrupts.level > 0 or self._is_orphaned

    def _note_orphaned(self) -> None:
        self._is_orphaned = True
        self.loop.forget(self._supervisor_fd)

    def rest(self) -> _Rest:
        """Look after what is left, once for all workers that found no job at the same claim."""
        if self._rest is None:
            self._rest = self._look_around()
        return self._rest

    def _look_around(self) -> _Rest:
        if self._recover() or self.purge():
            return _Rest()
        if self.drain and not self.store.running():
            # RACE: another worker may have settled a job and not yet let go on what waits for it.
            self._release_blocked()
            return _Rest(nothing_runs=True)
        now = time.monotonic()
        until = min(self._look_at, now + min(_LONGEST_SLEEP_SECONDS, self._talk.catch_up()))
        next_due = self.store.next_due()
        if next_due is not None:
            until = min(until, now + max(0.0, (next_due - utc_now()).total_seconds()))
        os.chdir("/")  # not the last job's directory: its file system may be unmounted now
        return _Rest(until)

    def _release_blocked(self) -> None:
        try:
            self.store.release_blocked()
        except (ConfigError, StoreError, UnsafeStore) as error:
            self.troubles.tell("release", f"leaves jobs blocked: {error}")
        else:
            self.troubles.are_over("release")

    def has_work(self) -> None:
        """Note that a worker has a job: when it has none any more, jobs may have been lost."""
        self._look_at = self._looked_at + _LOOK_SECONDS

    def _recover(self) -> bool:
        """Settle the claims that nobody holds, if work has run out; return whether there were any.

        It is done for all workers of the process, once a second at most, and not when a job comes
        that somebody else takes: each look costs as much as there are jobs that run. What is lost
        while nobody runs out of work, or cannot be settled, the supervisor sees.
        """
        now = time.monotonic()
        if now < self._look_at:
            return False
        self._look_at, self._looked_at = math.inf, now
        report = recover(self.store, only_lost=True)
        self._talk.report(report)
        return bool(report.recovered)

    async def claim(self, name: str) -> _Asked:
        """Take a job for a worker, together with those of the others that want one now, too."""
        self._wanting.append(name)
        await self.loop.others_first()
        if name in self._wanting:
            names, self._wanting = self._wanting, []
            self._claim_for(names)
        return self._asked.pop(name)

    def _claim_for(self, names: Sequence[str]) -> None:
        claims: list[Claim] = []
        is_refused = False
        self._rest = None
        try:
            self.settings = self.store.settings()
            while left := names[len(claims) :]:
                more = self.store.claim_each(utc_now(), left)
                if not more:
                    break
                claims += more
        except (ConfigError, StoreError, UnsafeStore) as error:
            is_refused = True
            self.troubles.tell("claim", f"takes no job: {error}")
        else:
            self.troubles.are_over("claim")
        finally:
            self._pass_on_arrivals()
        for name, claim in zip_longest(names, claims):
            self._asked[name] = _Asked(claim, self._heard, is_refused and claim is None)

    def _pass_on_arrivals(self) -> None:
        """Let idle workers of this process ask again where a claim has heard of arrivals."""
        heard = self.store.arrivals_heard()
        if heard != self._heard:
            self._heard = heard
            fd = self.store.arrivals_fd()
            if fd is not None:
                self.loop.tell(fd)

    def purge(self) -> bool:
        """Delete what the settings keep no longer; return whether that was left for other work."""
        settings = self.settings
        if settings.keep_completed is None and settings.keep_logs is None:
            return False
        if self._idle_purge is None:
            self._idle_purge = IdlePurge(self.store, self.logs)
        poll = select.poll()
        arrivals_fd = self.store.arrivals_fd()
        if arrivals_fd is not None:
            poll.register(arrivals_fd, select.POLLIN)
        look_at = time.monotonic() + self.store.poll_seconds
        next_due = self.store.next_due()

        def is_wanted() -> bool:
            return (
                self.interrupts.level > 0
                or bool(poll.poll(0))
                or self.loop.has_ready()
                or time.monotonic() >= look_at
                or (next_due is not None and utc_now() >= next_due)
            )

        try:
            return self._idle_purge.go_on(settings, utc_now(), is_wanted)
        except (ConfigError, StoreError, OSError) as error:
            self._talk.error(f"cannot purge: {error}")
            return False


class Worker:
    """Be one worker of a process: claim a job, run it, see that it is settled, and so on."""

    def __init__(self, process: WorkerProcess, talk: Talk) -> None:
        """Take the process that it shares with others, and what tells under its name."""
        self._process = process
        self._talk = talk
        self._store = process.store
        self._loop = process.loop
        self._interrupts = process.interrupts
        self._troubles = process.troubles
        self._settler = process.settler
        self._is_refused = False  # whether there is a job to take could not be told
        self._heard = 0  # of arrivals, at the last claim

    @property
    def name(self) -> str:
        """Return what it is called, once it is registered."""
        return self._talk.name

    def register(self) -> None:
        """Make its name known, another one where that is taken. Raises: StoreError."""
        while True:
            try:
                self._store.register(self.name, utc_now())
            except NameTaken:
                taken = self._talk.name
                [self._talk.name] = new_names(1, [taken])
                self._talk.error(f"is not called {taken}: there is a worker of that name")
            else:
                return

    async def run(self) -> None:
        """Work until it must leave or, with drain, nothing is left."""
        await self._loop.give_way()  # and hear first what has happened since the fork
        nothing_ran = False
        while not self._process.must_leave():
            if self._settler.keeps:
                await self._settle_all()
                continue
            if self._settler.is_full():
                await self._wait_for_disk()
                continue
            if self._interrupts.is_paused:
                await self._settle_all()
                if self._interrupts.is_paused:
                    await self._loop.wait((), None)
                continue
            claim = await self._claim()
            if claim is not None:
                nothing_ran = False
                await self._work_on(claim)
            elif self._process.drain and nothing_ran and not self._is_refused:
                break
            else:
                nothing_ran = await self._idle()
        await self._settle_all()
        await self._process.leave(self.name)

    # --- claim ---

    async def _claim(self) -> Claim | None:
        claim, self._heard, self._is_refused = await self._process.claim(self.name)
        if self._is_refused:
            await self._settle_all()
            await self._sleep(_RETRY_SECONDS)
        elif claim is not None and self._interrupts.level > 0:
            await self._give_back(claim)
            return None
        return claim

    async def _idle(self) -> bool:
        """Look after what is left, then sleep in the kernel; return whether nothing ran at all.

        With drain it does not sleep where nothing ran: then one more claim decides.
        """
        await self._settle_all()
        try:
            rest = self._process.rest()
        except (ConfigError, StoreError, UnsafeStore) as error:
            # The commands of the others in this process go on, and so does this worker.
            self._troubles.tell("rest", f"cannot look for work: {error}")
            await self._sleep(_RETRY_SECONDS)
            return False
        if rest.nothing_runs:
            return True
        if rest.until is None:
            await self._loop.give_way()
        # Where a claim was refused, there may be a job that nothing tells of once more.
        elif not self._is_refused:
            self._troubles.are_over("rest")
            await self._sleep(max(0.0, rest.until - time.monotonic()), arrivals=True)
        return False

    async def _sleep(self, timeout_seconds: float, *, arrivals: bool = False) -> None:
        fd = self._store.arrivals_fd() if arrivals else None
        if arrivals and fd is None:
            timeout_seconds = min(timeout_seconds, self._store.poll_seconds)
        # RACE: while this one settled, another may have read what came, and taken a part of it.
        if arrivals and self._store.arrivals_heard() != self._heard:
            return
        if not self._process.must_leave():
            await self._loop.wait(() if fd is None else (fd,), timeout_seconds)

    # --- run ---

    async def _work_on(self, claim: Claim) -> None:
        job, number = claim.job, claim.attempt
        self._process.has_work()
        was_put_off = any(map(self._troubles.has, _what_puts_off(job)))
        if not was_put_off:  # else it is told when it is so
            self._talk.job(job.id, number, "started")
        result: Result | None = None
        try:
            started = await self._start(claim)
            if was_put_off:
                self._talk.job(job.id, number, "started")
        except Obstacle as obstacle:
            await self._put_off(claim, obstacle)
            return
        except OSError as error:
            result = Result(
                outcome=Outcome.NOT_STARTED, exit_code=None, signal=None, duration_seconds=0.0
            )
            self._explain(claim, f"cannot be started: {_reason(error)}")
            await self._loop.give_way()
            # There is no wait that does it, and what has ended keeps its descriptors until then.
            self._settler.go_on()
        else:
            result = (
                await self._wait_for(started, claim) if isinstance(started, Command) else started
            )
        if result is None:
            if await self._give_back(claim):
                self._talk.job(job.id, number, "is given back, not counted")
        else:
            self._finish(claim, result)

    async def _start(self, claim: Claim) -> Command | Result | None:
        """Start the command, trying again while the machine lacks something.

        Returns None where we were told to stop meanwhile, the result where it was cancelled.
        Raises: Obstacle where others may be started nevertheless; OSError where this never can be.
        """
        job = claim.job
        while True:
            output_fd = -1
            try:
                output_fd = self._process.logs.open_for_append(
                    job.id, claim.attempt, created_at=job.created_at
                )
                command = Command(
                    job.command,
                    cwd=job.cwd,
                    env=self._environment(job, claim.attempt),
                    own_env=job.env,
                    output_fd=output_fd,
                    pass_fds=claim.pass_fds,
                )
                if not await self._start_in_its_directory(command, claim):
                    return self._without_start()
                command.watch()
                if not command.wakes:
                    self._interrupts.hear_children()
                self._troubles.are_over(f"start {self.name}")
                for trouble in _what_puts_off(job):
                    self._troubles.are_over(trouble)
                return command
            except Obstacle as obstacle:
                if not obstacle.is_general:
                    raise
                self._cannot_start(job, _reason(obstacle))
            except OSError as error:  # of the log, or of what was given
                logs = self._process.logs
                if output_fd >= 0 or logs.is_at_fault(job.id, claim.attempt, error):
                    raise
                self._cannot_start(job, _reason(error))
            except (StoreUnavailable, UnsafeStore) as error:  # the log directory; no job's fault
                self._cannot_start(job, error)
            finally:
                if output_fd >= 0:
                    os.close(output_fd)
            await self._settle_all()
            await self._sleep(_RETRY_SECONDS)
            if self._is_called_off(claim):
                return self._without_start()

    async def _start_in_its_directory(self, command: Command, claim: Claim) -> bool:
        """Start a command once its directory answers; return False if that is called off before."""
        workdirs = self._process.workdirs
        question = workdirs.ask(command.cwd)
        if question is not None and not await self._wait_for_answer(question, claim):
            return False
        # A command empties the caches: what comes before is done for all, and what follows.
        await self._loop.others_first()
        command.start()
        if question is not None:
            workdirs.entered(command.cwd)
        await self._loop.others_first()
        return True

    async def _wait_for_answer(self, question: Question, claim: Claim) -> bool:
        """Wait until the directory of a job answers; return False if that is not wanted any more.

        Raises: Obstacle if it takes too long; others may be started in other directories.
        """
        while not question.is_answered:
            left = question.left_seconds()
            if left <= 0:
                what = "the directory does not answer"
                obstacle = Obstacle(errno.ETIMEDOUT, what, question.path)
                obstacle.is_general = False
                raise obstacle
            pause = self._settler.go_on()
            await self._loop.wait((), left if pause is None else min(pause, left))
            if self._is_called_off(claim):
                return False
        return True

    def _is_called_off(self, claim: Claim) -> bool:
        is_cancelled = self._store.cancel_requested(claim)
        self._process.hear_stop(self.name)  # which may have come together with that
        return is_cancelled or self._process.must_leave()

    def _without_start(self) -> Result | None:
        """Return how an attempt that was called off ends: cancelled, or None to give it back."""
        if self._process.must_leave():
            return None
        return Result(outcome=Outcome.CANCELLED, exit_code=None, signal=None, duration_seconds=0.0)

    def _cannot_start(self, job: Job, reason: object) -> None:
        # For each worker apart: that another has started one does not help this one.
        self._troubles.tell(f"start {self.name}", f"{job.id} waits to be started: {reason}")

    async def _put_off(self, claim: Claim, obstacle: Obstacle) -> None:
        """Put a job back for a while, its attempt not counted: others may run meanwhile."""
        job = claim.job
        of_directory, of_job = _what_puts_off(job)
        trouble = of_job if obstacle.errno == errno.E2BIG else of_directory
        if not self._troubles.has(trouble):  # once for all jobs of a directory
            self._troubles.tell(trouble, f"{job.id} waits to be started: {_reason(obstacle)}")
        await self._give_back(claim, later(utc_now(), _PUT_OFF_SECONDS))

    def _environment(self, job: Job, attempt: int) -> dict[bytes, bytes]:
        env = dict(self._process.env)
        for name, value in job.env.items():
            env[name.encode()] = value.encode("utf-8", "surrogateescape")
        env[b"QUEUECTL_JOB_ID"] = job.id.encode()
        env[b"QUEUECTL_ATTEMPT"] = b"%d" % attempt
        env[b"QUEUECTL_MAX_RETRIES"] = b"%d" % job.max_retries
        env[b"QUEUECTL_STORE"] = self._process.env[b"QUEUECTL_STORE"]
        return env

    async def _wait_for(self, command: Command, claim: Claim) -> Result | None:
        """Wait for the command and see to it that it ends in time; None where it was given up."""
        job = claim.job
        kill_grace = self._process.settings.kill_grace
        while True:
            timeout = self._settler.go_on()
            if job.timeout_seconds is not None:
                left = job.timeout_seconds - command.elapsed_seconds()
                if left <= 0:
                    await command.end(kill_grace, self._loop)
                    return command.result()._replace(outcome=Outcome.TIMED_OUT)
                timeout = left if timeout is None else min(timeout, left)
            if await command.wait(timeout, self._loop):
                return command.result()
            is_cancelled = self._store.cancel_requested(claim)
            self._process.hear_stop(self.name)
            if self._interrupts.level > 1:
                await command.end(kill_grace, self._loop)
                return None
            if is_cancelled:
                await command.end(kill_grace, self._loop)
                return command.result()._replace(outcome=Outcome.CANCELLED)

    def _explain(self, claim: Claim, reason: str) -> None:
        """Write into the attempt's log why there is no output."""
        try:
            fd = self._process.logs.open_for_append(claim.job.id, claim.attempt)
            try:
                os.write(fd, f"queuectl: {reason}\n".encode(errors="backslashreplace"))
            finally:
                os.close(fd)
        except OSError as error:
            reason += f"; nor can its log be written: {error.strerror}"
        self._talk.job(claim.job.id, claim.attempt, reason)

    # --- settle ---

    async def _give_back(self, claim: Claim, due: datetime | None = None) -> bool:
        """Put a job back, however long it takes; only a second signal gives up."""
        while True:
            try:
                self._store.give_back(claim, due)
            except StoreError as error:
                job_id, number = claim.job.id, claim.attempt
                if self._interrupts.level > 1:
                    what = f"cannot be given back, and counts as lost: {error}"
                    self._talk.job_error(job_id, number, what)
                    return False
                what = f"tries again to give back {job_id} attempt {number}: {error}"
                self._troubles.tell("give back", what)
                self._settler.free_reserve()
            else:
                self._troubles.are_over("give back")
                return True
            await self._pause()

    def _finish(self, claim: Claim, result: Result) -> None:
        now = utc_now()
        attempt = Attempt(
            number=claim.attempt,
            worker=self.name,
            started_at=claim.started_at,
            finished_at=now,
            duration_seconds=result.duration_seconds,
            exit_code=result.exit_code,
            signal=result.signal,
            outcome=result.outcome,
            log=log_name(claim.job.id, claim.attempt),
        )
        job = after_attempt(claim.job, attempt, self._process.settings, now, random.random())
        self._settler.add(claim, job)
        if not self._talk.is_quiet:
            length = format_duration(result.duration_seconds)
            told = f"{_ending(attempt)} after {length}{_fate(job, now)}"
            self._talk.job(job.id, attempt.number, told)

    async def _wait_for_disk(self) -> None:
        """Take no job before something that ended is settled: a kill would run all of it again."""
        pause = self._settler.go_on()
        if self._settler.is_full():
            pause = _RETRY_SECONDS if pause is None else pause
            await self._loop.wait((), pause)

    async def _settle_all(self) -> None:
        """Settle what ended, however long it takes; only a second signal gives up."""
        while self._settler.has_unsettled:
            self._settler.settle_now()
            while self._settler.is_syncing:
                await self._loop.wait((), None)
            self._settler.collect()
            if not self._settler.keeps:
                continue
            if self._interrupts.level > 1:
                what = "leaves ended jobs unsettled: what is not recorded counts as lost"
                self._troubles.tell("leave", what)
                return
            await self._pause()

    async def _pause(self) -> None:
        """Wait until another signal has come, or it is time to try again."""
        # Not _sleep, which ends at once where a stop is asked for or the supervisor is gone. Nor
        # does it end for the thread that has synced, whose call to wake may come late.
        level, until = self._interrupts.level, time.monotonic() + _RETRY_SECONDS
        while self._interrupts.level == level and (left := until - time.monotonic()) > 0:
            await self._loop.wait((), left)


def new_names(count: int, others: Collection[str]) -> list[str]:
    """Make up names of workers, quick to type, which differ from each other and from others."""
    choices = random.SystemRandom().choices
    names: list[str] = []
    while len(names) < count:
        name = "w-" + "".join(choices(_NAME_ALPHABET, k=5))
        if name not in others and name not in names:
            names.append(name)
    return names


def recover(store: Store, *, only_lost: bool = False) -> RecoveryReport:
    """Settle the claims that nobody holds, lost attempts by the policy; see Store.recover.

    What keeps that from being done is one of the report's problems.
    """
    try:
        settings = store.settings()

        def decide(job: Job, attempt: Attempt) -> Job:
            return after_attempt(job, attempt, settings, utc_now(), random.random())

        return store.recover(decide, only_lost=only_lost)
    except (ConfigError, StoreError) as error:
        return RecoveryReport(unowned=1, problems=[str(error)])


def _what_puts_off(job: Job) -> tuple[str, str]:
    """Return the troubles that can put a job off: that of its directory, and one of its own."""
    return f"start in {job.cwd}", f"start {job.id}"


def _reason(error: OSError) -> str:
    text = error.strerror or str(error)
    return f"{text}: {os.fsdecode(error.filename)}" if error.filename else text


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

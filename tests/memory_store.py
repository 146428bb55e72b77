"""A store in memory, as an example of the protocol and for the tests of the contract.

Its sessions are what processes are to other stores. A claim is held by whoever has one end of its
pair of sockets open: the session that claimed it, and the command that inherits it.
"""

import os
import select
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from types import SimpleNamespace
from typing import Any, NamedTuple

from queuectl import errors
from queuectl.clock import utc_now
from queuectl.config import read_settings
from queuectl.job import FINISHED, WAITING, Job, Outcome, State
from queuectl.policy import (
    places,
    put_off_by_clock,
    retried,
    waits_for,
    without_missing_parents,
)  # fmt: skip
from queuectl.store import values
from queuectl.store.tally import counted, in_last_minute

SLOW_SECONDS = 5.0


class StopRequest(NamedTuple):
    """A request to stop, unlike all others."""

    number: int
    now: bool


class Bell:
    """Two sockets: one is readable when the other was written to, or is open nowhere any more."""

    def __init__(self) -> None:
        self.heard, self.held = socket.socketpair()
        self.heard.setblocking(False)
        self.rings = 0

    def is_rung(self) -> bool:
        return bool(select.select([self.heard], [], [], 0)[0])

    def hear(self) -> None:
        with suppress(BlockingIOError):
            self.rings += bool(self.heard.recv(65536))

    def close(self) -> None:
        self.heard.close()
        self.held.close()


class Memory:
    """What all sessions share: the jobs by their ids, and who does what with them."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.jobs: dict[str, Job] = {}
        self.moves: dict[str, tuple[int, datetime]] = defaultdict(lambda: (0, utc_now()))
        self.under: dict[str, str] = {}  # the parent of each blocked job
        self.claims: dict[str, Any] = {}
        self.runners: dict[str, Any] = {}  # the registered workers, by their names
        self.names_used: set[str] = set()
        self.arrivals: list[Bell] = []
        self.end_bells: list[Bell] = []  # rung at the end of each attempt
        self.stop_bells: list[Bell] = []
        self.stops: list[StopRequest] = []
        self.config: dict[str, Any] = {}
        self.tally = values.Tally()
        self.held: Counter[str] = Counter()  # finished jobs that no purge deletes now
        self.purged_at, self.is_purging = float("-inf"), False
        self.reserved_by: object = None

    def close(self) -> None:
        for claim in self.claims.values():
            claim.bell.close()

    def put(self, job: Job, *, is_over: bool = False) -> None:
        """Keep a job in its state; if an attempt is over, free its claim."""
        if is_over and (claim := self.claims.pop(job.id, None)) is not None:
            claim.bell.close()
            if (runner := self.runners.get(claim.worker)) is not None:
                runner.record = runner.record._replace(job=None, attempt=None)
            for bell in self.end_bells:
                bell.held.send(b".")
        self.jobs[job.id], self.moves[job.id] = job, (self.moves[job.id][0] + 1, utc_now())
        for bell in self.arrivals if job.state is State.PENDING else ():
            bell.held.send(b".")
        if job.state in FINISHED:
            self.release(job.id)
        self.lock.notify_all()

    def place(self, job: Job, under: str | None = None) -> Job:
        """Keep a job as pending, or as blocked by the first parent that it waits for."""
        self.under[job.id] = waits_for(job, lambda each: self.jobs[each].state, under) or ""
        job = job._replace(state=State.BLOCKED if self.under[job.id] else State.PENDING)
        self.put(job)
        return job

    def release(self, parent: str) -> None:
        """Move on what is blocked by a job that has ended."""
        for job in [each for each in self.among(State.BLOCKED) if self.under[each.id] == parent]:
            self.place(job, parent)
            under = self.under[job.id]
            if under not in ("", parent) and self.jobs[under].state in FINISHED:
                self.release(under)

    def among(self, state: State) -> list[Job]:
        return [job for job in self.jobs.values() if job.state is state]

    def entry(self, job: Job) -> values.Entry:
        claim, parent = self.claims.get(job.id), self.jobs.get(self.under.get(job.id, ""))
        count, changed_at = self.moves[job.id]
        entry = values.Entry(job.id, job.state, attempt=claim and claim.attempt, token=str(count))
        if job.state is State.PENDING:
            return entry._replace(priority=job.priority, run_at=job.run_at)
        if job.state is State.BLOCKED and parent is not None:
            end = parent.state if parent.state in FINISHED else None
            entry = entry._replace(parent=parent.id, parent_state=end)
        return entry._replace(changed_at=changed_at)

    def finished(self, state: State) -> Iterator[values.Entry]:
        return map(self.entry, self.among(state))

    def change(self, change: Any) -> None:
        with self.lock:
            self.config = change(dict(self.config))

    @contextmanager
    def parents_held(self) -> Iterator[set[str]]:
        with self.lock:
            yield {each for job in self.among(State.BLOCKED) for each in job.parents}

    def named_parents(self) -> Any:
        with self.parents_held() as ids:
            return SimpleNamespace(ids=ids, look=lambda: iter(()), held=self.parents_held)

    def purge(self, job_id: str, state: State, **options: Any) -> bool:
        with self.lock:
            since, forget = options.get("unchanged_since"), options.get("forget")
            job = self.jobs.get(job_id)
            if job is None or job.state is not state or self.held[job_id]:
                return False
            if since is not None and self.moves[job_id][1] > since:
                return False
            if forget is not None:
                forget(job)
            del self.jobs[job_id]
            return True

    @contextmanager
    def hold(self, job_id: str) -> Iterator[bool]:
        with self.lock:
            is_held = job_id in self.jobs and self.jobs[job_id].state in FINISHED
            self.held[job_id] += is_held
        try:
            yield is_held
        finally:
            self.held[job_id] -= is_held

    @contextmanager
    def hold_unused(self, ids: Any) -> Iterator[Collection[str]]:
        with self.lock:
            yield ids - self.jobs.keys()

    @contextmanager
    def turn(self, period_seconds: float) -> Iterator[bool]:
        now = utc_now().timestamp()
        if self.is_purging or now - self.purged_at < period_seconds:
            yield False
            return
        self.is_purging = True
        try:
            yield True
            self.purged_at = now
        finally:
            self.is_purging = False

    def request_stop(self, *, now: bool) -> StopRequest:
        self.stops.append(StopRequest(len(self.stops), now))
        for runner in self.runners.values():
            runner.stop_level = max(runner.stop_level, 1 + now)
        for bell in (*(each.bell for each in self.runners.values()), *self.stop_bells):
            bell.held.send(b".")
        return self.stops[-1]

    def recover(self, decide: Any, *, only_lost: bool = False, only: str = "") -> Any:
        with self.lock:
            held = [each for each in self.claims.values() if not each.bell.is_rung()]
            found = []
            for claim in [each for each in self.claims.values() if each not in held]:
                if only in ("", claim.job.id):
                    lost = claim.job.ended_attempt(
                        claim.attempt, Outcome.LOST, worker=claim.worker,
                        started_at=claim.started_at, finished_at=utc_now(),
                    )  # fmt: skip
                    job = decide(claim.job, lost)
                    found.append(values.Recovered(job, claim.attempt, lost=True))
                    self.put(job, is_over=True)
            return values.RecoveryReport(found, len(held), sum(each.is_left for each in held))


class Session:
    """An open store in memory, with the workers and the pool of one process."""

    location, log_directory, set_aside_in = "memory", "/nonexistent", ""
    now = staticmethod(utc_now)

    def __init__(self, memory: Memory) -> None:
        self.memory = self.purging = memory
        self.config = SimpleNamespace(read=lambda: dict(memory.config), change=memory.change)
        self.workers = SimpleNamespace(
            live=lambda: sorted(each.record for each in memory.runners.values()),
            tally=lambda: memory.tally,
            ended_lately=lambda: round(in_last_minute(memory.tally.recent, utc_now().timestamp())),
        )
        stops, nothing = Bell(), lambda *_: None
        self.stop_requests = SimpleNamespace(
            request=memory.request_stop, last=self.last_stop, fd=stops.heard.fileno
        )
        self.pool = SimpleNamespace(
            check=nothing, prepare=nothing, tidy=nothing, report_set_aside=nothing,
            reserve=self.reserve, is_in_place=lambda: True, recover=memory.recover,
            release_blocked=lambda: bool(memory.among(State.BLOCKED)),
            is_busy=self.is_busy,
        )  # fmt: skip
        self.queue = self
        self.make, self.poll_seconds = nothing, 0.25
        self.settings = lambda: read_settings(memory.config, "memory")
        self.arrivals, self.stops = Bell(), stops
        self.claimed: list[Any] = []
        self.names: set[str] = set()
        memory.arrivals.append(self.arrivals)
        memory.stop_bells.append(stops)
        self.arrivals_fd = self.arrivals.heard.fileno
        self.arrivals_read = lambda: self.arrivals.rings

    def close(self) -> None:
        self.forget(self.names)
        for claim in self.claimed:
            claim.bell.held.close()
            claim.is_left = True
        if self.memory.reserved_by is self:
            self.memory.reserved_by = None
        for bells in (self.memory.arrivals, self.memory.end_bells, self.memory.stop_bells):
            bells[:] = [each for each in bells if each not in (self.arrivals, self.stops)]
        self.arrivals.close()
        self.stops.close()

    def reserve(self) -> bool:
        with self.memory.lock:
            if self.memory.reserved_by is None and not self.memory.runners:
                self.memory.reserved_by = self
            return self.memory.reserved_by is self

    def is_busy(self) -> bool:
        if self.arrivals not in self.memory.end_bells:
            self.memory.end_bells.append(self.arrivals)
        return any(each in self.claimed for each in self.memory.claims.values())

    def last_stop(self) -> StopRequest | None:
        self.stops.hear()
        return self.memory.stops[-1] if self.memory.stops else None

    # --- for people ---

    def add(self, jobs: Collection[Job], **options: Any) -> list[str]:
        memory, chosen = self.memory, options.get("chosen", ())
        with memory.lock:
            new = {job.id: job for job in jobs if job.id not in memory.jobs or job.id not in chosen}
            for job in jobs:
                if job.id not in new and not options.get("skip_existing"):
                    raise errors.DuplicateId(job.id, memory.jobs[job.id].state)
                if job.id in new and job.id in memory.jobs:
                    raise errors.StoreError(f"there is a job {job.id}; try again")
            places(new.values(), {job.id: job.state for job in memory.jobs.values()})
            memory.jobs.update(new)  # before any is placed: they may wait for each other
            for job in new.values():
                memory.place(job)
        (options.get("progress") or abs)(len(jobs))
        return [job.id for job in jobs]

    def get(self, job_id: str) -> Job:
        if job_id not in self.memory.jobs:
            raise errors.JobNotFound(f"no such job: {job_id}")
        return self.memory.jobs[job_id]

    def resolve(self, prefix: str) -> values.Entry:
        found = sorted(each for each in self.memory.jobs if prefix and each.startswith(prefix))
        if len(found) > 1 and prefix not in found:
            raise errors.AmbiguousPrefix(f"{prefix!r} is ambiguous: {', '.join(found[:10])}")
        return self.memory.entry(self.get(found[0] if found else prefix))

    def find(self, job_ids: Collection[str]) -> dict[str, values.Entry]:
        jobs = self.memory.jobs
        return {each: self.memory.entry(jobs[each]) for each in job_ids if each in jobs}

    def ids(self, state: State, prefix: str = "") -> Iterator[str]:
        return (job.id for job in self.memory.among(state) if job.id.startswith(prefix))

    def entries(self, state: State, now: datetime, limit: int | None = None) -> list[values.Entry]:
        jobs = sorted(self.memory.among(state), key=lambda job: running_order(job, now))
        if state is not State.PENDING:
            jobs.sort(key=lambda job: self.memory.moves[job.id][1], reverse=True)
        return [self.memory.entry(job) for job in jobs[:limit]]

    def read(self, entry: values.Entry) -> Job | None:
        is_there = str(self.memory.moves[entry.id][0]) == entry.token
        return self.memory.jobs.get(entry.id) if is_there else None

    def counts(self, now: datetime) -> values.Counts:
        times = [job.run_at for job in self.memory.among(State.PENDING)]
        due, later = [at for at in times if at <= now], [at for at in times if at > now]
        by_state = {state: len(self.memory.among(state)) for state in State}
        return values.Counts(by_state, len(due), min(due, default=None), min(later, default=None))

    def ends(self, job_ids: Any, timeout_seconds: float | None, looked: Any = None) -> Any:
        left, began = dict.fromkeys(job_ids), time.monotonic()
        while left:
            with self.memory.lock:
                jobs = [self.get(each) for each in left]
                ended = [job for job in jobs if job.state in FINISHED]
                (looked or len)([self.memory.entry(job) for job in jobs])
                wait = None
                if timeout_seconds is not None:
                    wait = max(0.0, began + timeout_seconds - time.monotonic())
                if not ended and (wait == 0 or not self.memory.lock.wait(wait)):
                    return
            for job in sorted(ended, key=lambda each: each.updated_at):
                del left[job.id]
                yield job

    def retry(self, job_id: str, states: Collection[State], now: datetime) -> Job:
        with self.memory.lock:
            job = self.get(job_id)
            if job.state not in states:
                raise errors.WrongState(f"job {job_id} is {job.state}, not {', '.join(states)}")
            if self.memory.held[job_id]:
                raise errors.WrongState(f"job {job_id} is being changed by somebody else")
            return self.memory.place(without_missing_parents(retried(job, now), self.memory.jobs))

    def cancel(self, job_ids: Sequence[str], slow: Any = None) -> Any:
        memory = self.memory
        with memory.lock:
            states = {each: self.get(each).state for each in job_ids}
            for claim in (memory.claims[each] for each in job_ids if each in memory.claims):
                if (runner := memory.runners.get(claim.worker)) is not None:
                    runner.cancelled.append(claim)
                    runner.bell.held.send(b".")
        for job_id in sorted(job_ids, key=lambda each: states[each] not in WAITING):
            slow_at = time.monotonic() + SLOW_SECONDS
            with memory.lock:
                while (job := memory.jobs.get(job_id)) and job.state is State.PROCESSING:
                    memory.recover(cancelled, only=job_id)
                    memory.lock.wait(0.01)
                    if slow is not None and time.monotonic() >= slow_at:
                        slow(job_id, None)
                        slow = None
                if job is not None and job.state in WAITING:
                    memory.put(job := cancelled(job))
            yield job_id, job and job.state

    # --- for workers ---

    def runner(self, worker: str) -> Any:
        """Return a worker; the only one of the session need not be named."""
        name = worker or "".join(self.names)
        return self.memory.runners.get(name, SimpleNamespace(name=name, bell=None, stop_level=0))

    def register(self, name: str, now: datetime) -> None:
        with self.memory.lock:
            if name in self.memory.names_used or name in self.memory.runners:
                raise errors.NameTaken(f"another worker is called {name}")
            self.names.add(name)
            record = values.WorkerRecord(name, os.getpid(), "here", now, pool=str(id(self)))
            self.memory.runners[name] = SimpleNamespace(
                name=name, record=record, bell=Bell(), cancelled=[], stop_level=0
            )

    def unregister(self, *workers: str) -> None:
        names = {self.runner(each).name for each in workers or ("",)} & self.names
        self.memory.names_used |= names  # what they have counted is theirs
        self.forget(names)

    def forget(self, names: set[str]) -> None:
        for name in names:
            self.memory.runners.pop(name).bell.close()
        self.names -= names

    def claim(self, now: datetime, workers: Sequence[str]) -> list[Any]:
        memory, claims = self.memory, []
        with memory.lock:
            self.arrivals.hear()
            waiting = memory.among(State.PENDING)
            due = [job for job in waiting if job.run_at <= now or put_off_by_clock(job, now) == 0]
            due.sort(key=lambda job: running_order(job, max(now, job.run_at)))
            for job, worker in zip(due, workers, strict=False):
                runner, bell = self.runner(worker), Bell()
                claim = SimpleNamespace(
                    worker=runner.name, job=job, attempt=job.next_attempt, started_at=now,
                    pass_fds=((bell.held.fileno(), 100),), bell=bell, is_left=False,
                )  # fmt: skip
                memory.claims[job.id] = claim
                claims.append(claim)
                memory.put(job._replace(state=State.PROCESSING))
                if runner.bell is not None:
                    runs = {"job": job.id, "attempt": claim.attempt, "since": now}
                    runner.record = runner.record._replace(**runs)
        self.claimed += claims
        return claims

    def begin_settle(self, settlements: Sequence[tuple[Any, Job]]) -> Any:
        memory = self.memory

        def finish() -> None:
            with memory.lock:
                for claim, job in settlements:
                    if claim in memory.claims.values():
                        now, runner = utc_now().timestamp(), self.runner(claim.worker)
                        memory.tally = counted(memory.tally, job.history[-1:], now)
                        memory.put(job, is_over=True)
                        if runner.bell is not None:
                            settled = runner.record.settled + 1
                            runner.record = runner.record._replace(settled=settled)

        held = [claim for claim, _ in settlements if claim.bell.held.fileno() >= 0]
        gone = [each for each in held if each not in memory.claims.values()]
        return SimpleNamespace(gone=gone, left=[], sync=lambda: None, finish=finish)

    def give_back(self, claim: Any, due: datetime | None = None) -> None:
        with self.memory.lock:
            if claim in self.memory.claims.values():
                job: Job = claim.job
                self.memory.put(job._replace(run_at=due or job.run_at), is_over=True)

    def next_due(self) -> datetime | None:
        return min((job.run_at for job in self.memory.among(State.PENDING)), default=None)

    def control_fd(self, worker: str = "") -> int | None:
        bell = self.runner(worker).bell
        return None if bell is None else bell.heard.fileno()

    def cancel_requested(self, claim: Any) -> bool:
        runner = self.runner(claim.worker)
        if runner.bell is not None:
            runner.bell.hear()
        return runner.bell is not None and claim in runner.cancelled

    def stop_level(self, worker: str = "") -> int:
        level: int = self.runner(worker).stop_level
        return level


def running_order(job: Job, now: datetime) -> tuple[Any, ...]:
    """Return what sorts pending jobs as they are listed, and run."""
    if job.run_at <= now:
        return 0, job.priority, job.run_at, job.id
    return 1, job.run_at, job.priority, job.id


def cancelled(job: Job, *attempts: Any) -> Job:
    """Return a job as cancelled, with an attempt that was lost."""
    history = (*job.history, *attempts)
    return job._replace(state=State.CANCELLED, updated_at=utc_now(), history=history)

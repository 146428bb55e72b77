"""A store in memory, as an example of the protocol and for the tests of the contract.

Its sessions are what processes are to other stores. A claim is held by whoever has the write end of
its pipe: the session that claimed it, and the command that inherits it.
"""

import os
import select
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import SimpleNamespace
from typing import Any, NamedTuple

from queuectl.clock import utc_now
from queuectl.config import Settings, read_settings
from queuectl.errors import (
    AmbiguousPrefix,
    CircularWait,
    DuplicateId,
    JobNotFound,
    NameTaken,
    UnknownParent,
    WrongState,
)
from queuectl.job import FINISHED, Job, Outcome, State
from queuectl.policy import find_circle, put_off_by_clock, retried, waits_for
from queuectl.store.tally import counted, in_last_minute
from queuectl.store.values import Counts, Entry, Recovered, RecoveryReport, Tally, WorkerRecord

WAITING = (State.PENDING, State.BLOCKED)


class Pipe:
    """A pipe: readable when somebody has written, and when no write end is open any more."""

    def __init__(self) -> None:
        self.fd, self.write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.reads = 0

    def ring(self) -> None:
        os.write(self.write_fd, b".")

    def is_readable(self) -> bool:
        return bool(select.select([self.fd], [], [], 0)[0])

    def drain(self) -> None:
        if self.is_readable():
            os.read(self.fd, 65536)
            self.reads += 1

    def let_go(self) -> None:
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    def close(self) -> None:
        self.let_go()
        os.close(self.fd)


class Claim:
    """A claimed job, and the pipe that says who still holds it."""

    def __init__(self, worker: str, job: Job, now: datetime) -> None:
        self.worker, self.job, self.attempt, self.started_at = worker, job, job.next_attempt, now
        self.pipe = Pipe()

    @property
    def pass_fds(self) -> tuple[tuple[int, int], ...]:
        return ((self.pipe.write_fd, 100),)


class StopRequest(NamedTuple):
    """A request to stop, unlike all others."""

    number: int
    now: bool


class Memory:
    """What all sessions share: the jobs by their ids, and who does what with them."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.jobs: dict[str, Job] = {}
        self.moves: dict[str, tuple[int, datetime]] = defaultdict(lambda: (0, utc_now()))
        self.under: dict[str, str] = {}  # the parent of each blocked job
        self.claims: dict[str, Claim] = {}
        self.runners: dict[str, Any] = {}  # the registered workers, by their names
        self.names_used: set[str] = set()
        self.arrival_pipes: list[Pipe] = []
        self.stop_pipes: list[Pipe] = []
        self.stops: list[StopRequest] = []
        self.settings: dict[str, Any] = {}
        self.counted = Tally()
        self.held: Counter[str] = Counter()  # finished jobs that no purge deletes now
        self.purged_at = float("-inf")

    def close(self) -> None:
        for claim in self.claims.values():
            claim.pipe.close()

    # --- jobs ---

    def put(self, job: Job, *, is_over: bool = False) -> None:
        """Keep a job in its state; if an attempt is over, free its claim and release others."""
        if is_over and (claim := self.claims.pop(job.id, None)) is not None:
            claim.pipe.close()
            if (runner := self.runners.get(claim.worker)) is not None:
                runner.record = runner.record._replace(job=None, attempt=None)
        self.jobs[job.id], self.moves[job.id] = job, (self.moves[job.id][0] + 1, utc_now())
        for pipe in self.arrival_pipes if job.state is State.PENDING else ():
            pipe.ring()
        if job.state in FINISHED:
            self.release(job.id)
        self.lock.notify_all()

    def place(self, job: Job, under: str | None = None) -> Job:
        """Keep a job as pending, or as blocked by the first parent that it waits for."""
        parent = waits_for(job, lambda each: self.jobs[each].state, under)
        job = job._replace(state=State.PENDING if parent is None else State.BLOCKED)
        self.under[job.id] = parent or ""
        self.put(job)
        return job

    def release(self, parent: str) -> None:
        """Move on what is blocked by a job that has ended."""
        for job in [each for each in self.in_state(State.BLOCKED) if self.under[each.id] == parent]:
            self.place(job, parent)
            under = self.under[job.id]
            if under not in ("", parent) and self.jobs[under].state in FINISHED:
                self.release(under)

    def in_state(self, state: State) -> list[Job]:
        return [job for job in self.jobs.values() if job.state is state]

    def entry(self, job: Job) -> Entry:
        claim, parent = self.claims.get(job.id), self.jobs.get(self.under.get(job.id, ""))
        count, changed_at = self.moves[job.id]
        attempt = None if claim is None else claim.attempt
        entry = Entry(job.id, job.state, attempt=attempt, token=str(count))
        if job.state is State.PENDING:
            return entry._replace(priority=job.priority, run_at=job.run_at)
        if job.state is State.BLOCKED and parent is not None:
            end = parent.state if parent.state in FINISHED else None
            entry = entry._replace(parent=parent.id, parent_state=end)
        return entry._replace(changed_at=changed_at)

    # --- settings and workers ---

    def read(self) -> dict[str, Any]:
        return dict(self.settings)

    def change(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        with self.lock:
            self.settings = change(self.read())

    def live(self) -> list[WorkerRecord]:
        return sorted(each.record for each in self.runners.values())

    def tally(self) -> Tally:
        return self.counted

    def ended_lately(self) -> int:
        return round(in_last_minute(self.counted.recent, utc_now().timestamp()))

    # --- purging ---

    def finished(self, state: State) -> Iterator[Entry]:
        return map(self.entry, self.in_state(state))

    def named_parents(self) -> Any:
        @contextmanager
        def held() -> Iterator[set[str]]:
            with self.lock:
                yield {each for job in self.in_state(State.BLOCKED) for each in job.parents}

        with held() as ids:
            return SimpleNamespace(ids=ids, look=lambda: iter(()), held=held)

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
        yield is_held
        self.held[job_id] -= is_held

    @contextmanager
    def hold_unused(self, ids: Any) -> Iterator[Collection[str]]:
        with self.lock:
            yield ids - self.jobs.keys()

    @contextmanager
    def turn(self, period_seconds: float) -> Iterator[bool]:
        now = utc_now().timestamp()
        is_ours = now - self.purged_at >= period_seconds
        yield is_ours
        self.purged_at = now if is_ours else self.purged_at


class Session:
    """An open store in memory, with the workers and the pool of one process."""

    location, log_directory, set_aside_in, poll_seconds = "memory", "/nonexistent", "", 0.25
    now = staticmethod(utc_now)

    def __init__(self, memory: Memory) -> None:
        self.memory = self.config = self.workers = self.purging = memory
        self.pool = self.queue = self.stop_requests = self
        self.claimed: list[Claim] = []
        self.names: list[str] = []
        self.arrivals, self.stops = Pipe(), Pipe()
        memory.arrival_pipes.append(self.arrivals)
        memory.stop_pipes.append(self.stops)

    def close(self) -> None:
        self._forget(self.names)
        for claim in self.claimed:
            claim.pipe.let_go()
        if self.arrivals in self.memory.arrival_pipes:
            self.memory.arrival_pipes.remove(self.arrivals)
            self.memory.stop_pipes.remove(self.stops)
            self.arrivals.close()
            self.stops.close()

    # --- for people ---

    def nothing(self, *_: object) -> None:
        """Do nothing: nothing is needed, made, set aside or left behind."""

    make = check = prepare = tidy = report_set_aside = nothing

    def settings(self) -> Settings:
        return read_settings(self.memory.settings, "memory")

    def add(self, jobs: Collection[Job], **options: Any) -> list[str]:
        memory, chosen = self.memory, options.get("chosen", ())
        with memory.lock:
            new = {job.id: job for job in jobs if job.id not in memory.jobs or job.id not in chosen}
            for job in jobs:
                if job.id not in new and not options.get("skip_existing"):
                    raise DuplicateId(job.id, memory.jobs[job.id].state)
            for job in new.values():
                for parent in job.parents:
                    if parent not in memory.jobs and parent not in new:
                        raise UnknownParent(job.id, parent)
            if circle := find_circle({job.id: job.parents for job in new.values()}):
                raise CircularWait(circle)
            memory.jobs.update(new)  # before any is placed: they may wait for each other
            for job in new.values():
                memory.place(job)
        if options.get("progress"):
            options["progress"](len(jobs))
        return [job.id for job in jobs]

    def get(self, job_id: str) -> Job:
        if job_id not in self.memory.jobs:
            raise JobNotFound(f"no such job: {job_id}")
        return self.memory.jobs[job_id]

    def resolve(self, prefix: str) -> Entry:
        found = sorted(each for each in self.memory.jobs if prefix and each.startswith(prefix))
        if len(found) > 1 and prefix not in found:
            raise AmbiguousPrefix(f"{prefix!r} is ambiguous: {', '.join(found[:10])}")
        return self.memory.entry(self.get(found[0] if found else prefix))

    def find(self, job_ids: Collection[str]) -> dict[str, Entry]:
        jobs = self.memory.jobs
        return {each: self.memory.entry(jobs[each]) for each in job_ids if each in jobs}

    def ids(self, state: State, prefix: str = "") -> Iterator[str]:
        return (job.id for job in self.memory.in_state(state) if job.id.startswith(prefix))

    def entries(self, state: State, now: datetime, limit: int | None = None) -> list[Entry]:
        def order(job: Job) -> Any:
            if state is not State.PENDING:
                return -self.memory.moves[job.id][1].timestamp()
            return running_order(job, now)

        jobs = sorted(self.memory.in_state(state), key=order)
        return [self.memory.entry(job) for job in jobs[:limit]]

    def read(self, entry: Entry) -> Job | None:
        is_there = str(self.memory.moves[entry.id][0]) == entry.token
        return self.memory.jobs.get(entry.id) if is_there else None

    def counts(self, now: datetime) -> Counts:
        times = [job.run_at for job in self.memory.in_state(State.PENDING)]
        due = [each for each in times if each <= now]
        by_state = {state: len(self.memory.in_state(state)) for state in State}
        next_due = min((each for each in times if each > now), default=None)
        return Counts(by_state, len(due), min(due, default=None), next_due)

    def ends(self, job_ids: Any, timeout_seconds: float | None, looked: Any = None) -> Any:
        left = dict.fromkeys(job_ids)
        while left:
            with self.memory.lock:
                jobs = [self.get(each) for each in left]
                ended = [job for job in jobs if job.state in FINISHED]
                if looked is not None:
                    looked([self.memory.entry(job) for job in jobs])
                if not ended and not self.memory.lock.wait(timeout_seconds):
                    return
            for job in sorted(ended, key=lambda each: each.updated_at):
                del left[job.id]
                yield job

    def retry(self, job_id: str, states: Collection[State], now: datetime) -> Job:
        with self.memory.lock:
            job = self.get(job_id)
            if job.state not in states:
                raise WrongState(f"job {job_id} is {job.state}, not {', '.join(states)}")
            after, after_any = (
                tuple(each for each in ids if each in self.memory.jobs)
                for ids in (job.after, job.after_any)
            )
            return self.memory.place(retried(job, now)._replace(after=after, after_any=after_any))

    def cancel(self, job_ids: Sequence[str], slow: Any = None) -> Any:
        memory = self.memory
        with memory.lock:
            states = {each: self.get(each).state for each in job_ids}
            for claim in (memory.claims[each] for each in job_ids if each in memory.claims):
                if (runner := memory.runners.get(claim.worker)) is not None:
                    runner.cancelled.add(claim)
                    runner.pipe.ring()
        for job_id in sorted(job_ids, key=lambda each: states[each] not in WAITING):
            with memory.lock:
                while (job := memory.jobs.get(job_id)) and job.state is State.PROCESSING:
                    self.recover(cancelled, only=job_id)
                    memory.lock.wait(0.01)
                if job is not None and job.state in WAITING:
                    memory.put(job := cancelled(job))
                yield job_id, job and job.state

    # --- requests to stop ---

    def request(self, *, now: bool) -> StopRequest:
        self.memory.stops.append(StopRequest(len(self.memory.stops), now))
        for runner in self.memory.runners.values():
            runner.stop_level = max(runner.stop_level, 1 + now)
            runner.pipe.ring()
        for pipe in self.memory.stop_pipes:
            pipe.ring()
        return self.memory.stops[-1]

    def last(self) -> StopRequest | None:
        self.stops.drain()
        return self.memory.stops[-1] if self.memory.stops else None

    def fd(self) -> int:
        return self.stops.fd

    # --- for a pool ---

    def reserve(self) -> bool:
        return not self.memory.runners

    def is_in_place(self) -> bool:
        return True

    def recover(self, decide: Any, *, only_lost: bool = False, only: str = "") -> RecoveryReport:
        found, unowned = [], 0
        with self.memory.lock:
            for claim in [*self.memory.claims.values()]:
                if only not in ("", claim.job.id) or not claim.pipe.is_readable():
                    unowned += claim.pipe.write_fd < 0
                    continue
                attempt = claim.job.ended_attempt(
                    claim.attempt, Outcome.LOST, worker=claim.worker,
                    started_at=claim.started_at, finished_at=utc_now(),
                )  # fmt: skip
                found.append(Recovered(decide(claim.job, attempt), claim.attempt, lost=True))
                self.memory.put(found[-1].job, is_over=True)
            return RecoveryReport(found, len(self.memory.claims), unowned)

    def release_blocked(self) -> bool:
        return bool(self.memory.in_state(State.BLOCKED))

    def is_busy(self) -> bool:
        return any(claim in self.claimed for claim in self.memory.claims.values())

    # --- for workers ---

    def name(self, worker: str) -> str:
        return self.names[0] if not worker and len(self.names) == 1 else worker

    def register(self, name: str, now: datetime) -> None:
        with self.memory.lock:
            if name in self.memory.names_used or name in self.memory.runners:
                raise NameTaken(f"another worker is called {name}")
            self.names.append(name)
            record = WorkerRecord(name, os.getpid(), "here", now, pool=str(id(self)))
            self.memory.runners[name] = SimpleNamespace(
                record=record, pipe=Pipe(), cancelled=set(), stop_level=0
            )

    def unregister(self, *workers: str) -> None:
        names = {self.name(each) for each in workers or ("",)}.intersection(self.names)
        self.memory.names_used |= names  # what they have counted is theirs
        self._forget(names)

    def _forget(self, names: Collection[str]) -> None:
        for name in [*names]:
            self.names.remove(name)
            self.memory.runners.pop(name).pipe.close()

    def claim(self, now: datetime, workers: Sequence[str]) -> list[Claim]:
        memory = self.memory
        claims: list[Claim] = []
        with memory.lock:
            self.arrivals.drain()
            waiting = memory.in_state(State.PENDING)
            due = [job for job in waiting if job.run_at <= now or put_off_by_clock(job, now) == 0]
            due.sort(key=lambda job: running_order(job, max(now, job.run_at)))
            for job, worker in zip(due, workers, strict=False):
                name = self.name(worker)
                claims.append(Claim(name, job, now))
                memory.claims[job.id] = claims[-1]
                memory.put(job._replace(state=State.PROCESSING))
                if (runner := memory.runners.get(name)) is not None:
                    runner.record = runner.record._replace(
                        job=job.id, attempt=job.next_attempt, since=now
                    )
        self.claimed += claims
        return claims

    def begin_settle(self, settlements: Sequence[tuple[Any, Job]]) -> Any:
        memory = self.memory
        with memory.lock:
            held = [each for each in settlements if memory.claims.get(each[1].id) is each[0]]
            for _, job in held:
                memory.counted = counted(memory.counted, job.history[-1:], utc_now().timestamp())
                memory.put(job, is_over=True)
        gone = [claim for claim, _ in settlements if claim.pipe.write_fd >= 0]
        return SimpleNamespace(gone=gone, left=[], sync=lambda: None, finish=lambda: None)

    def give_back(self, claim: Any, due: datetime | None = None) -> None:
        with self.memory.lock:
            job: Job = claim.job
            if self.memory.claims.get(job.id) is claim:
                self.memory.put(job._replace(run_at=due or job.run_at), is_over=True)

    def next_due(self) -> datetime | None:
        return min((job.run_at for job in self.memory.in_state(State.PENDING)), default=None)

    def arrivals_fd(self) -> int:
        return self.arrivals.fd

    def arrivals_read(self) -> int:
        return self.arrivals.reads

    def control_fd(self, worker: str = "") -> int | None:
        runner = self.memory.runners.get(self.name(worker))
        return runner and runner.pipe.fd

    def cancel_requested(self, claim: Any) -> bool:
        runner = self.memory.runners.get(claim.worker)
        if runner is not None:
            runner.pipe.drain()
        return runner is not None and claim in runner.cancelled

    def stop_level(self, worker: str = "") -> int:
        runner = self.memory.runners.get(self.name(worker))
        return 0 if runner is None else runner.stop_level


def running_order(job: Job, now: datetime) -> tuple[Any, ...]:
    """Return what sorts pending jobs as they are listed, and run."""
    if job.run_at <= now:
        return 0, job.priority, job.run_at, job.id
    return 1, job.run_at, job.priority, job.id


def cancelled(job: Job, *attempts: Any) -> Job:
    """Return a job as cancelled, with an attempt that was lost."""
    history = (*job.history, *attempts)
    return job._replace(state=State.CANCELLED, updated_at=utc_now(), history=history)

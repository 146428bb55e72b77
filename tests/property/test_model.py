"""A store and a plain dictionary are driven side by side, and must agree after every step."""

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.jobs import NOON, make_job
from tests.property.actors import Actor, Crash, Died, Refused
from tests.property.model import (
    ENDS,
    Jobs,
    Known,
    Model,
    check_lookups,
    known_job,
    observe,
)
from tests.stores import KINDS, make_place

from queuectl.clock import format_instant, later, parse_instant
from queuectl.document import encode_job
from queuectl.job import Job, Outcome, State
from queuectl.store.base import Store
from queuectl.store.listing import Slice
from queuectl.store.names import pending_name

LARGE = bool(os.environ.get("QUEUECTL_TEST_LARGE"))
# An environment variable takes a file that a line is added to for each run, for scripts/soak.
FIGURES = os.environ.get("QUEUECTL_TEST_FIGURES")
EXAMPLES = int(os.environ.get("QUEUECTL_TEST_EXAMPLES", "2000" if LARGE else "80"))
STEPS = 80 if LARGE else 40

PERSON = "person"
POOLED = ("pooled-1", "pooled-2")  # they share what a pool shares
ALONE = "alone"
WORKERS = (*POOLED, ALONE)
CHOSEN = ("ada", "bob", "cyd")
FAILURES = (Outcome.FAILED, Outcome.TIMED_OUT, Outcome.SIGNALLED, Outcome.NOT_FOUND)
OUTCOMES = (Outcome.SUCCEEDED, Outcome.SUCCEEDED, *FAILURES)

picks = st.integers(0, 1000)
crashes = st.none() | st.builds(Crash, st.integers(1, 16), st.booleans())
workers = st.sampled_from(WORKERS)
new_jobs = st.lists(
    st.fixed_dictionaries(
        {
            "priority": st.sampled_from((5, 5, 0, 9)),
            "delay": st.sampled_from((0, 0, 0, 3, 60)),
            "max_retries": st.integers(0, 3),
            "after": st.lists(picks, max_size=2),
            "after_any": st.lists(picks, max_size=1),
        }
    ),
    min_size=1,
    max_size=3,
)


def picked(pick: int, among: Sequence[Any]) -> Any:
    """Return one of some."""
    return among[pick % len(among)]


class StoreMachine(RuleBasedStateMachine):
    """Drive one kind of store through its protocol."""

    kind: ClassVar[str]
    directory: ClassVar[Path]
    figures: ClassVar[dict[str, int]]

    def __init__(self) -> None:
        """Make an empty store, and a model of it."""
        super().__init__()
        self.here = Path(tempfile.mkdtemp(dir=self.directory))
        self.place = make_place(self.kind, self.here)
        self.observer = self.place.open()
        self.pool_store = self.place.open()
        self.pool_store.prepare_pool()
        self.model = Model()
        self.now = NOON
        self.made = 0
        self.started = 0
        self.actors: dict[str, Actor] = {}
        # The claims of each worker: the jobs as they were claimed, the last one last.
        self.claims: dict[str, dict[str, Known]] = {name: {} for name in WORKERS}
        self.current: dict[str, str | None] = {}
        self.settling: dict[str, list[tuple[str, Outcome]]] = {}
        self.settled_at: dict[str, datetime] = {}
        # Commands that hold the job that they run, and those that nobody knows any more.
        self.commands: dict[str, int] = {}
        self.daemons: list[int] = []
        self.died = False
        self.latest: dict[str, datetime] = {}
        # When each worker last found nothing due, and what it saw to be next.
        self.looks: dict[str, tuple[datetime, Place | None]] = {}
        self.tallied = 0
        self.figures["examples"] += 1

    def teardown(self) -> None:
        """Leave nothing behind."""
        for actor in self.actors.values():
            actor.kill()
        for pid in (*self.commands.values(), *self.daemons):
            end_process(pid)
        self.place.close()
        shutil.rmtree(self.here)

    # --- processes ---

    def actor(self, name: str) -> Actor:
        """Return a process, started where it is not there."""
        if name not in self.actors:
            opens: Callable[[], Store] = self.place.open
            if name in POOLED:
                opens = lambda: self.pool_store  # noqa: E731
            self.started += 1
            self.actors[name] = actor = Actor(f"{name}-{self.started}", opens)
            if name in WORKERS:
                actor.tell("start", now=self.now)
                if name in POOLED:
                    self.latest.setdefault("pool", self.now)
        return self.actors[name]

    def tell(
        self, name: str, what: str, *args: Any, crash: Crash | None = None, expect: str = ""
    ) -> Any:
        """Let a process do what the model has done in stages, and return what it returned.

        With what it was refused, if anything, must be ``expect``. Where it has ``died``, the model
        has taken over what it left.
        """
        self.figures["steps"] += 1
        self.died = False
        try:
            answer = self.actor(name).tell(what, *args, now=self.now, crash=crash)
        except Died:
            self.figures["crashes"] += 1
            self.died = True
            self.bury(name)
            self.take_over()
            return None
        refused = answer.error if isinstance(answer, Refused) else ""
        assert refused == expect, answer
        return answer

    def bury(self, name: str) -> None:
        """Note that a process is gone, and with it its claims."""
        del self.actors[name]
        self.settling.pop(name, None)
        self.settled_at.pop(name, None)
        self.current.pop(name, None)
        self.looks.pop(name, None)
        if name in WORKERS:
            self.claims[name].clear()
        if name in POOLED:
            # A supervisor starts another one, which looks at what this one may have had in hand.
            self.actor(name)

    def take_over(self) -> None:
        """Take over into the model what a crash has left."""
        seen = observe(self.observer, self.now)
        unreadable = self.observer.counts(self.now).unreadable
        wrong = self.model.adopt_what_is(seen, unreadable)
        assert not wrong, "\n".join(wrong)
        for job_id in list(self.commands):
            known = self.model.jobs.get(job_id)
            if known is None or known.state is not State.PROCESSING or known.ahead:
                # What it holds is not the job any more.
                self.daemons.append(self.commands.pop(job_id))

    def held(self) -> set[str]:
        """Return the jobs that somebody holds."""
        return set(self.commands).union(*self.claims.values())

    def tick(self) -> None:
        """Let a moment pass."""
        self.now = later(self.now, 0.001)
        self.model.begin()

    # --- what people do ---

    def _new_job(self, job_id: str, spec: dict[str, Any], before: list[Job]) -> Job:
        self.made += 1
        known = sorted(job_id for job_id in self.model.jobs if not job_id.startswith("+"))
        known += [job.id for job in before]
        after = [picked(pick, known) for pick in spec["after"] if known]
        after_any = [picked(pick, known) for pick in spec["after_any"] if known]
        return make_job(
            job_id,
            command=f"run {self.made}",
            priority=spec["priority"],
            created_at=self.now,
            updated_at=self.now,
            run_at=later(self.now, spec["delay"] + len(before) / 1_000_000),
            max_retries=spec["max_retries"],
            after=tuple(dict.fromkeys(after)),
            after_any=tuple(dict.fromkeys(after_any)),
        )

    def _add(self, jobs: list[Job], chosen: list[str], skip: bool, crash: Crash | None) -> None:
        present = [job.id for job in jobs if self.model.exists(job.id)]
        expect = "DuplicateId" if present and not skip else ""
        if not expect:
            self.model.add([known_job(job) for job in jobs if job.id not in present], ())
        answer = self.tell(PERSON, "add", jobs, chosen, skip, crash=crash, expect=expect)
        assert self.died or expect or answer == [job.id for job in jobs]

    @initialize(specs=new_jobs)
    def add_first(self, specs: list[dict[str, Any]]) -> None:
        """Begin with a few jobs."""
        self.add_made(specs, None)

    @rule(specs=new_jobs, crash=crashes)
    def add(self, specs: list[dict[str, Any]], crash: Crash | None) -> None:
        """Add jobs under ids that nobody chose."""
        self.add_made(specs, crash)

    def add_made(self, specs: list[dict[str, Any]], crash: Crash | None) -> None:
        """Add jobs whose ids are made up."""
        self.tick()
        jobs: list[Job] = []
        for spec in specs:
            jobs.append(self._new_job(f"made{self.made}", spec, jobs))
        self._add(jobs, [], False, crash)

    @rule(
        ids=st.lists(st.sampled_from(CHOSEN), min_size=1, max_size=2, unique=True),
        specs=new_jobs,
        skip=st.booleans(),
        crash=crashes,
    )
    def add_chosen(
        self, ids: list[str], specs: list[dict[str, Any]], skip: bool, crash: Crash | None
    ) -> None:
        """Add jobs under ids that somebody chose, which may be taken."""
        self.tick()
        jobs: list[Job] = []
        for job_id, spec in zip(ids, specs, strict=False):
            # One that is there already must not become its own parent.
            job = self._new_job(job_id, spec, jobs)
            parents = (*job.after, *job.after_any)
            if job_id not in parents:
                jobs.append(job)
        self._add(jobs, [job.id for job in jobs], skip, crash)

    @precondition(lambda self: self._named())
    @rule(pick=picks, ended=st.sampled_from((True, True, True, False)), crash=crashes)
    def retry(self, pick: int, ended: bool, crash: Crash | None) -> None:
        """Send a job back, if it has ended."""
        self.tick()
        known = picked(pick, (ended and self.model.in_state(*ENDS)) or self._named())
        allowed = known.state in ENDS and f"+{known.id}" not in self.model.jobs
        if allowed:
            self.model.retry(known, self.now)
        expect = "" if allowed else "WrongState"
        self.tell(PERSON, "retry", known.id, ENDS, crash=crash, expect=expect)

    def _named(self) -> list[Known]:
        return [known for known in self.model.in_state(*State) if not known.dropped]

    @precondition(lambda self: self.made < 6)
    @rule()
    def ask_for_nobody(self) -> None:
        """Ask for what does not exist."""
        self.tick()
        job = make_job("child", after=("nobody",))
        self.tell(PERSON, "add", [job], [], False, expect="UnknownParent")
        self.tell(PERSON, "retry", "nobody", ENDS, expect="JobNotFound")
        self.tell(PERSON, "cancel", ["nobody"], expect="JobNotFound")

    @precondition(lambda self: self.model.in_state(*ENDS))
    @rule(pick=picks, crash=crashes)
    def purge(self, pick: int, crash: Crash | None) -> None:
        """Delete a job that has ended, unless another one waits for it."""
        self.tick()
        known = picked(pick, self.model.in_state(*ENDS))
        kept = known.id in self.model.named_parents()
        if not kept:
            self.model.purge(known.id)
        answer = self.tell(PERSON, "purge", known.id, known.state, crash=crash)
        assert self.died or answer == (not kept)

    @precondition(lambda self: self._can_be_cancelled())
    @rule(some=st.lists(picks, min_size=1, max_size=3), crash=crashes)
    def cancel(self, some: list[int], crash: Crash | None) -> None:
        """Cancel jobs, none of which runs."""
        self.tick()
        among = self._can_be_cancelled()
        self._cancel([picked(pick, among).id.lstrip("+") for pick in some], crash)

    def _cancel(self, some: list[str], crash: Crash | None) -> None:
        ids = list(dict.fromkeys(some))
        for job_id in ids:
            dropped = self.model.jobs.get(f"+{job_id}")
            if dropped is not None and job_id in self.model.jobs:
                self.model.adopt(dropped, self.now)  # it is another one
            self.model.cancel(job_id)
        answer = self.tell(PERSON, "cancel", ids, crash=crash)
        if not self.died:
            assert answer == [(job_id, self.model.jobs[job_id].state) for job_id in ids]

    def _can_be_cancelled(self) -> list[Known]:
        dropped = {known.id[1:] for known in self.model.jobs.values() if known.dropped}
        # Where two that wait have one name, which of them is meant is not said.
        unclear = {each.id for each in self.model.jobs.values() if each.state not in ENDS} & dropped
        torn = {known.id.lstrip("+") for known in self.model.jobs.values() if known.torn}
        return [
            known
            for known in self.model.in_state(State.PENDING, State.BLOCKED, *ENDS)
            if known.id.lstrip("+") not in unclear | torn
        ]

    @precondition(lambda self: self.model.in_state(State.PROCESSING))
    @rule(pick=picks, answer=st.sampled_from((Outcome.CANCELLED, *OUTCOMES, "given back", "died")))
    def cancel_running(self, pick: int, answer: str) -> None:
        """Cancel a job that runs; its worker may end it, be done with it, give it back, or die."""
        self.tick()
        known = picked(pick, self.model.in_state(State.PROCESSING))
        worker = next((name for name in WORKERS if known.id in self.claims[name]), None)
        if f"+{known.id}" in self.model.jobs or (
            worker is not None and any(known.id == each for each, _ in self._settles(worker))
        ):
            return
        person = self.actor(PERSON)
        person.begin("cancel", [known.id], now=self.now)
        self.figures["steps"] += 1
        if worker is None and known.id not in self.commands:
            self.model.cancel_unowned(known, Outcome.LOST)
        elif worker is None:
            # It outlived its worker, and is found by what it holds.
            os.waitpid(self.commands.pop(known.id), 0)
            self.model.cancel_unowned(known, Outcome.CANCELLED)
        else:
            self._answer_cancel(worker, known, answer)
        told = person.answer()
        assert told == [(known.id, self.model.jobs[known.id].state)], told

    def _settles(self, worker: str) -> list[tuple[str, Outcome]]:
        return self.settling.get(worker, [])

    def _answer_cancel(self, worker: str, known: Known, answer: str) -> None:
        """Let a worker do something with a job of its own that somebody waits to be cancelled."""
        actor, claim = self.actor(worker), self.claims[worker][known.id]
        if self.current.get(worker) == known.id:
            assert actor.tell("asked_to_cancel", known.id, now=self.now), "not asked"
        if answer == "died":
            self._end_command(known.id)
            actor.kill()
            self.bury(worker)
            self.model.cancel_unowned(known, Outcome.LOST)
        elif answer == "given back":
            self._end_command(known.id)
            actor.tell("give_back", known.id, now=self.now)
            self._let_go(worker, [known.id], given_back=True)
            self.model.give_back(claim)
            self.model.cancel(known.id)
        else:
            if worker in self.settling:
                self._finish(worker, None)
            outcome = Outcome(answer)
            actor.tell("settle", [(known.id, outcome)], now=self.now)
            self._let_go(worker, [known.id])
            self.model.settle([(claim, outcome)], self.now)
            self.model.cancel(known.id)

    # --- what workers do ---

    @rule(worker=workers, crash=crashes)
    def claim(self, worker: str, crash: Crash | None) -> None:
        """Take the next job."""
        self.claim_next(worker, crash)

    def claim_next(self, worker: str, crash: Crash | None) -> None:
        """Take the next job, which must be the one that comes first."""
        self.tick()
        model = self.model
        # Where the clock was set back, what was due before may be taken still.
        clock = "pool" if worker in POOLED else worker
        latest = self.latest[clock] = max(self.latest.get(clock, self.now), self.now)
        before = dict(model.jobs), model.unreadable
        adopted = []
        for each in model.adoptions(self.now):
            adopted.append(each)
            model.may_set_aside(latest)
            model.may_claim(latest)
            model.may_put_right(self.now)
        model.jobs, model.unreadable = before
        answer = self.tell(worker, "claim", crash=crash)
        if not self.died:
            model.jobs, model.unreadable = self._as_adopted(adopted)
            self._check_claim(worker, answer, latest)

    def _as_adopted(self, adopted: Sequence[tuple[Jobs, int]]) -> tuple[Jobs, int]:
        """Return that of some ways of adopting which the store went; the first for none of them."""
        if len(adopted) == 1:
            return adopted[0]
        seen = {job_id: each.command for job_id, each in observe(self.observer, self.now).items()}
        for jobs, unreadable in adopted:
            if all(known.torn or seen.get(each) == known.command for each, known in jobs.items()):
                return jobs, unreadable
        return adopted[0]

    def _check_claim(self, worker: str, answer: Any, latest: datetime) -> None:
        model = self.model
        self._check_put_right(worker, answer)
        due = [known for known in model.next_due(self.now) if not known.torn]
        winner = None
        if isinstance(answer, tuple):
            job, attempt = answer
            winner = model.jobs.get(job.id)
            assert winner is not None, f"{job.id} is claimed and does not exist"
            assert known_job(job._replace(state=winner.state)) == winner
            assert winner.is_due(latest), f"{job.id} is claimed and not due"
            assert attempt == len(winner.outcomes) + 1
            assert not due or winner.order <= due[0].order, f"{due[0].id} comes before {job.id}"
        else:
            assert not due, f"{due[0].id} is due and not claimed"
            soon = [each.run_at for each in model.jobs.values() if self._comes_due(each)]
            assert not soon or (answer is not None and answer <= min(filter(None, soon)))
        seen = set(self.observer.ids(State.PENDING))
        for known in model.next_due(latest):
            if known.torn and known.id not in seen:
                model.set_aside(known.id)
            elif known.torn and known.is_due(self.now):
                assert winner is not None, f"{known.id} is torn and stays"
                assert winner.order < known.order, f"{known.id} is torn and stays"
        if winner is not None:
            model.claim(winner.id)
            claim = replace(winner, state=State.PROCESSING, attempt=len(winner.outcomes) + 1)
            self.claims[worker][winner.id] = claim
            self.current[worker] = winner.id

    def _check_put_right(self, worker: str, answer: Any) -> None:
        """Check that a clock that was set back puts nothing off, where the worker can know."""
        model, soonest = self.model, place_of(self.model.soonest(self.now))
        seen = observe(self.observer, self.now)
        if isinstance(answer, tuple):
            job, _ = answer
            seen[job.id] = known_job(job._replace(state=State.PENDING))
        told, put_off = model.redated(seen), model.put_off(self.now)
        if told:
            due = [known for known in model.next_due(self.now) if not known.torn]
            assert not due, f"{due[0].id} is due, and others are given another time"
            assert told.keys() == {known.id for known in put_off}
            self.figures["put right"] += 1
        elif answer is None or isinstance(answer, datetime):
            assert not put_off or not self._can_know(worker), f"{put_off[0].id} is put off"
        wrong = model.put_right(told, self.now)
        assert not wrong, "\n".join(wrong)
        if not isinstance(answer, tuple):
            self.looks[worker] = self.now, place_of(model.soonest(self.now))
        elif told:
            self.looks[worker] = self.now, soonest
        elif worker in self.looks:
            at, saw = self.looks[worker]
            self.looks[worker] = min(at, self.now), saw

    def _can_know(self, worker: str) -> bool:
        """Tell whether a worker can know by now that the clock was set back."""
        at, saw = self.looks.get(worker, (self.now, None))
        soonest = self.model.soonest(self.now)
        proves = soonest is not None and soonest.is_put_off(self.now)
        return self.now < later(at, -10) or (proves and place_of(soonest) != saw)

    def _comes_due(self, known: Known) -> bool:
        return (
            known.state is State.PENDING
            and not known.torn
            and known.run_at is not None
            and known.run_at > self.now
        )

    def _let_go(self, worker: str, ids: Sequence[str], *, given_back: bool = False) -> None:
        for job_id in ids:
            del self.claims[worker][job_id]
            if job_id in self.commands:
                self.daemons.append(self.commands.pop(job_id))
            if self.current.get(worker) == job_id or given_back:
                self.current[worker] = None  # it tells that it runs nothing

    def _free(self, worker: str) -> list[str]:
        """Return what a worker holds and is not settling."""
        settling = [job_id for job_id, _ in self._settles(worker)]
        return [job_id for job_id in self.claims[worker] if job_id not in settling]

    def _holders(self) -> list[str]:
        return [worker for worker in WORKERS if self._free(worker)]

    @rule(
        worker=workers,
        ends=st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=4),
        wait=st.sampled_from((0, 70)),
        crash=st.none() | st.builds(Crash, st.integers(6, 10), st.just(False)),
    )
    def work(self, worker: str, ends: list[Outcome], wait: int, crash: Crash | None) -> None:
        """Take and settle some jobs, one after the other; with a wait what failed comes again.

        The crash comes about where a job is recorded and moves on; a supervisor looks after it.
        """
        for number, outcome in enumerate(ends, 1):
            self.now = later(self.now, wait)
            self.claim_next(worker, None)
            job_id = self.current.get(worker)
            if job_id is None or job_id in [each for each, _ in self._settles(worker)]:
                return
            if worker in self.settling:
                self._finish(worker, None)
            self.tick()
            ended = [(job_id, outcome)]
            self._settle(worker, ended, "settle", ended, crash if number == len(ends) else None)
            if self.died:
                self.tick()
                self._recover(PERSON, None)
                return

    def _some_ended(
        self, pick: int, ends: list[tuple[int, Outcome]]
    ) -> tuple[str, list[tuple[str, Outcome]]]:
        worker = picked(pick, self._holders())
        free = self._free(worker)
        chosen = {picked(each, free): outcome for each, outcome in ends}
        return worker, list(chosen.items())

    ends = st.lists(st.tuples(picks, st.sampled_from(OUTCOMES)), min_size=1, max_size=3)

    @precondition(lambda self: any(each not in self.settling for each in self._holders()))
    @rule(pick=picks, ends=ends, crash=crashes)
    def settle(self, pick: int, ends: list[tuple[int, Outcome]], crash: Crash | None) -> None:
        """Settle some of a worker's claims at once."""
        self.tick()
        worker, ended = self._some_ended(pick, ends)
        if worker not in self.settling:
            self._settle(worker, ended, "settle", ended, crash)

    def _settle(
        self,
        worker: str,
        ended: list[tuple[str, Outcome]],
        what: str,
        args: Any,
        crash: Crash | None,
    ) -> None:
        claims = [(self.claims[worker][job_id], outcome) for job_id, outcome in ended]
        self.model.settle(claims, self.settled_at.get(worker, self.now))
        self.tell(worker, what, args, crash=crash)
        if not self.died:
            self._let_go(worker, [job_id for job_id, _ in ended])

    @precondition(lambda self: any(each not in self.settling for each in self._holders()))
    @rule(pick=picks, ends=ends, crash=crashes)
    def begin_settle(self, pick: int, ends: list[tuple[int, Outcome]], crash: Crash | None) -> None:
        """Begin to settle some of a worker's claims, which goes on while others run."""
        self.tick()
        worker, ended = self._some_ended(pick, ends)
        if worker in self.settling:
            return
        self.tell(worker, "begin_settle", ended, crash=crash)
        if not self.died:
            self.settling[worker] = ended
            self.settled_at[worker] = self.now

    @precondition(lambda self: self.settling)
    @rule(pick=picks, crash=crashes)
    def sync(self, pick: int, crash: Crash | None) -> None:
        """Make durable what a worker is settling."""
        self.tick()
        self.tell(picked(pick, sorted(self.settling)), "sync", crash=crash)

    @precondition(lambda self: self.settling)
    @rule(pick=picks, crash=crashes)
    def finish(self, pick: int, crash: Crash | None) -> None:
        """Finish what a worker is settling."""
        self.tick()
        self._finish(picked(pick, sorted(self.settling)), crash)

    def _finish(self, worker: str, crash: Crash | None) -> None:
        ended = self.settling[worker]
        self._settle(worker, ended, "finish", [job_id for job_id, _ in ended], crash)
        self.settling.pop(worker, None)
        self.settled_at.pop(worker, None)

    @precondition(lambda self: self._holders())
    @rule(pick=picks, which=picks, crash=crashes)
    def give_back(self, pick: int, which: int, crash: Crash | None) -> None:
        """Give one of a worker's claims back."""
        self.tick()
        worker = picked(pick, self._holders())
        job_id = picked(which, self._free(worker))
        self._end_command(job_id)
        self.model.give_back(self.claims[worker][job_id])
        self.tell(worker, "give_back", job_id, crash=crash)
        if not self.died:
            self._let_go(worker, [job_id], given_back=True)

    @rule(
        name=st.sampled_from((PERSON, *WORKERS)),
        what=st.sampled_from(("recover", "recover", "release_blocked", "tidy")),
        crash=crashes,
    )
    def look_after(self, name: str, what: str, crash: Crash | None) -> None:
        """Do what a worker does when it starts, and when it is idle."""
        self.tick()
        if what == "recover":
            self._recover(name, crash)
            return
        if what == "release_blocked":
            self.model.release_blocked()
        answer = self.tell(name, what, crash=crash)
        if what == "release_blocked" and not self.died:
            assert answer == bool(self.model.in_state(State.BLOCKED))

    def _recover(self, name: str, crash: Crash | None) -> None:
        held = self.held()
        found = self.model.recover(held, self.now)
        answer = self.tell(name, "recover", crash=crash)
        if not self.died:
            told, running, unowned = answer
            assert {(job_id, attempt): lost for job_id, attempt, lost, _ in told} == found
            assert all(self.model.jobs[each].state == state for each, _, _, state in told)
            assert running == len(held)
            assert unowned >= len(held - {each for own in self.claims.values() for each in own})

    # --- what happens to them ---

    @precondition(lambda self: self.actors)
    @rule(pick=picks)
    def kill(self, pick: int) -> None:
        """Kill a process between two steps; the commands that it runs go on."""
        self.tick()
        name = picked(pick, sorted(self.actors))
        self.actors[name].kill()
        self.bury(name)
        self.figures["crashes"] += 1

    @precondition(lambda self: any(self._idle_claims(worker) for worker in WORKERS))
    @rule(pick=picks)
    def start_command(self, pick: int) -> None:
        """Run the command of a job, which inherits what the claim consists of."""
        self.tick()
        claims = [(worker, job_id) for worker in WORKERS for job_id in self._idle_claims(worker)]
        worker, job_id = picked(pick, claims)
        inherited = self.actors[worker].descriptors(job_id, self.now)
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for fd, number in inherited]
        if not inherited:
            return  # another kind of store keeps its claims in another way
        try:
            self.commands[job_id] = os.posix_spawn(
                "/bin/sleep", ["sleep", "600"], {}, file_actions=actions, setpgroup=0
            )
        finally:
            for fd, _ in inherited:
                os.close(fd)

    def _idle_claims(self, worker: str) -> list[str]:
        return [each for each in self._free(worker) if each not in self.commands]

    @precondition(lambda self: self.commands)
    @rule(pick=picks)
    def end_command(self, pick: int) -> None:
        """Let a command end."""
        self.tick()
        self._end_command(picked(pick, sorted(self.commands)))

    def _end_command(self, job_id: str) -> None:
        if job_id in self.commands:
            end_process(self.commands.pop(job_id))

    @rule(seconds=st.sampled_from((1, 5, 61, 3600, -1, -5, -61, -3600)))
    def jump(self, seconds: int) -> None:
        """Set the clock."""
        self.now = later(self.now, seconds)

    @rule(
        specs=new_jobs,
        seconds=st.sampled_from((5, 61, 61, 3600)),
        worker=workers,
        failures=st.sampled_from((0, 0, 2)),
        claims=st.integers(1, 4),
        crash=crashes,
    )
    def set_back(
        self,
        *,
        specs: list[dict[str, Any]],
        seconds: int,
        worker: str,
        failures: int,
        claims: int,
        crash: Crash | None,
    ) -> None:
        """Set the clock back when jobs have just been added or failed, and take what is due."""
        self.add_made([spec | {"max_retries": 3} if failures else spec for spec in specs], None)
        self.work(worker, [Outcome.FAILED] * failures, 70, None)
        self.jump(-seconds)
        for left in reversed(range(claims)):
            self.claim_next(worker, crash if left == 0 else None)

    # --- what must hold ---

    @invariant()
    def agree(self) -> None:
        """Check that each job is where the model has it, and nowhere else."""
        seen = observe(self.observer, self.now)
        if seen != self.model.jobs:
            ids = sorted(seen.keys() | self.model.jobs.keys())
            wrong = [
                f"{job_id} is\n     {seen.get(job_id)}\n not {self.model.jobs.get(job_id)}"
                for job_id in ids
                if seen.get(job_id) != self.model.jobs.get(job_id)
            ]
            raise AssertionError("\n".join(wrong))
        check_lookups(self.observer, self.model, self.now)
        live = sorted(actor.name for name, actor in self.actors.items() if name in WORKERS)
        assert [record.name for record in self.observer.workers()] == live
        tallied = sum(self.observer.tally().by_outcome.values())
        assert tallied >= self.tallied, "what was counted is lost"
        self.tallied = tallied
        self.figures["most jobs at once"] = max(self.figures["most jobs at once"], len(seen))


Place = tuple[int, datetime, str]


def place_of(known: Known | None) -> Place | None:
    """Return the place of a job in the order, None for no job."""
    return None if known is None else known.order


def end_process(pid: int) -> None:
    """End a process of ours."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


class DirectoryMachine(StoreMachine):
    """Drive a directory store, and change by hand what lies in it."""

    kind = "directory"
    _defaults = Slice.__init__.__defaults__

    @initialize(small=st.booleans())
    def keep_few_names(self, small: bool) -> None:
        """Let what a scan keeps be so little that it is used up, as a million names would."""
        Slice.__init__.__defaults__ = (3, 2) if small else self._defaults

    def teardown(self) -> None:
        """Leave all as it was."""
        Slice.__init__.__defaults__ = self._defaults
        super().teardown()

    def take_over(self) -> None:
        """Take over also what is written in documents whose names say something else."""
        super().take_over()
        for known in self._whole(State.PENDING):
            own_id = known.id.lstrip("+")
            document = json.loads(self._path(known).read_text())
            written_id = document.get("id", own_id)
            self.model.jobs[known.id] = replace(
                known,
                wanted=written_id if known.dropped or written_id != own_id else "",
                document=(document.get("priority", 5), parse_instant(document["run_at"])),
            )

    def _path(self, known: Known) -> Path:
        name = f"{known.id.lstrip('+')}.json"
        if known.state is State.PENDING and known.run_at is not None:
            name = pending_name(known.priority, known.run_at, known.id)
        return self.place.path / known.state / (known.parent or "") / name

    def _waiting_or_ended(self) -> list[Known]:
        return self.model.in_state(State.PENDING, State.BLOCKED, *ENDS)

    def _whole(self, *states: State) -> list[Known]:
        return [known for known in self.model.in_state(*states) if not known.torn]

    @precondition(lambda self: self._can_be_moved())
    @rule(pick=picks, to=st.sampled_from((State.PENDING, State.PENDING, *ENDS)))
    def move_by_hand(self, pick: int, to: State) -> None:
        """Move a job that does not run, as `mv dead/x.json pending/` does."""
        self.tick()
        known = picked(pick, self._can_be_moved())
        if known.state is to and to is not State.PENDING:
            return
        priority, run_at = known.document
        now = replace(known, state=to, parent=None, priority=priority, run_at=run_at)
        if to is State.PENDING:
            now = replace(now, id=f"+{known.id}", wanted=known.id, priority=5, run_at=None)
        os.rename(self._path(known), self._path(now))
        self.model.replace(known.id, now)

    def _can_be_moved(self) -> list[Known]:
        return [
            known
            for known in self._whole(State.PENDING, State.BLOCKED, *ENDS)
            if not known.dropped
            and known.wanted in ("", known.id)
            and f"+{known.id}" not in self.model.jobs
            and all(known.id != each.wanted for each in self.model.jobs.values() if each.dropped)
        ]

    @precondition(lambda self: len(self._waiting_or_ended()) > 3)
    @rule(pick=picks)
    def remove_by_hand(self, pick: int) -> None:
        """Remove a job that does not run."""
        self.tick()
        known = picked(pick, self._waiting_or_ended())
        self._path(known).unlink()
        self.model.replace(known.id, None)

    @precondition(lambda self: self._in_order())
    @rule(pick=picks, priority=st.integers(0, 9), delay=st.sampled_from((-5, 0, 7)))
    def rename_by_hand(self, pick: int, priority: int, delay: int) -> None:
        """Give a job another place in the order: the name decides."""
        self.tick()
        known = picked(pick, self._in_order())
        now = replace(known, priority=priority, run_at=later(self.now, delay))
        os.rename(self._path(known), self._path(now))
        self.model.replace(known.id, now)

    def _in_order(self) -> list[Known]:
        return [known for known in self._whole(State.PENDING) if not known.dropped]

    @precondition(lambda self: self._whole(State.PENDING, State.BLOCKED, *ENDS))
    @rule(pick=picks, how=st.sampled_from(("in place", "by rename", "touch")))
    def edit_by_hand(self, pick: int, how: str) -> None:
        """Edit the command of a job that does not run, or only touch its document."""
        self.tick()
        known = picked(pick, self._whole(State.PENDING, State.BLOCKED, *ENDS))
        if how == "touch":
            self._path(known).touch()
            return
        self.made += 1
        document = json.loads(self._path(known).read_text())
        document["command"] = f"run {self.made}"
        self._write(self._path(known), json.dumps(document), how == "in place")
        self.model.replace(known.id, replace(known, command=document["command"]))

    def _write(self, path: Path, text: str, in_place: bool) -> None:
        written = path if in_place else path.parent / f".{path.name}.swp"
        written.touch(0o600)
        written.write_text(text)
        written.rename(path)

    @rule(
        stem=st.sampled_from((*CHOSEN, "dropped")),
        wanted=st.sampled_from(("", "", *CHOSEN)),
        again=st.none() | picks,
        priority=st.none() | st.integers(0, 9),
        in_place=st.booleans(),
    )
    def drop_by_hand(
        self, stem: str, wanted: str, again: int | None, priority: int | None, in_place: bool
    ) -> None:
        """Drop a file into pending/, as a script does, maybe again under the same name."""
        self.tick()
        ended = self.model.in_state(*ENDS)
        if again is not None and ended:
            stem = picked(again, ended).id
        dropped = [known for known in self.model.jobs.values() if known.dropped]
        wanted = wanted or stem
        others = {known.wanted for known in dropped} | {known.id[1:] for known in dropped}
        if {stem, wanted} & others:
            return  # which one is adopted under the id is not said
        self.made += 1
        document: dict[str, Any] = {"command": f"run {self.made}", "max_retries": 2}
        document["run_at"] = format_instant(NOON)
        if wanted != stem:
            document["id"] = wanted
        if priority is not None:
            document["priority"] = priority
        known = Known(
            id=f"+{stem}",
            state=State.PENDING,
            command=document["command"],
            max_retries=2,
            document=(document.get("priority", 5), NOON),
            wanted=wanted,
        )
        self._write(self._path(known), json.dumps(document), in_place)
        self.model.jobs[known.id] = known

    @precondition(lambda self: any(known.dropped for known in self._can_be_cancelled()))
    @rule(pick=picks, crash=crashes)
    def cancel_dropped(self, pick: int, crash: Crash | None) -> None:
        """Cancel what was dropped, before it is adopted; its name may be an older job's."""
        self.tick()
        known = picked(pick, [each for each in self._can_be_cancelled() if each.dropped])
        self._cancel([known.id[1:]], crash)

    @rule(priority=st.integers(0, 9), delay=st.sampled_from((-5, 0, 7)), other=st.booleans())
    def place_by_hand(self, priority: int, delay: int, other: bool) -> None:
        """Put a document into pending/ under a whole name, which decides."""
        self.tick()
        self.made += 1
        job = make_job(f"placed{self.made}", command=f"run {self.made}")
        known = replace(
            known_job(job),
            priority=priority,
            run_at=later(self.now, delay),
            wanted="another" if other else "",
        )
        text = encode_job(job._replace(id=known.wanted or known.id)).decode()
        self._write(self._path(known), text, False)
        self.model.jobs[known.id] = known

    @precondition(lambda self: self._whole(State.PENDING))
    @rule(pick=picks)
    def tear_by_hand(self, pick: int) -> None:
        """Leave half a document in pending/, long ago."""
        self.tick()
        known = picked(pick, self._whole(State.PENDING))
        path = self._path(known)
        text = path.read_text()
        half = path.parent / ".half"
        half.touch(0o600)
        half.write_text(text[: len(text) // 2])
        long_ago = time.time() - 60
        os.utime(half, (long_ago, long_ago))
        half.rename(path)
        torn = Known(
            id=known.id,
            state=State.PENDING,
            priority=known.priority,
            run_at=known.run_at,
            torn=True,
        )
        self.model.replace(known.id, torn)

    @rule(repair=st.booleans(), crash=crashes)
    def doctor(self, repair: bool, crash: Crash | None) -> None:
        """Examine the store; once it is repaired, nothing is wrong with it."""
        self.tick()
        if repair:
            for known in self.model.in_state(State.PENDING):
                if known.torn and not known.dropped:
                    self.model.set_aside(known.id)
                elif known.wanted and not known.dropped:
                    document = (known.priority, known.run_at)
                    self.model.replace(known.id, replace(known, wanted="", document=document))
            self.model.recover(self.held(), self.now)
            self.model.cancel_orphans()
        self.tell(PERSON, "doctor", repair, crash=crash)
        if repair and not self.died:
            assert self.tell(PERSON, "doctor", False) == []


MACHINES: dict[str, type[StoreMachine]] = {"directory": DirectoryMachine}


# A failure is made smaller for five minutes at most, and that is worth to be seen.
@pytest.mark.timeout(0 if LARGE else 900)
@pytest.mark.parametrize("kind", KINDS)
def test_store_and_model_agree_after_every_step(kind: str, tmp_path: Path) -> None:
    """Whatever people, workers, crashes, clocks and hands do, each job is in its one place."""
    figures = dict.fromkeys(("examples", "steps", "crashes", "put right", "most jobs at once"), 0)

    class Machine(MACHINES.get(kind, StoreMachine)):  # type: ignore[misc]
        pass

    Machine.kind, Machine.directory, Machine.figures = kind, tmp_path, figures
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    if FIGURES:
        with open(FIGURES, "a") as file:
            file.write(json.dumps(figures) + "\n")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[DirectoryMachine]:
    """Return a machine that is told by hand what to do."""

    class Machine(DirectoryMachine):
        kind, directory = "directory", tmp_path
        figures: ClassVar = dict.fromkeys(("examples", "steps", "crashes", "most jobs at once"), 0)

    made = Machine()
    yield made
    made.teardown()


@pytest.mark.parametrize("stem", ["cyd", "dropped"])
@pytest.mark.parametrize("when", ["before the worker", "while it waits"])
def test_whichever_of_two_dropped_files_gets_the_number_that_both_want(
    machine: DirectoryMachine, stem: str, when: str
) -> None:
    """One has got cyd-2 and was not renamed when its adopter died; the other comes to want it."""
    spec = {"priority": 5, "delay": 60, "max_retries": 0, "after": [], "after_any": []}
    machine.add_chosen(["cyd"], [spec], False, None)
    rest = {"again": None, "priority": None, "in_place": False}
    machine.drop_by_hand(stem="bob", wanted="cyd", **rest)
    step = 0
    while machine.model.jobs["+bob"].wanted == "cyd":
        step += 1
        machine.claim(ALONE, Crash(step, False))
        machine.agree()
    assert machine.model.jobs["+bob"].wanted == "cyd-2"
    if when == "while it waits":
        machine.actor(ALONE)  # it is told of the file that comes now, and meets it first
    machine.drop_by_hand(stem=stem, wanted="cyd", **rest)
    for _ in range(2):
        machine.claim(ALONE, None)
        machine.agree()
    found = {known.command: known.state for known in machine.model.jobs.values()}
    assert found == {
        "run 1": State.PENDING, "run 2": State.PROCESSING, "run 3": State.PROCESSING,
    }  # fmt: skip


@pytest.mark.parametrize("worker", [ALONE, POOLED[0]])
def test_job_stays_under_a_parent_that_dies_again_while_another_one_vanishes(
    machine: DirectoryMachine, worker: str
) -> None:
    """A worker knows that all stay there, and another one does not; both do the same."""
    spec = {"priority": 5, "delay": 0, "max_retries": 1, "after": [], "after_any": []}
    machine.add_chosen(["ada", "bob"], [{**spec, "priority": 9}, spec], False, None)
    machine.add_chosen(["cyd"], [{**spec, "after": [0, 1]}], False, None)
    machine.work(ALONE, [Outcome.FAILED, Outcome.SUCCEEDED], 0, None)
    machine.look_after(ALONE, "release_blocked", None)
    for job_id in ("bob", "ada"):
        ended = [known.id for known in machine.model.in_state(*ENDS)]
        machine.retry(ended.index(job_id), True, None)
    machine.tear_by_hand([known.id for known in machine._whole(State.PENDING)].index("ada"))
    machine.work(worker, [Outcome.FAILED], 0, None)
    machine.claim(worker, None)
    machine.agree()
    assert machine.model.jobs["cyd"].parent == "bob"
    assert not machine.model.exists("ada")

"""What people do with a store, as steps of the machine that the model is compared with."""

import os
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    precondition,
    rule,
)
from tests.jobs import make_job
from tests.property.actors import Crash
from tests.property.known import ENDS, Known, known_job
from tests.property.machine import (
    CHOSEN,
    OUTCOMES,
    PERSON,
    WORKERS,
    crashes,
    new_jobs,
    picked,
    picks,
    workers,
)
from tests.property.workers import Workers

from queuectl.clock import later
from queuectl.job import Job, Outcome, State


class StoreMachine(Workers):
    """The steps of one kind of store, by its protocol alone."""

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

"""What workers do with a store, as steps of the machine that the model is compared with."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    precondition,
    rule,
)
from tests.property.actors import Crash
from tests.property.known import Jobs, Known, known_job, place_of
from tests.property.machine import (
    OUTCOMES,
    PERSON,
    POOLED,
    WORKERS,
    Processes,
    crashes,
    picked,
    picks,
    workers,
)
from tests.property.observed import observe

from queuectl.clock import later
from queuectl.job import Outcome, State


class Workers(Processes):
    """Workers that claim, settle, give back and recover."""

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

"""Know, in a plain dictionary, where each job of a queue must be, and what must be known of it.

Nothing here is shared with the program but its words: what a failure leads to, who waits for whom
and which job is next are said once more, so that two have to be wrong in the same way.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import permutations

from tests.property.known import AT_ONCE, ENDS, Jobs, Known, claimed, recorded

from queuectl.job import DEFAULT_PRIORITY, Outcome, State

_IN_A_ROW = timedelta(milliseconds=1)  # what many that are due at once may differ by


class Model:
    """Be a queue.

    Each operation leaves in ``stages`` how things stood between its steps: what a crash may leave
    is, for each job by itself, how it stood at one of them.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self.jobs: Jobs = {}
        self.unreadable = 0
        self._unreadable_before = 0
        self.stages: list[Jobs] = []
        self._puts_right_at: datetime | None = None

    # --- stages ---

    def begin(self) -> None:
        """Begin an operation."""
        self.stages = [dict(self.jobs)]
        self._unreadable_before = self.unreadable
        self._puts_right_at = None

    def _put(self, *jobs: Known) -> None:
        for known in jobs:
            self.jobs[known.id] = known
        self.stages.append(dict(self.jobs))

    def _drop(self, job_id: str) -> None:
        del self.jobs[job_id]
        self.stages.append(dict(self.jobs))

    def adopt_what_is(self, seen: Jobs, unreadable: int) -> list[str]:
        """Take over what an operation that was cut off has left, if it may have left that.

        Returns what is wrong.
        """
        before = self.stages[0]
        wrong = self._put_right_in_part(seen)
        jobs: Jobs = {}
        for job_id in sorted(set(seen).union(*self.stages)):
            may_be = [stage.get(job_id) for stage in self.stages]
            is_now = seen.get(job_id)
            fitting = [each for each in may_be if each == is_now]
            if not fitting:
                allowed = "\n  or ".join(map(str, dict.fromkeys(may_be)))
                wrong.append(f"{job_id} is\n     {is_now}\n  not {allowed}")
            elif fitting[-1] is not None:
                jobs[job_id] = fitting[-1]
        gone = sum(known.torn and job_id not in jobs for job_id, known in before.items())
        commands = {known.command for known in seen.values()}
        for job_id, known in before.items():
            # It may have any of some ids, so that looking at one id after the other misses a loss.
            if known.dropped and not known.torn and known.command not in commands:
                wrong.append(f"{job_id} is lost")
        if unreadable != self._unreadable_before + gone:
            wrong.append(f"{unreadable} are set aside, not {self._unreadable_before} + {gone}")
        self.jobs, self.unreadable = jobs, unreadable
        return wrong

    # --- looking ---

    def exists(self, job_id: str) -> bool:
        """Tell whether there is a job of an id."""
        return job_id in self.jobs or f"+{job_id}" in self.jobs

    def end_of(self, job_id: str) -> State | None:
        """Return how a job has ended, None where it has not."""
        known = self.jobs.get(job_id)
        return known.state if known is not None and known.state in ENDS else None

    def in_state(self, *states: State) -> list[Known]:
        """Return the jobs in some states, by id."""
        return [known for _, known in sorted(self.jobs.items()) if known.state in states]

    def next_due(self, now: datetime) -> list[Known]:
        """Return the jobs that can be claimed, in the order in which they must be."""
        due = [known for known in self.jobs.values() if known.is_due(now) and not known.dropped]
        return sorted(due, key=lambda known: known.order)

    def put_off(self, now: datetime) -> list[Known]:
        """Return the jobs that only a clock that was set back puts off, the soonest first."""
        put_off = [known for known in self.jobs.values() if known.is_put_off(now)]
        return sorted(put_off, key=lambda known: known.run_at or now)

    def soonest(self, now: datetime) -> Known | None:
        """Return the job that becomes due next of those that are not due."""
        waiting = [each for each in self.in_state(State.PENDING) if not each.is_due(now)]
        return min(waiting, key=lambda each: (each.run_at, each.priority, each.filed), default=None)

    def waits_for(self, known: Known, end_of: Callable[[str], State | None]) -> str | None:
        """Return the first for whose end a job has to wait, None if it can run.

        One that waits under a parent stays there until that lets it go.
        """
        end = end_of(known.parent or "")
        if known.parent in known.after and end is not State.COMPLETED:
            return known.parent
        if known.parent in known.after_any and end is None:
            return known.parent
        for parent in known.after:
            if end_of(parent) is not State.COMPLETED:
                return parent
        for parent in known.after_any:
            if end_of(parent) is None:
                return parent
        return None

    def named_parents(self) -> set[str]:
        """Return all that blocked jobs wait for."""
        named: set[str] = set()
        for known in self.in_state(State.BLOCKED):
            named.update(known.after, known.after_any, [known.parent or ""])
        return named

    # --- what people do ---

    def add(self, jobs: Sequence[Known], skip: Collection[str]) -> None:
        """Add new jobs, but for those that exist and are to be skipped."""
        ended = {job_id: self.end_of(job_id) for job_id in self.jobs}
        for known in jobs:
            if known.id not in skip or known.id not in self.jobs:
                self._place(known, ended.get)
                ended[known.id] = None

    def _place(self, known: Known, end_of: Callable[[str], State | None]) -> None:
        """Put a job where it can run, or under the first for whose end it has to wait."""

        def is_first_seen_as(job_id: str) -> State | None:
            # A file of that name that was dropped into pending/ is met before the one that ended.
            return None if f"+{job_id}" in self.jobs else end_of(job_id)

        first = self.waits_for(known, is_first_seen_as)
        under = self.waits_for(known, end_of)
        if first != under:
            self._put(replace(known, state=State.BLOCKED, parent=first))
        state = State.PENDING if under is None else State.BLOCKED
        self._put(replace(known, state=state, parent=under))
        if first is not None and is_first_seen_as(first) is not end_of(first):
            # At the second look, which lets all go on who wait there and whose turn was missed,
            # whether this one stays or not.
            self.release([first])

    def retry(self, known: Known, now: datetime) -> None:
        """Send a job back; it waits no longer for what is gone."""
        known = replace(
            known,
            attempts=0,
            run_at=now,
            document=(known.priority, now),
            after=tuple(filter(self.exists, known.after)),
            after_any=tuple(filter(self.exists, known.after_any)),
        )
        self._put(known)
        self._place(replace(known, state=State.PENDING, written_at=now), self.end_of)

    def cancel(self, job_id: str) -> None:
        """Cancel a job that waits; one that has ended stays as it is."""
        known = self.jobs.get(f"+{job_id}") or self.jobs[job_id]
        if known.state in (State.PENDING, State.BLOCKED):
            self.jobs.pop(known.id)
            now = replace(known, id=job_id, state=State.CANCELLED, parent=None)
            self._put(replace(now, priority=known.document[0], run_at=known.document[1]))
            if not known.dropped:  # else its name says nothing that its document does not
                self._put(replace(now, document=(known.priority, known.run_at)))
        self.release([job_id])

    def purge(self, job_id: str) -> None:
        """Delete a job."""
        self._drop(job_id)

    # --- what workers do ---

    def adoptions(self, now: datetime) -> Iterator[tuple[Jobs, int]]:
        """Give what hands have put there its place, once for each order in which that may be done.

        Which of some that want one id gets it is not promised. A file that was being adopted when
        its adopter died may hold an id with a number already, which one that came later can get.
        Each time the model is left so, and how it is then is yielded.
        """
        before = dict(self.jobs), self.unreadable
        dropped = [known for known in self.in_state(State.PENDING) if known.dropped]
        rivals = [known for known in dropped if any(map(known.is_rival_of, dropped))]
        alone = [known for known in dropped if known not in rivals]
        for order in permutations(rivals):
            self.jobs, self.unreadable = dict(before[0]), before[1]
            for known in (*alone, *order):
                self.adopt(known, now)
            yield dict(self.jobs), self.unreadable

    def adopt(self, known: Known, now: datetime) -> None:
        """Give a job that a hand has put there its place, under an id that is free."""
        del self.jobs[known.id]
        if known.torn:
            self.unreadable += 1
            self.stages.append(dict(self.jobs))
            return
        job_id, number = known.wanted, 1
        while self.exists(job_id):
            number += 1
            job_id = f"{known.wanted}-{number}"
        known = replace(known, id=job_id, priority=DEFAULT_PRIORITY, run_at=now, wanted="")
        self._put(replace(known, written_at=now, document=(known.priority, now)))

    def redated(self, seen: Jobs) -> dict[str, datetime]:
        """Return the new due times of the jobs that wait at another one than they should."""
        told = {}
        for known in self.in_state(State.PENDING):
            is_now = seen.get(known.id)
            if (
                is_now is not None
                and is_now.state is State.PENDING
                and is_now.run_at is not None
                and is_now.run_at != known.run_at
            ):
                told[known.id] = is_now.run_at
        return told

    def put_right(
        self, told: dict[str, datetime], now: datetime, gone: Collection[str] = ()
    ) -> list[str]:
        """Take over the due times that jobs were given since the clock was set back.

        Those that are ``gone`` from where they waited have told nothing.
        Returns what is wrong: one that is touched and should not be, one that is passed over, or a
        new due time that makes it wait longer than it was to, or overtake another one.
        """
        put_off = self.put_off(now)
        wrong = [f"{each} is touched" for each in told.keys() - {each.id for each in put_off}]
        before: Known | None = None
        passed_over: Known | None = None
        for known in put_off:
            assert known.waits is not None
            due = told.get(known.id)
            if due is None:
                if known.id not in gone:
                    passed_over = passed_over or known
                continue
            if passed_over is not None and passed_over.run_at != known.run_at:
                wrong.append(f"{passed_over.id} is passed over")
            if known.waits > AT_ONCE:
                if due != now + known.waits:
                    wrong.append(f"{known.id} is due at {due}, not {known.waits} after {now}")
                continue
            if not now - _IN_A_ROW <= due < now:
                wrong.append(f"{known.id} is due at {due}, not just before {now}")
            if before is not None and before.run_at != known.run_at and told[before.id] >= due:
                wrong.append(f"{known.id} overtakes {before.id}")
            before = known
        for job_id, due in told.items():
            self._put(replace(self.jobs[job_id], run_at=due))
        return wrong

    def may_put_right(self, now: datetime) -> None:
        """Let the jobs that only the clock puts off be given other due times, and be claimed."""
        if not any(not known.torn for known in self.next_due(now)):
            self._puts_right_at = now
            for known in self.put_off(now):
                if known.waits is not None and known.waits <= AT_ONCE:
                    self.stages.append(self.jobs | {known.id: claimed(known)})

    def _put_right_in_part(self, seen: Jobs) -> list[str]:
        now = self._puts_right_at
        if now is None:
            return []
        gone = {each for each in self.jobs if each not in seen or seen[each].state != State.PENDING}
        return self.put_right(self.redated(seen), now, gone)

    def may_set_aside(self, now: datetime) -> None:
        """Let the jobs that are torn be set aside as far as they can be met."""
        for known in self.next_due(now):
            if known.torn:
                stage = dict(self.jobs)
                del stage[known.id]
                self.stages.append(stage)

    def may_claim(self, now: datetime) -> None:
        """Let each of the jobs that can be claimed be claimed."""
        for known in self.next_due(now):
            if not known.torn:
                self.stages.append(self.jobs | {known.id: claimed(known)})

    def claim(self, job_id: str) -> None:
        """Let a job run."""
        self._put(claimed(self.jobs[job_id]))

    def set_aside(self, job_id: str) -> None:
        """Take away what cannot be read."""
        self.unreadable += 1
        self._drop(job_id)

    def settle(self, ended: Iterable[tuple[Known, Outcome]], now: datetime) -> None:
        """Record how attempts ended, each of a job as it was claimed, and move them on."""
        done = [recorded(known, outcome, now) for known, outcome in ended]
        for known in done:
            self._put(known)
        for known in done:
            self._move_on(known)
        self.release([known.id for known in done])

    def _move_on(self, known: Known) -> None:
        self._put(replace(known, state=known.then, attempt=None))

    def give_back(self, known: Known) -> None:
        """Put a job back as it was claimed."""
        self._put(replace(known, state=State.PENDING, attempt=None))

    def recover(self, held: Collection[str], now: datetime) -> dict[tuple[str, int], bool]:
        """Settle what runs and nobody holds; return what that is, and whether it was lost."""
        found = {}
        for known in self.in_state(State.PROCESSING):
            if known.id not in held:
                assert known.attempt is not None
                found[known.id, known.attempt] = not known.ahead
                self.settle_unowned(known, Outcome.LOST, now)
        self.release([job_id for job_id, _ in found])
        return found

    def settle_unowned(self, known: Known, outcome: Outcome, now: datetime) -> None:
        """Move a job on that nobody holds, with an outcome where none is recorded."""
        if not known.ahead:
            known = recorded(known, outcome, now)
            self._put(known)
        self._move_on(known)

    def cancel_unowned(self, known: Known, outcome: Outcome) -> None:
        """Cancel a job that nobody holds, or whose command was ended; that does not count."""
        if not known.ahead:
            known = replace(known, outcomes=(*known.outcomes, outcome), then=State.CANCELLED)
            self._put(known)
        self._move_on(known)
        self.cancel(known.id)

    def cancel_orphans(self) -> None:
        """Cancel what waits for a job that is gone."""
        for known in self.in_state(State.BLOCKED):
            if not self.exists(known.parent or ""):
                self._put(replace(known, state=State.CANCELLED, parent=None))

    def replace(self, old: str, known: Known | None) -> None:
        """Take note of what a hand has made of a job."""
        del self.jobs[old]
        if known is not None:
            self.jobs[known.id] = known

    def release(self, ended: Iterable[str]) -> None:
        """Let those go on that wait for jobs that have ended."""
        for parent in ended:
            if self.end_of(parent) is None:
                continue
            for known in self.in_state(State.BLOCKED):
                if known.parent == parent:
                    under = self.waits_for(known, self.end_of)
                    state = State.PENDING if under is None else State.BLOCKED
                    self._put(replace(known, state=state, parent=under))

    def release_blocked(self) -> None:
        """Let those go on whose parents' ends were missed."""
        self.release(sorted({each.parent or "" for each in self.in_state(State.BLOCKED)}))

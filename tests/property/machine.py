"""The processes that use a store, the model beside it, and what must hold after each step."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)
from tests.jobs import NOON
from tests.property.actors import Actor, Crash, Died, Refused
from tests.property.known import Known, Place
from tests.property.model import Model
from tests.property.observed import check_lookups, observe
from tests.stores import make_place

from queuectl.clock import later
from queuectl.job import Outcome, State
from queuectl.store.protocol import Store

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


def end_process(pid: int) -> None:
    """End a process of ours."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


class Processes(RuleBasedStateMachine):
    """Processes that use one kind of store: they start, die, and hold jobs."""

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
        self.pool_store.pool.prepare()
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

    # --- what workers hold ---

    def _settles(self, worker: str) -> list[tuple[str, Outcome]]:
        return self.settling.get(worker, [])

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
        assert [record.name for record in self.observer.workers.live()] == live
        tallied = sum(self.observer.workers.tally().by_outcome.values())
        assert tallied >= self.tallied, "what was counted is lost"
        self.tallied = tallied
        self.figures["most jobs at once"] = max(self.figures["most jobs at once"], len(seen))

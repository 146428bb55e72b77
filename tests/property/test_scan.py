"""Whatever arrives and becomes due, the next name is the first one that is due."""

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.jobs import NOON

from queuectl.clock import later
from queuectl.store.names import due_text, pending_due, pending_name
from queuectl.store.scan import PendingScan

MOST_DUE, MOST_LATER = 3, 2


class TwoWorkers(RuleBasedStateMachine):
    """Two processes that take names while others put some into the directory."""

    def __init__(self) -> None:
        """Start with an empty directory."""
        super().__init__()
        self._made = tempfile.TemporaryDirectory()
        self.directory = Path(self._made.name)
        self.workers = [self._new_worker(), self._new_worker()]
        self.waiting: set[str] = set()
        self.unread: tuple[list[str], list[str]] = ([], [])  # by each worker
        self.seconds = 0
        self.count = 0

    def _new_worker(self) -> PendingScan:
        path = self.directory
        store = SimpleNamespace(reopen=lambda _: os.open(path, os.O_RDONLY | os.O_DIRECTORY))
        return PendingScan(cast("Any", store), MOST_DUE, MOST_LATER)

    @property
    def now(self) -> str:
        """Return this instant, as a name holds it."""
        return due_text(later(NOON, self.seconds))

    def _put(self, priority: int, seconds: int) -> str:
        self.count += 1
        at = later(NOON, self.seconds + seconds)
        name = pending_name(priority, at, f"j{self.count:03}")
        (self.directory / name).touch()
        self.waiting.add(name)
        return name

    @initialize(jobs=st.lists(st.tuples(st.integers(0, 9), st.integers(-5, 9)), max_size=20))
    def backlog(self, jobs: list[tuple[int, int]]) -> None:
        """Put in what is there before the workers start."""
        for job in jobs:
            self._put(*job)

    @rule(priority=st.integers(0, 9), seconds=st.integers(-5, 9))
    def arrive(self, priority: int, seconds: int) -> None:
        """Put in a job, which the kernel tells to both workers."""
        name = self._put(priority, seconds)
        for worker in self.workers:
            worker.arrived(name, self.now)

    @rule(
        jobs=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=4, max_size=12),
        are_due=st.booleans(),
        which=st.integers(0, 1),
    )
    def burst(self, jobs: list[tuple[int, int]], are_due: bool, which: int) -> None:
        """Put in more jobs than a worker holds, which one of them reads before the other."""
        for priority, seconds in jobs:
            name = self._put(priority, -seconds if are_due else seconds)
            self.workers[which].arrived(name, self.now)
            self.unread[1 - which].append(name)

    @rule(priority=st.integers(0, 9), seconds=st.integers(-5, 9))
    def arrive_untold(self, priority: int, seconds: int) -> None:
        """Put in a job, which the kernel could not report."""
        self._put(priority, seconds)
        for worker in self.workers:
            worker.invalidate()

    @rule(seconds=st.integers(1, 9))
    def pass_time(self, seconds: int) -> None:
        """Let time go on."""
        self.seconds += seconds

    @rule(which=st.integers(0, 1))
    def replace_worker(self, which: int) -> None:
        """Let a worker die with names in its hands, and another one take its place."""
        self.workers[which].take(self.now, 2)
        self.workers[which] = self._new_worker()
        self.unread[which].clear()

    @rule(which=st.integers(0, 1), most=st.integers(1, 5))
    def claim(self, which: int, most: int) -> None:
        """Claim: the names are the first of those that are due, in order, and are gone then."""
        for name in self.unread[which]:
            self.workers[which].arrived(name, self.now)
        self.unread[which].clear()
        while most > 0:
            names = self.workers[which].take(self.now, most)
            if not names:
                assert not any(pending_due(each) <= self.now for each in self.waiting)
                self._check_next_due(which)
                return
            for name in names:
                if name in self.waiting:  # else another worker has claimed it
                    due = [each for each in self.waiting if pending_due(each) <= self.now]
                    assert name == min(due)
                    self.waiting.remove(name)
                    (self.directory / name).unlink()
                    most -= 1

    def _check_next_due(self, which: int) -> None:
        """Check that a worker that found nothing wakes in time, and not before."""
        due = self.workers[which].next_due()
        first = min(map(pending_due, self.waiting), default=None)
        if first is not None:
            assert due is not None
            assert due_text(due) <= first
        if due is not None:
            assert due_text(due) > self.now

    @invariant()
    def workers_hold_few(self) -> None:
        """Bound what a worker holds, however many have arrived."""
        for worker in self.workers:
            assert len(list(worker._due)) < 2 * MOST_DUE
            assert len(list(worker._later)) < 2 * MOST_LATER

    @invariant()
    def directory_is_what_waits(self) -> None:
        """Hold the model to the directory."""
        assert set(os.listdir(self.directory)) == self.waiting

    def teardown(self) -> None:
        """Free what was made."""
        self._made.cleanup()


TestTwoWorkers = TwoWorkers.TestCase
TestTwoWorkers.settings = settings(deadline=None, stateful_step_count=30, max_examples=150)

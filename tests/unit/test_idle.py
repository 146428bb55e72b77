"""What workers that find no job do: once for all of a process, and not for each arrival."""

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest

from queuectl.clock import utc_now
from queuectl.config import Settings
from queuectl.nonblocking import NonBlockingWriter
from queuectl.store.values import RecoveryReport
from queuectl.worker import process as process_module
from queuectl.worker.events import EventLog, ReportedProblems
from queuectl.worker.housekeeping import Housekeeping
from queuectl.worker.process import WorkerProcess

NAMES = [f"w-{number}" for number in range(16)]


class NoJobs:
    """A store in which jobs arrive that others take; it counts what is asked of it."""

    location, log_directory = "/nowhere", "/nowhere/logs"
    poll_seconds = 0.25
    now = staticmethod(utc_now)

    def __init__(self) -> None:
        """Begin with nothing asked; its parts are all this one."""
        self.pool = self.queue = self.purging = self
        self.calls: dict[str, int] = {}
        self.report = RecoveryReport()
        self.is_running = False
        self.has_blocked = False
        self.at_claim: Callable[[], object] = lambda: None
        self.arrivals = os.pipe()
        for fd in self.arrivals:
            os.set_blocking(fd, False)

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Count a call, and do nothing."""
        return lambda *_, **__: self.count(name)

    def count(self, name: str) -> None:
        """Count a call."""
        self.calls[name] = self.calls.get(name, 0) + 1

    def settings(self) -> Settings:
        """Return the defaults."""
        return Settings()

    def arrive(self) -> None:
        """Let a job arrive."""
        os.write(self.arrivals[1], b".")

    def claim(self, _now: object, workers: Sequence[str]) -> list[Any]:
        """Hear of what has arrived; somebody else has taken it."""
        self.count("claim")
        assert len(workers) == len(NAMES)
        with suppress(BlockingIOError):
            os.read(self.arrivals[0], 1)
        self.at_claim()
        return []

    def arrivals_fd(self) -> int:
        """Return what is readable when a job has arrived."""
        return self.arrivals[0]

    def arrivals_read(self) -> int:
        """Return what changes with each claim."""
        return self.calls.get("claim", 0)

    def recover(self, _decide: object, **_: object) -> RecoveryReport:
        """Return what the test wants."""
        self.count("recover")
        return self.report

    def is_busy(self) -> bool:
        """Return what the test wants."""
        self.count("is_busy")
        return self.is_running

    def release_blocked(self) -> bool:
        """Return what the test wants."""
        self.count("release_blocked")
        return self.has_blocked


@pytest.fixture
def store() -> Iterator[NoJobs]:
    """Return a store without jobs."""
    store = NoJobs()
    yield store
    for fd in store.arrivals:
        os.close(fd)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the seconds of a clock that stands still."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def make(
    store: NoJobs, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[bool], WorkerProcess]]:
    """Return what makes a process of sixteen workers that hears no signals."""
    monkeypatch.chdir("/")  # where a process with nothing to do goes
    fds = os.pipe()
    here = os.pipe()
    signals = SimpleNamespace(
        fd=fds[0],
        level=0,
        should_stop=False,
        is_paused=False,
        drain=lambda: None,
        wake=lambda: None,
        request=lambda _: None,
    )
    monkeypatch.setattr(process_module, "StopSignals", lambda: signals)

    def make(drain: bool) -> WorkerProcess:
        return WorkerProcess(
            cast("Any", store),
            NAMES,
            NonBlockingWriter(2),
            drain=drain,
            quiet=True,
            supervisor_fd=here[0],
            ready_fd=-1,
        )

    yield make
    for fd in (*fds, *here):
        os.close(fd)


def work(process: WorkerProcess) -> None:
    """Let the workers of a process work."""
    process._loop.run([each.run() for each in process._workers])


def test_each_job_that_somebody_else_takes_costs_a_process_one_claim_and_no_recovery(
    store: NoJobs, make: Callable[[bool], WorkerProcess]
) -> None:
    """However many workers it wakes: the supervisor looks for lost jobs."""
    process = make(False)

    def go_on() -> None:
        if store.calls["claim"] == 10:
            cast("Any", process._signals).should_stop = True
        store.arrive()

    store.at_claim = go_on
    store.report = RecoveryReport(running=100)
    work(process)
    assert store.calls["claim"] == 10
    assert "recover" not in store.calls
    assert store.calls["next_due"] <= 10
    assert "release_blocked" not in store.calls


@pytest.mark.usefixtures("clock")
def test_workers_that_drain_look_once_together_whether_anything_runs(
    store: NoJobs, make: Callable[[bool], WorkerProcess]
) -> None:
    """A claim after that decides; what waits for a job that has ended is let go on before it."""
    work(make(True))
    asked = {name: store.calls[name] for name in ("is_busy", "release_blocked", "recover")}
    assert asked == {"is_busy": 1, "release_blocked": 1, "recover": 1}
    assert store.calls["claim"] == 2


def keep_house(store: NoJobs) -> Housekeeping:
    """Return what a supervisor does, with nothing done yet."""
    log = EventLog("supervisor", NonBlockingWriter(2), quiet=True)
    return Housekeeping(cast("Any", store), log, ReportedProblems(log))


def test_supervisor_looks_every_five_seconds_and_each_second_while_a_job_has_no_worker(
    store: NoJobs, clock: list[float]
) -> None:
    """It does so for all of its workers, whether they are busy or not."""
    housekeeping = keep_house(store)
    for looks, report in ((1, RecoveryReport(running=9)), (2, RecoveryReport(unowned=1))):
        store.report = report
        housekeeping.run_due()
        housekeeping.run_due()
        assert store.calls["recover"] == looks
        clock[0] += housekeeping.pause_seconds()
    assert clock[0] == 1006.0
    assert store.calls["tidy"] == 1


def test_supervisor_looks_for_what_is_blocked_in_vain(store: NoJobs, clock: list[float]) -> None:
    """Every ten seconds where any is blocked, else once a minute."""
    housekeeping = keep_house(store)
    housekeeping._recover_at = math.inf
    housekeeping.run_due()
    assert housekeeping.pause_seconds() == 60.0
    clock[0] += 60.0
    store.has_blocked = True
    housekeeping.run_due()
    assert (store.calls["release_blocked"], housekeeping.pause_seconds()) == (2, 10.0)

"""Whatever happens at any call of a command, no job is lost, and nobody has to help."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.conftest import FAULT
from tests.crash.scenarios import Found, Snapshot
from tests.directory.damages import jobs_in
from tests.jobs import decide, drain
from tests.process.support import Answer, Queue, until
from tests.program import QUEUECTL
from tests.strace.commands import CANCEL, COMMANDS, REPAIR, Command, census
from tests.strace.tracing import LARGE, NEEDS_STRACE, Fault, Run, injection, run_traced, some

from queuectl.clock import utc_now
from queuectl.errors import QueuectlError
from queuectl.store import open_store
from queuectl.store.doctor import examine

pytestmark = [NEEDS_STRACE, pytest.mark.timeout(7200 if LARGE else 180)]

# What the doctor calls what a crash leaves; a worker or --repair sees to it.
LEFTOVERS = {
    "missing directory",
    "bad format",
    "wrong document",
    "attempt of nobody",
    "ended attempt that did not move on",
    "record of a worker that is gone",
}
IO_CODES = {69, 74}
Record = Callable[[str, object], None]


def copy(source: str, target: str) -> None:
    """Copy a file with its times, a FIFO included."""
    if Path(source).is_fifo():
        os.mkfifo(target, 0o600)
    else:
        shutil.copy2(source, target)


def seen(queue: Queue) -> set[str]:
    """Return what the doctor finds, looking only."""
    return {each.what for each in examine(str(queue.store), repair=False)}


class Spoilt(NamedTuple):
    """Hold what a fault has led to."""

    queue: Queue
    answer: Answer
    fault: Fault


class Bench:
    """Run one command as often as is wanted, each time on the same jobs."""

    def __init__(self, directory: Path, command: Command) -> None:
        self._directory = directory
        self._command = command
        self._numbers = count(1)
        command.lay_out(directory / "template")

    def queue(self) -> Queue:
        """Return a queue with the jobs laid out."""
        directory = self._directory / str(next(self._numbers))
        directory.mkdir()
        queue = Queue(directory)
        queue.env["PYTHONDONTWRITEBYTECODE"] = "1"  # or a second run makes other calls
        if (self._directory / "template").exists():
            shutil.copytree(self._directory / "template", queue.store, copy_function=copy)
        return queue

    def run(self, queue: Queue, *inject: str) -> Run:
        """Run the command, one of its calls spoilt where that is asked for."""
        return run_traced(
            (*QUEUECTL, *self._command.words),
            store=queue.store,
            env=queue.env,
            cwd=queue.here,
            stdin=self._command.stdin,
            inject=inject,
        )

    def spoil(self, undisturbed: Run, turn: int, check: Callable[["Spoilt"], None]) -> list[Fault]:
        """Spoil one call after the other, and check what comes of each; return the faults."""
        faults = some(undisturbed.calls, turn)
        problems: list[Exception] = []
        for call, fault in faults:
            queue = self.queue()
            spoilt = self.run(queue, *injection(call, fault))
            assert spoilt.hit, f"{call} was not made"
            try:
                check(Spoilt(queue, spoilt.answer, fault))
            except (AssertionError, QueuectlError) as error:
                error.add_note(f"{fault} at {call}: {spoilt.hit}{spoilt.answer}")
                problems.append(error)
            else:
                shutil.rmtree(queue.store.parent)
        if problems:
            raise ExceptionGroup("not all is well", problems)
        return [fault for _, fault in faults]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_call_of_a_command(tmp_path: Path, command: Command, record_property: Record) -> None:
    """Killed before or after a call, or refused it: each job is whole, and the next one goes on."""
    bench = Bench(tmp_path, command)
    queue = bench.queue()
    before = census(queue.store)
    run = bench.run(queue)
    assert run.answer.exit_code == 0, run.answer
    assert len(run.calls) > 5
    check = partial(check_command, command, before, census(queue.store))
    for fault in bench.spoil(run, COMMANDS.index(command), check):
        record_property(FAULT, fault.value)


def test_every_call_of_a_repair(tmp_path: Path, record_property: Record) -> None:
    """A repair that is cut off or refused something loses nothing, and the next one does it."""
    bench = Bench(tmp_path, REPAIR)
    queue = bench.queue()
    kept, damage = jobs_in(queue.store), seen(queue)
    run = bench.run(queue)
    assert run.answer.exit_code == 0, run.answer
    assert len(damage) > 10
    for fault in bench.spoil(run, len(COMMANDS), partial(check_repair, kept, damage)):
        record_property(FAULT, fault.value)


def test_every_call_of_a_cancel(tmp_path: Path, record_property: Record) -> None:
    """A cancel of a job that runs is cut off or refused something: it runs on, or is cancelled."""
    bench = RunningBench(tmp_path, CANCEL)
    queue = bench.queue()
    run = bench.run(queue)
    assert run.answer == Answer(0, "a\n", "")
    queue.close()
    for fault in bench.spoil(run, len(COMMANDS) + 1, check_cancel):
        record_property(FAULT, fault.value)


class RunningBench(Bench):
    """Run a command beside a worker that runs a job."""

    def queue(self) -> Queue:
        """Return a queue with a job that runs until it is ended."""
        queue = super().queue()
        queue.enqueue("sleep 60", "a")
        queue.pool("--quiet")
        until(lambda: [each["job"] for each in queue.records()] == ["a"], "the job runs")
        return queue


def check_cancel(spoilt: Spoilt) -> None:
    """Check that a job that runs runs on or is cancelled, and can be cancelled once more."""
    queue, answer, fault = spoilt
    (pool,) = queue.pools
    check_told(answer, fault)
    if answer.exit_code == 0 or answer.stdout:
        assert queue.ids("cancelled") == ["a"]
    assert seen(queue) == set()
    assert queue("cancel", "a") == Answer(0, "a\n", "")
    (found,) = census(queue.store).values()
    assert found == Found("cancelled", ("cancelled",))
    assert pool.stop() == 0
    assert pool.talk() == ""
    queue.close()
    assert seen(queue) == set()


def check_told(answer: Answer, fault: Fault) -> None:
    """Check that an error is told in one clear line, with its exit code."""
    if fault.kills:
        assert answer.exit_code == -9
        return
    assert "Traceback" not in answer.stderr
    if answer.exit_code != 0:
        # A file that may not be opened is taken for somebody else's.
        assert answer.exit_code in (IO_CODES | {78} if fault is Fault.EACCES else IO_CODES)
        lines = answer.stderr.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("Error: ")


def check_command(command: Command, before: Snapshot, after: Snapshot, spoilt: Spoilt) -> None:
    """Check what a spoilt command has left, and that the next ones need no help."""
    queue, answer, fault = spoilt
    check_told(answer, fault)
    found = census(queue.store)
    for each in {*before, *after, *found}:
        allowed = {before.get(each), after.get(each)} | command.between.get(each, set())
        assert found.get(each) in allowed, each
    if answer.exit_code == 0:
        assert found == after, "it was not done, and not told"
    elif command.words[0] == "enqueue":
        if answer.stdout or "are in the queue" in answer.stderr:
            assert found == after, "what was acknowledged is not there"
        elif not fault.kills:
            assert found == before, "it was told that nothing is enqueued"
    assert seen(queue) <= LEFTOVERS
    if answer.exit_code != 0 and not fault.kills and found != after:
        again = queue(*command.words, stdin=command.stdin)
        assert again.exit_code in command.again, again
    check_recovers(queue, run_worker if fault.kills else drain_here)


def run_worker(queue: Queue) -> None:
    """Let a worker do all that there is to do; it has nothing to complain of."""
    assert queue.drain("--quiet") == ""


def drain_here(queue: Queue) -> None:
    """Do what a worker does, in this process, which is quicker."""
    store = open_store(str(queue.store), create=True)
    store.pool.recover(decide)
    store.pool.release_blocked()
    drain(store, utc_now())
    store.close()


def check_recovers(queue: Queue, work: Callable[[Queue], None]) -> None:
    """Check that a worker brings all jobs to an end, and that the store is clean then."""
    found = census(queue.store)
    work(queue)
    end = census(queue.store)
    assert end.keys() == found.keys()
    for command, job in found.items():
        left = end[command]
        assert left.outcomes[: len(job.outcomes)] == job.outcomes
        if job.where == "pending":
            assert (left.where, left.outcomes[-1]) == ("completed", "succeeded")
        if job.where in ("completed", "dead", "cancelled"):
            assert left == job
    assert "processing" not in {job.where for job in end.values()}
    assert all(each.repaired for each in examine(str(queue.store), repair=True))
    assert seen(queue) == set()


def check_repair(kept: set[bytes], damage: set[str], spoilt: Spoilt) -> None:
    """Check what a repair that was spoilt has left, and that the next one does the rest."""
    queue, answer, fault = spoilt
    check_told(answer, fault)
    assert kept <= jobs_in(queue.store)
    assert seen(queue) <= damage | LEFTOVERS
    if answer.exit_code == 0:
        assert seen(queue) == set()
    again = queue("doctor", "--repair")
    assert again.exit_code == 0, again
    assert kept <= jobs_in(queue.store)
    assert seen(queue) == set()
    if fault.kills:
        queue.drain("--quiet")
        assert queue.ids("processing") == []
        assert seen(queue) == set()

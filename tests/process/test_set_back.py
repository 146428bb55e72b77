"""A wall clock that is set back by an hour stops nothing."""

import os
import signal
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tests.process.support import Queue, until

HOUR = 3600.0
# As sitecustomize, this lets a file say by how much the wall clock differs.
CLOCK = """
import datetime, os, time

def _offset():
    try:
        with open(os.environ["CLOCK_OFFSET"]) as file:
            return float(file.read() or 0)
    except OSError:
        return 0.0

class Datetime(datetime.datetime):
    @classmethod
    def now(cls, tz=None, real=datetime.datetime):
        return real.now(tz) + datetime.timedelta(seconds=_offset())

datetime.datetime = Datetime
_time = time.time
time.time = lambda: _time() + _offset()
"""


class Clock:
    """Be the wall clock of everything that runs on a queue."""

    def __init__(self, queue: Queue) -> None:
        self._path = queue.here / "offset"
        queue.env |= queue.replacing("sitecustomize", CLOCK) | {"CLOCK_OFFSET": str(self._path)}

    def set(self, offset_seconds: float) -> None:
        """Let it differ by so much from the real one."""
        new = Path(f"{self._path}.new")
        new.write_text(str(offset_seconds))
        new.rename(self._path)


@pytest.fixture
def clock(queue: Queue) -> Clock:
    """Return the clock of the queue, which is right so far."""
    return Clock(queue)


def test_jobs_that_were_due_run_though_the_clock_was_set_back(queue: Queue, clock: Clock) -> None:
    """Also where only workers that start later could know of it; in their order, urgent first."""
    for name in ("first", "second", "third"):
        queue.enqueue(f"echo {name} >> {queue.here}/order", name)
    queue.enqueue(f"echo urgent >> {queue.here}/order", "urgent", "--priority", "0")
    queue.enqueue("true", "asked-for", "--delay", "30m")
    clock.set(-HOUR)
    queue.drain()
    assert (queue.here / "order").read_text().split() == ["urgent", "first", "second", "third"]
    # The delay that somebody asked for is counted by the clock that it was asked by.
    assert queue.pending() == ["asked-for"]
    (name,) = queue.ids("pending")
    due = datetime.strptime(name[2:24] + "+0000", "%Y%m%dT%H%M%S.%f%z")
    assert timedelta(minutes=29) < due - datetime.now(due.tzinfo) < timedelta(minutes=31)


def test_running_workers_go_on_when_the_clock_is_set_back(queue: Queue, clock: Clock) -> None:
    """What arrives starts at once, what runs ends, and what failed waits for its backoff alone."""
    queue.configure(backoff_base=1, backoff_max="1s")
    gate = queue.gate()
    queue.enqueue(f"test $QUEUECTL_ATTEMPT = 2 || {{ {gate.wait}; exit 1; }}", "retried")
    queue.enqueue("exit 1", "waits-for-backoff", "--max-retries", "2")
    pool = queue.pool("--count", "2").ready(2)
    gate.reached()
    until(lambda: queue.pending() == ["waits-for-backoff"], "it has failed once")
    clock.set(-HOUR)
    begin = time.monotonic()
    queue.enqueue("true", "arrives")
    queue.until_in("completed", "arrives")
    assert time.monotonic() - begin < 60
    gate.open()
    queue.until_in("completed", "retried")
    queue.until_in("dead", "waits-for-backoff")
    assert time.monotonic() - begin < 60
    first, second = queue.document("completed", "retried")["history"]
    waited = datetime.fromisoformat(second["started_at"]) - datetime.fromisoformat(
        first["finished_at"]
    )
    assert timedelta(seconds=0.9) < waited
    assert pool.stop() == 0


def test_what_is_lost_is_recovered_though_the_clock_was_set_back(
    queue: Queue, clock: Clock
) -> None:
    """Neither a crash nor a timeout nor a cancel nor a stop asks the wall clock."""
    queue.configure(backoff_base=1, backoff_max="0.01s", kill_grace="0.2s")
    gate = queue.gate()
    queue.enqueue(gate.wait, "lost", "--max-retries", "1")
    pool = queue.pool().ready()
    gate.reached()
    clock.set(-HOUR)
    os.kill(pool.pids()[0], signal.SIGKILL)
    gate.open()
    queue.until_in("dead", "lost")
    assert queue.history("dead", "lost") == ["lost"]
    gate = queue.gate()
    queue.enqueue(gate.wait, "running")
    queue.enqueue("sleep 100", "slow", "--timeout", "0.2s", "--max-retries", "1")
    gate.reached()
    queue.ok("cancel", "running")
    queue.until_in("dead", "slow")
    assert queue.history("dead", "slow") == ["timed_out"]
    queue.ok("purge")
    assert queue.ids("cancelled") == []
    queue.ok("worker", "stop")
    assert pool.wait() == 0
    assert queue("doctor").exit_code == 0


def test_a_clock_that_goes_to_and_fro_loses_no_job(queue: Queue, clock: Clock) -> None:
    """Forwards, backwards, and back again: each job runs once."""
    pool = queue.pool("--count", "2").ready(2)
    for step, offset in enumerate((0.0, HOUR, -HOUR, 60.0, -2 * HOUR, 0.0)):
        clock.set(offset)
        queue.batch([{"id": f"job-{step}-{n}", "command": "true"} for n in range(5)])
    until(lambda: len(queue.ids("completed")) == 30, "all have run", 30)
    assert all(queue.history("completed", each) == ["succeeded"] for each in queue.ids("completed"))
    assert pool.stop() == 0

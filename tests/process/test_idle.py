"""What workers do while there is nothing to do, and how soon they notice that there is."""

import signal
import time
from datetime import datetime
from pathlib import Path

import pytest
from tests.process.support import SLOW_FORK, Pool, Queue, lives, proc_stat, ticks, until

# Put before everything else on the path, these take away what only Linux has.
NO_INOTIFY = """
flags = None
class INotify:
    def __init__(self, **options):
        raise OSError(24, "Too many open files")
"""
NO_PIDFD = """
import os
if hasattr(os, "pidfd_open"):
    del os.pidfd_open
"""
BROKEN_PIDFD = """
import os
def pidfd_open(pid, flags=0):
    raise OSError(24, "Too many open files")
os.pidfd_open = pidfd_open
"""


def switches(pid: int) -> int:
    """Return how often a process gave up the processor by itself, which is once for each sleep."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def settle_down(pool: Pool) -> list[int]:
    """Return all processes of a pool when they sleep."""
    pids = [pool.pid, *pool.pids()]
    until(lambda: all(proc_stat(pid)[0] == "S" for pid in pids), "they sleep")
    return pids


def test_an_idle_pool_sleeps_in_the_kernel(queue: Queue) -> None:
    """Neither time of the processor nor a wake-up is spent, though jobs wait for later."""
    queue.enqueue("true", "later", "--delay", "1h")
    (queue.store / "pending" / "no-document").write_text("left alone")
    (queue.store / "pending" / "directory.json").mkdir()
    pool = queue.pool("--count", "8").ready(8)
    pids = settle_down(pool)
    time.sleep(0.3)  # what they do at first, such as tidying, may be going on still
    before = {pid: (ticks(pid), switches(pid)) for pid in pids}
    time.sleep(1.5)  # what is tested is that nothing happens in this time
    for pid in pids:
        assert ticks(pid) - before[pid][0] <= 1
        assert switches(pid) - before[pid][1] <= 2
    assert pool.stop() == 0


def test_a_job_for_an_idle_pool_starts_at_once(queue: Queue) -> None:
    """The kernel tells of its arrival; nobody has to look first."""
    pool = queue.pool("--count", "8").ready(8)
    settle_down(pool)
    delays = []
    for number in range(5):
        queue.enqueue("true", f"job-{number}")
        queue.until_in("completed", f"job-{number}")
        document = queue.document("completed", f"job-{number}")
        created, started = document["created_at"], document["history"][0]["started_at"]
        delays.append(
            (datetime.fromisoformat(started) - datetime.fromisoformat(created)).total_seconds()
        )
    # From before it is written to the disk, and on a machine that is busy with other tests.
    assert sorted(delays)[2] < 0.5
    assert pool.stop() == 0


def test_a_job_that_becomes_due_starts_at_its_time(queue: Queue) -> None:
    """Workers sleep until then, and are not woken by anything else."""
    pool = queue.pool("--count", "2").ready(2)
    queue.enqueue("true", "job", "--delay", "0.7s")
    queue.until_in("completed", "job")
    document = queue.document("completed", "job")
    late = datetime.fromisoformat(document["history"][0]["started_at"]) - datetime.fromisoformat(
        document["run_at"]
    )
    assert 0 <= late.total_seconds() < 1
    assert pool.stop() == 0


def test_a_file_that_a_hand_drops_is_run(queue: Queue) -> None:
    """By rename and by writing in place, while workers sleep."""
    pool = queue.pool().ready()
    settle_down(pool)
    (queue.here / "moved.json").write_text('{"command": "echo moved"}')
    (queue.here / "moved.json").rename(queue.store / "pending" / "moved.json")
    queue.until_in("completed", "moved")
    (queue.store / "pending" / "written.json").write_text('{"command": "echo written"}')
    queue.until_in("completed", "written")
    assert (queue.log("moved"), queue.log("written")) == ("moved\n", "written\n")
    assert pool.stop() == 0


def test_without_inotify_workers_look_for_work(queue: Queue) -> None:
    """Jobs that arrive, become due and are added by hand, drain and stop: all works by looking."""
    env = queue.replacing("inotify_simple", NO_INOTIFY)
    pool = queue.pool("--count", "2", env=env).ready(2)
    settle_down(pool)
    queue.enqueue("true", "job")
    queue.enqueue("true", "due-soon", "--delay", "0.3s")
    (queue.store / "pending" / "by-hand.json").write_text('{"command": "true"}')
    for job_id in ("job", "due-soon", "by-hand"):
        queue.until_in("completed", job_id)
    assert queue("worker", "stop", "--timeout", "5s").exit_code == 0
    assert pool.wait() == 0
    gate = queue.gate()
    queue.enqueue(gate.wait, "last")
    drained = queue.pool("--count", "2", "--drain", env=env)
    gate.open()
    assert drained.wait() == 0
    assert queue.ids("completed") == ["by-hand", "due-soon", "job", "last"]


@pytest.mark.parametrize("text", [NO_PIDFD, BROKEN_PIDFD], ids=["absent", "broken"])
def test_without_pidfd_the_end_of_a_command_is_noticed(queue: Queue, text: str) -> None:
    """Each runs once, its end wakes the worker, and timeouts and a stop end it as ever."""
    env = queue.replacing("sitecustomize", text)
    queue.configure(kill_grace="0.2s")
    gate = queue.gate()
    queue.enqueue(f"echo ran; {gate.wait}", "waits")
    pool = queue.pool(env=env)
    gate.reached()
    gate.open()
    queue.until_in("completed", "waits", 5)
    assert queue.log("waits") == "ran\n"
    queue.enqueue("trap '' TERM; while :; do sleep 0.02; done", "slow", "--timeout", "0.2s",
                  "--max-retries", "1")  # fmt: skip
    queue.until_in("dead", "slow", 5)
    assert queue.history("dead", "slow") == ["timed_out"]
    queue.enqueue(gate.wait, "given-back")
    gate.reached()
    pool.signal(signal.SIGTERM)
    until(lambda: "stopping when" in pool.talk(), "the first one has arrived")
    assert pool.signal(signal.SIGTERM).wait() == 0
    assert queue.pending() == ["given-back"]


def test_a_worker_of_a_supervisor_that_died_early_leaves(queue: Queue) -> None:
    """Even when the supervisor is killed before the worker has looked who that is."""
    pool = queue.pool("--count", "48", env=queue.replacing("sitecustomize", SLOW_FORK))
    until(lambda: len(pool.pids()) > 2, "they are forked")
    workers = pool.pids()
    pool.signal(signal.SIGKILL).wait()
    assert all(map(lives, workers))
    until(lambda: not any(map(lives, workers)), "they have left", 5)

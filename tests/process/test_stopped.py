"""A process that is stopped from outside holds up nobody but those who share it."""

import os
import signal

import pytest
from tests.process.support import Queue, proc_stat, until

# As sitecustomize, this stops the first process that scans.
STOP_IN_A_SCAN = """
import os, signal
from queuectl.store.scan import PendingScan
scan = PendingScan._scan

def stop_and_scan(self, now):
    try:
        os.unlink(os.environ["STOP"])
    except FileNotFoundError:
        pass
    else:
        os.kill(os.getpid(), signal.SIGSTOP)
    scan(self, now)

PendingScan._scan = stop_and_scan
"""


def test_a_process_that_is_stopped_in_a_scan_does_not_stop_the_others(queue: Queue) -> None:
    """Its siblings scan for themselves: they take jobs, and keep timeouts."""
    stop = queue.here / "stop"
    stop.touch()
    env = {**queue.replacing("sitecustomize", STOP_IN_A_SCAN), "STOP": str(stop)}
    pool = queue.pool("--count", "2", env=env).ready(2)
    until(lambda: not stop.exists(), "one of them scans")
    (stopped,) = until(
        lambda: [pid for pid in pool.pids() if proc_stat(pid)[0] == "T"], "it is stopped"
    )
    queue.enqueue("true", "job")
    queue.enqueue("sleep 60", "long", "--timeout", "0.1", "--max-retries", "1")
    queue.until_in("completed", "job")
    queue.until_in("dead", "long")
    assert queue.history("dead", "long") == ["timed_out"]
    os.kill(stopped, signal.SIGCONT)
    assert pool.stop() == 0


@pytest.mark.parametrize("how", [(), ("--now",)], ids=["gracefully", "now"])
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGTSTP])
def test_workers_stop_while_their_supervisor_is_stopped(
    queue: Queue, number: int, how: tuple[str, ...]
) -> None:
    """By Ctrl-Z, say: idle workers hear of the request without it, paused ones included."""
    # In a group of its own: the kernel lets no Ctrl-Z stop a group whose session nobody watches.
    pool = queue.pool("--count", "2", process_group=0).ready(2)
    pool.signal(number)
    until(lambda: proc_stat(pool.pid)[0] == "T", "the supervisor is stopped")
    answer = queue("worker", "stop", *how, "--timeout", "10s")
    pool.signal(signal.SIGCONT)
    assert answer.exit_code == 0, answer
    assert pool.wait() == 0
    assert queue.ids("workers") == []


def test_a_worker_ends_its_job_alone_while_its_supervisor_is_stopped(queue: Queue) -> None:
    """Asked to stop, it takes no other job."""
    gate = queue.gate()
    queue.enqueue(gate.wait, "running")
    queue.enqueue("true", "waiting")
    pool = queue.pool().ready()
    gate.reached()
    pool.signal(signal.SIGSTOP)
    until(lambda: proc_stat(pool.pid)[0] == "T", "the supervisor is stopped")
    assert queue("worker", "stop", "--timeout", "0.1s").exit_code == 75
    gate.open()
    queue.until_in("completed", "running")
    until(lambda: queue.ids("workers") == [], "it has left")
    assert queue.pending() == ["waiting"]
    pool.signal(signal.SIGCONT)
    assert pool.wait() == 0

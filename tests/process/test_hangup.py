"""What SIGHUP does to a pool: the terminal is gone, or somebody thinks of a daemon."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.process.support import Queue, lives, proc_stat, until


@pytest.fixture(autouse=True)
def not_ignored() -> Iterator[None]:
    """Start programs as a terminal does: these tests may have been started by nohup."""
    inherited = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, inherited)


def test_a_pool_that_hangs_up_lets_its_jobs_end(queue: Queue) -> None:
    """However often it is told; it says so, and takes no other job."""
    gate = queue.gate()
    queue.enqueue(f"{gate.wait}; echo done", "running")
    queue.enqueue("true", "next")
    pool = queue.pool()
    gate.reached()
    pool.signal(signal.SIGHUP)
    until(lambda: "supervisor stopping when the jobs are done" in pool.talk(), "it is told")
    pool.signal(signal.SIGHUP)
    gate.open()
    assert pool.wait() == 0
    assert queue.log("running") == "done\n"
    assert queue.pending() == ["next"]


def test_a_worker_that_is_told_to_hang_up_finishes_its_job(queue: Queue) -> None:
    """It was lost with its worker."""
    gate = queue.gate()
    queue.enqueue(gate.wait, "running")
    pool = queue.pool()
    gate.reached()
    (worker,) = pool.pids()
    os.kill(worker, signal.SIGHUP)
    gate.open()
    queue.until_in("completed", "running")
    assert queue.history("completed", "running") == ["succeeded"]
    assert pool.wait() == 0


def test_a_detached_pool_does_not_hang_up(queue: Queue) -> None:
    """It has no terminal, and reads the settings for each job."""
    queue.ok("worker", "start", "--detach")
    (record,) = queue.records()
    worker = record["pid"]
    supervisor = int(proc_stat(worker)[1])
    for pid in (supervisor, worker):
        ignored = Path(f"/proc/{pid}/status").read_text().partition("SigIgn:")[2].split()[0]
        assert int(ignored, 16) & 1 << (signal.SIGHUP - 1)
        os.kill(pid, signal.SIGHUP)
    queue.enqueue("true", "job")
    queue.until_in("completed", "job")
    assert lives(supervisor)
    queue.ok("worker", "stop")
    until(lambda: not lives(supervisor), "it is gone")


def test_nohup_keeps_a_pool(queue: Queue) -> None:
    """As it does any other program."""
    pool = queue.pool(prefix=("nohup",)).ready()
    pool.signal(signal.SIGHUP)
    queue.enqueue("true", "job")
    queue.until_in("completed", "job")
    assert lives(pool.pid)
    assert pool.stop() == 0

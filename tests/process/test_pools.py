"""What several pools on one queue have to do with each other."""

import fcntl
import os
import signal
from contextlib import suppress
from pathlib import Path

from tests.process.support import Queue, in_each_setting, lives, until


def test_drain_does_not_wait_for_the_job_of_another_pool(queue: Queue) -> None:
    """Started by cron each minute, such pools would pile up behind one long job."""
    gate = queue.gate()
    queue.enqueue(gate.wait, "long")
    other = queue.pool("--drain")
    gate.reached()
    queue.enqueue("true", "short")
    queue.drain("--count", "2")
    assert queue.ids("completed") == ["short"]
    assert queue.ids("processing") == ["long.1"]
    gate.open()
    assert other.wait() == 0


@in_each_setting
def test_drain_waits_for_a_job_whose_worker_was_killed(queue: Queue) -> None:
    """It belongs to the pool still, which runs it again when its command has ended."""
    gate = queue.gate()
    queue.enqueue(f"{gate.wait}; exit 3", "job", "--max-retries", "1")
    pool = queue.pool("--drain")
    gate.reached()
    (record,) = queue.records()
    os.kill(record["pid"], signal.SIGKILL)
    until(lambda: "was killed" in pool.talk(), "the supervisor has noticed it")
    until(lambda: any(each["pid"] != record["pid"] for each in queue.records()), "it is replaced")
    gate.open()
    assert pool.wait() == 0
    assert queue.history("dead", "job") == ["lost"]


def test_pool_is_not_started_beside_another_one(queue: Queue) -> None:
    """Whatever started that; what is said is for people and not for cron."""
    pool = queue.pool().ready()
    start = ("worker", "start", "--unless-running")
    assert queue(*start) == (0, "", "workers are running already; started none\n")
    assert queue(*start, "--drain", "--quiet") == (0, "", "")
    assert queue(*start, "--detach", "--count", "8", "--quiet") == (0, "", "")
    assert len(queue.records()) == 1
    assert pool.stop() == 0


def test_pool_is_started_where_none_is_running_any_more(queue: Queue) -> None:
    """A pool that was killed is none, though a command of it may live."""
    gate = queue.gate()
    queue.enqueue(gate.wait, "long", "--max-retries", "1")  # or it would wait again
    pool = queue.pool("--unless-running").ready()
    gate.reached()
    pool.kill()
    queue.enqueue("true", "short")
    queue.ok("worker", "start", "--unless-running", "--detach", "--quiet")
    queue.until_in("completed", "short")
    gate.open()
    queue.ok("worker", "stop")
    assert queue("worker", "start", "--unless-running", "--drain", "--quiet") == (0, "", "")


def test_only_one_of_two_pools_that_start_together_is_started(queue: Queue) -> None:
    """The other one sees the lock where there are no workers to be seen yet."""
    queue.drain()
    fd = os.open(queue.store / "pool.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        answer = queue("worker", "start", "--drain", "--unless-running")
        assert answer == (0, "", "workers are running already; started none\n")
    finally:
        os.close(fd)
    assert queue("worker", "start", "--drain", "--unless-running") == (0, "", "")


def test_pool_is_started_behind_one_whose_workers_have_left(queue: Queue) -> None:
    """A supervisor ends a moment after its workers, and a stop waits for these alone."""
    first = queue.pool("--unless-running").ready()
    first.signal(signal.SIGSTOP)
    queue.ok("worker", "stop")
    queue.enqueue("true", "job")
    pool = queue.pool("--drain", "--unless-running")
    until(lambda: has_open(pool.pid, "pool.lock") or pool.process.poll() == 0, "it has looked")
    first.signal(signal.SIGCONT)
    assert pool.wait() == 0
    assert queue.ids("completed") == ["job"], pool.talk()
    assert first.wait() == 0


def has_open(pid: int, name: str) -> bool:
    """Return whether a process has a file of that name open."""
    with suppress(OSError):  # it has ended, or has closed one meanwhile
        numbers = os.listdir(f"/proc/{pid}/fd")
        return any(os.readlink(f"/proc/{pid}/fd/{each}").endswith(name) for each in numbers)
    return False


def test_cron_does_not_pile_up_workers_behind_a_long_job(queue: Queue) -> None:
    """Twelve visits with the documented line leave the workers of the first, and two jobs run."""
    gate = queue.gate()
    queue.enqueue(gate.wait, "long")
    line = ("--count", "2", "--drain", "--quiet", "--unless-running")
    first = queue.pool(*line).ready(2)
    gate.reached()
    for at in range(12):
        queue.enqueue("true", f"job-{at}")
        assert queue("worker", "start", *line) == (0, "", "")
        assert len(queue.records()) == 2
    gate.open()
    assert first.wait() == 0
    assert len(queue.ids("completed")) == 13


def test_commands_do_not_keep_a_queue_reserved(queue: Queue, tmp_path: Path) -> None:
    """A daemon that a command has left behind is no pool."""
    pids = tmp_path / "pid"
    queue.enqueue(f"setsid sleep 60 >/dev/null 2>&1 & echo $! >{pids}", "job")
    queue.ok("worker", "start", "--drain", "--quiet", "--unless-running")
    pid = int(pids.read_text())
    try:
        assert lives(pid)
        assert queue("worker", "start", "--drain", "--unless-running") == (0, "", "")
    finally:
        os.kill(pid, signal.SIGKILL)

"""Many jobs, many workers, and workers that are killed: nothing lost, nothing run beside itself."""

import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from tests.process.support import Queue, children, lives, until

# QUEUECTL_TEST_LARGE=1 kills workers for 10 s over 1,000 jobs instead of 3 s over 120.
LARGE = bool(os.environ.get("QUEUECTL_TEST_LARGE"))


def test_two_pools_run_each_of_two_thousand_jobs_exactly_once(queue: Queue, tmp_path: Path) -> None:
    """Eight workers of two supervisors take from one store, and no job is taken twice."""
    ran = tmp_path / "ran"
    ids = [f"job-{number}" for number in range(2000)]
    queue.batch([{"id": job_id, "command": f"echo {job_id} >> {ran}"} for job_id in ids])
    pools = [queue.pool("--count", "4", "--drain", "--quiet") for _ in range(2)]
    assert [pool.wait(50) for pool in pools] == [0, 0]
    assert Counter(ran.read_text().split()) == Counter(ids)
    assert queue.ids("completed") == sorted(ids)
    assert [queue.ids(state) for state in ("pending", "processing", "dead")] == [[], [], []]
    assert [pool.talk() for pool in pools] == ["", ""]
    workers = {queue.history("completed", job_id, "worker")[0] for job_id in ids}
    assert len(workers) == 8


def test_jobs_survive_workers_that_are_killed_at_random(queue: Queue, tmp_path: Path) -> None:
    """Each is completed in the end; none ever runs beside itself; what was cut off is told."""
    count, seconds = (1000, 10.0) if LARGE else (120, 3.0)
    running, overlaps, ran = tmp_path / "running", tmp_path / "overlaps", tmp_path / "ran"
    running.mkdir()
    queue.configure(backoff_base=1, backoff_max="0.01s")
    # The kernel frees the lock of a run that was cut off, so a held one is a run that is alive.
    command = (
        f"exec 9> {running}/$QUEUECTL_JOB_ID; flock -n 9 || echo $QUEUECTL_JOB_ID >> {overlaps};"
        f" sleep 0.1; echo $QUEUECTL_JOB_ID >> {ran}"
    )
    ids = [f"job-{number}" for number in range(count)]
    queue.batch([{"id": each, "command": command} for each in ids], "--max-retries", "1000")
    pools = [queue.pool("--count", "3").ready(3) for _ in range(2)]
    chance = random.Random()
    killed: set[int] = set()
    until_at = time.monotonic() + seconds
    while time.monotonic() < until_at:
        pids = [pid for pool in pools for pid in pool.pids()]
        if pids:
            with suppress(ProcessLookupError):
                os.kill(pid := chance.choice(pids), signal.SIGKILL)
                killed.add(pid)
        time.sleep(chance.uniform(0.02, 0.3))
    until(lambda: len(queue.ids("completed")) == count, "all jobs are completed", 40)
    assert [pool.stop() for pool in pools] == [0, 0]
    assert not overlaps.exists()
    assert set(ran.read_text().split()) == set(ids)
    outcomes = Counter(each for job_id in ids for each in queue.history("completed", job_id))
    assert outcomes["succeeded"] == count
    assert set(outcomes) <= {"succeeded", "lost"}
    assert len(killed) > 3
    assert outcomes["lost"] > 0
    talk = "".join(pool.talk() for pool in pools)
    assert talk.count(" killed by signal 9") == len(killed)
    assert "Traceback" not in talk


def test_a_job_that_kills_its_worker_ends_in_the_dead_letter_queue(queue: Queue) -> None:
    """Each run counts as lost, with the worker's name; the pool goes on with other jobs."""
    queue.configure(backoff_base=1, backoff_max="0.01s")
    queue.enqueue("kill -9 $PPID", "killer", "--priority", "0")
    pool = queue.pool("--count", "2")
    queue.until_in("dead", "killer", 30)
    queue.enqueue("echo fine", "after")
    queue.until_in("completed", "after")
    assert queue.history("dead", "killer") == ["lost"] * 3
    assert all(name.startswith("w-") for name in queue.history("dead", "killer", "worker"))
    assert queue.document("dead", "killer")["attempts"] == 3
    assert pool.stop() == 0
    assert pool.talk().count("was killed by signal 9") == 3
    assert "killer attempt 3 lost: its worker died; now dead" in pool.talk()


def test_a_command_that_outlives_its_worker_is_not_run_beside_itself(queue: Queue) -> None:
    """The job is held as long as its command lives, and runs again when that is gone."""
    gate = queue.gate()
    queue.configure(backoff_base=1, backoff_max="0.01s")
    queue.enqueue(f"{gate.wait}; echo done", "job")
    pool = queue.pool()
    gate.reached()
    (worker,) = pool.pids()
    (command,) = queue.commands()
    os.kill(worker, signal.SIGKILL)
    # The new worker has looked at what the old one left, and has nothing to do but this other job.
    until(lambda: pool.pids() not in ([], [worker]), "there is another worker")
    queue.enqueue("true", "other")
    queue.until_in("completed", "other")
    assert queue.ids("processing") == ["job.1"]
    assert queue.commands() == [command]
    gate.open()
    until(lambda: queue.pending() or queue.ids("processing") == ["job.2"], "it is found lost")
    gate.open()
    queue.until_in("completed", "job")
    assert queue.history("completed", "job") == ["lost", "succeeded"]
    assert queue.log("job", 1) == "done\n"
    assert pool.stop() == 0


def test_what_a_killed_worker_left_is_taken_up_though_all_others_are_busy(queue: Queue) -> None:
    """The supervisor looks each second while a command outlives its worker."""
    first, second = queue.gate(), queue.gate()
    queue.enqueue(first.wait, "orphan", "--max-retries", "1")
    pool = queue.pool()
    first.reached()
    # The next worker is busy from its start, so that it never finds the time to look around.
    queue.enqueue(second.wait, "busy")
    (worker,) = pool.pids()
    os.kill(worker, signal.SIGKILL)
    second.reached()
    first.open()
    queue.until_in("dead", "orphan")
    assert queue.history("dead", "orphan") == ["lost"]
    second.open()
    queue.until_in("completed", "busy")
    assert pool.stop() == 0


def test_workers_whose_supervisor_is_killed_finish_their_jobs_and_leave(queue: Queue) -> None:
    """Nothing is lost: what runs is recorded, and what waits is still there for others."""
    gates = [queue.gate(), queue.gate()]
    for number, gate in enumerate(gates):
        queue.enqueue(f"{gate.wait}; echo done", f"runs-{number}")
    pool = queue.pool("--count", "3").ready(3)
    for gate in gates:
        gate.reached()
    queue.enqueue("true", "waits", "--delay", "1d")
    workers = pool.pids()
    pool.signal(signal.SIGKILL)
    pool.wait()
    until(lambda: len(queue.records()) == 2, "the idle worker has left")
    queue.enqueue("true", "comes-later")
    for gate in gates:
        gate.open()
    until(lambda: not any(map(lives, workers)), "all workers have left")
    assert queue.ids("completed") == ["runs-0", "runs-1"]
    assert queue.history("completed", "runs-0") == ["succeeded"]
    assert sorted(queue.pending()) == ["comes-later", "waits"]
    assert queue.ids("processing") == []
    assert queue.ids("workers") == []


def test_a_whole_pool_that_is_killed_is_recovered_by_the_next_one(queue: Queue) -> None:
    """Supervisor and workers at once: the next pool finds the job when its command is gone."""
    gate = queue.gate()
    queue.configure(backoff_base=1, backoff_max="0.01s")
    queue.enqueue(gate.wait, "job")
    pool = queue.pool("--count", "2").ready(2)
    gate.reached()
    pool.kill()
    gate.open()
    second = queue.pool()
    gate.open()
    queue.until_in("completed", "job")
    assert queue.history("completed", "job") == ["lost", "succeeded"]
    assert second.stop() == 0
    assert queue.ids("workers") == []


def test_a_child_that_is_no_worker_does_not_end_the_supervisor(queue: Queue) -> None:
    """One that the shell before it has left, as an orphan is where the supervisor is process 1."""
    gate = queue.gate()
    pool = queue.pool(prefix=("/bin/sh", "-c", f'({gate.wait}) & exec "$@"', "sh")).ready()
    assert len(pool.pids()) == 2
    gate.open()
    until(lambda: len(pool.pids()) == 1, "the stranger has been reaped")
    queue.enqueue("true", "job")
    queue.until_in("completed", "job")
    assert pool.stop() == 0
    assert "Traceback" not in pool.talk()


@pytest.mark.parametrize("state", ["completed", "dead"])
def test_a_settled_job_does_not_wait_for_the_next_one_to_end(queue: Queue, state: str) -> None:
    """What has ended is recorded and moved while a long command runs."""
    gate = queue.gate()
    command = "true" if state == "completed" else "false"
    queue.batch([{"id": f"short-{n}", "command": command, "max_retries": 1} for n in range(20)])
    queue.enqueue(gate.wait, "long")
    pool = queue.pool()
    gate.reached()
    until(lambda: len(queue.ids(state)) == 20, "all short jobs are settled")
    assert queue.ids("processing") == ["long.1"]
    gate.open()
    assert pool.stop() == 0
    assert "long" in queue.ids("completed")
    assert children(pool.pid) == []

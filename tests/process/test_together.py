"""Several workers in one process, as where there are more workers than processors."""

import json
import os
import signal
import subprocess

import pytest
from tests.process.support import REFUSED_LATER, Gate, Pool, Queue, until
from tests.program import QUEUECTL

SLOW_SYNC = """
import time
from queuectl.store import files
sync = files.Syncer.sync

def slowly(*arguments):
    time.sleep(1)
    return sync(*arguments)

files.Syncer.sync = slowly
"""
UNREADABLE = """
import os
from queuectl.errors import StoreError
from queuectl.store.pool import DirectoryPool
is_busy = DirectoryPool.is_busy

def fails(pool):
    if os.path.exists("unreadable"):
        raise StoreError("processing cannot be read")
    return is_busy(pool)

DirectoryPool.is_busy = fails
"""
# At the first rest two jobs arrive, which the kernel does not tell by name, and there seems to be
# more to purge, so that the one that rested claims again before its sibling resumes.
CLAIMS_AGAIN = """
import subprocess, sys
from queuectl.store.watch import Watch
from queuectl.worker import idle
idle._MAX_SLEEP_SECONDS = 3600.0
look_around = idle.Idle._look_around
calls = 0

def looks_around(self):
    global calls
    calls += 1
    if calls > 1:
        return look_around(self)
    store = self._context.store
    queuectl = (sys.executable, "-m", "queuectl", "--store", store.location)
    subprocess.run((*queuectl, "enqueue", "--batch", "a batch"), check=True)
    arrivals = Watch.arrivals

    def overflow(watch, *look_at):
        Watch.arrivals = arrivals
        arrivals(watch, *look_at)

    Watch.arrivals = overflow
    return idle.Rest()

idle.Idle._look_around = looks_around
"""
STOPPED = """
import os, signal
from queuectl.store import files
move_new = files.move_new
calls = 0

def stop(*move):
    global calls
    calls += 1
    move_new(*move)
    if calls == a count:
        os.kill(os.getpid(), signal.SIGTERM)

files.move_new = stop
"""


def on_one_processor() -> None:
    """Leave one processor to what is started next."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def sharing(queue: Queue, count: int, *options: str, replaced: str = "") -> Pool:
    """Start workers that share processes; ``replaced`` is run before the program."""
    env = queue.replacing("sitecustomize", replaced) if replaced else None
    pool = queue.pool("--count", str(count), *options, preexec_fn=on_one_processor, env=env)
    return pool.ready(count)


def all_busy(queue: Queue, count: int, *options: str) -> tuple[Pool, list[Gate]]:
    """Start workers that share processes, each with a job at a gate: job-0, job-1 and so on."""
    gates = [queue.gate() for _ in range(count)]
    jobs = [{"id": f"job-{at}", "command": gate.wait} for at, gate in enumerate(gates)]
    queue.batch(jobs, *options)
    pool = sharing(queue, count)
    for gate in gates:
        gate.reached()
    return pool, gates


def test_each_runs_a_job_of_its_own(queue: Queue) -> None:
    """At the same time; each is listed, and the process is the same."""
    pool, gates = all_busy(queue, 3)
    records = queue.records()
    assert [record["pid"] for record in records] == pool.pids() * 3
    assert sorted(record["job"] for record in records) == ["job-0", "job-1", "job-2"]
    gates[1].open()
    queue.until_in("completed", "job-1")
    assert queue.ids("processing") == ["job-0.1", "job-2.1"]
    gates[0].open()
    gates[2].open()
    assert pool.stop() == 0
    ran = {queue.history("completed", f"job-{index}", "worker")[0] for index in range(3)}
    assert ran == {record["name"] for record in records}


def test_what_one_waits_for_holds_up_no_other(queue: Queue) -> None:
    """A cancelled job that ignores SIGTERM delays neither a timeout nor other jobs."""
    queue.configure(kill_grace="1h")
    gate = queue.gate()
    queue.enqueue(f"trap '' TERM; {gate.wait}", "stubborn")
    pool = sharing(queue, 3)
    gate.reached()
    queue.enqueue("sleep 60", "slow", "--timeout", "0.1s", "--max-retries", "1")
    cancel = subprocess.Popen([*QUEUECTL, "cancel", "stubborn"], env=queue.env)
    queue.until_in("dead", "slow")
    assert queue.history("dead", "slow") == ["timed_out"]
    for index in range(20):
        queue.enqueue("true", f"quick-{index}")
        queue.until_in("completed", f"quick-{index}")
    assert queue.ids("processing") == ["stubborn.1"]
    gate.open()
    assert cancel.wait(20) == 0
    assert queue.history("cancelled", "stubborn") == ["cancelled"]
    assert pool.stop() == 0


def test_a_process_that_is_killed_is_replaced_with_all_its_workers(queue: Queue) -> None:
    """The pool tells who they were; their commands run on, and count as lost when they end."""
    pool, gates = all_busy(queue, 2, "--max-retries", "1")
    names = {record["name"] for record in queue.records()}
    (pid,) = pool.pids()
    os.kill(pid, signal.SIGKILL)

    def others() -> set[str]:
        return {record["name"] for record in queue.records() if record["pid"] != pid}

    until(lambda: len(others()) == 2, "others have come")
    assert not names & others()
    (told,) = [line for line in pool.talk().splitlines() if "were killed by signal 9" in line]
    assert all(name in told for name in names)
    assert queue.ids("processing") == ["job-0.1", "job-1.1"]
    for gate in gates:
        gate.open()
    for index in range(2):
        queue.until_in("dead", f"job-{index}")
        assert queue.history("dead", f"job-{index}") == ["lost"]
        assert queue.history("dead", f"job-{index}", "worker")[0] in names
    assert pool.stop() == 0


def test_stopping_now_gives_back_what_all_of_them_run(queue: Queue) -> None:
    """Each job is pending again, the attempt not counted."""
    pool, _ = all_busy(queue, 3)
    assert queue("worker", "stop", "--now").exit_code == 0
    assert pool.wait() == 0
    assert sorted(queue.pending()) == ["job-0", "job-1", "job-2"]
    assert queue.records() == []


def test_they_drain_a_queue_in_its_order(queue: Queue) -> None:
    """As many at a time as there are workers, none twice, and then they leave."""
    ran = queue.here / "ran"
    ids = [f"job-{at:03}" for at in range(200)]
    queue.batch([{"id": job_id, "command": f"echo {job_id} >> {ran}"} for job_id in ids])
    pool = queue.pool("--count", "5", "--drain", "--quiet", preexec_fn=on_one_processor)
    assert pool.wait(50) == 0
    assert pool.talk() == ""
    assert sorted(ran.read_text().split()) == ids
    began = {job_id: queue.history("completed", job_id, "started_at")[0] for job_id in ids}
    assert sorted(ids, key=lambda job_id: began[job_id]) == ids
    assert len(queue.ids("completed")) == 200
    assert all(name.startswith("spare.left.") for name in os.listdir(queue.store / "tmp"))


def test_many_workers_need_few_processes(queue: Queue) -> None:
    """Sixteen share one at most, and all of them work."""
    pool, gates = all_busy(queue, 40)
    assert len(pool.pids()) == 3
    for gate in gates:
        gate.open()
    assert pool.stop() == 0
    assert len(queue.ids("completed")) == 40


def test_what_comes_while_one_waits_for_the_disk_is_taken_at_once(queue: Queue) -> None:
    """RACE: another has read of two jobs from the kernel, and takes one of them."""
    pool = sharing(queue, 2, replaced=SLOW_SYNC)
    queue.enqueue("true", "slow")  # from now on a thread waits for the disk
    queue.until_in("completed", "slow")
    ended = queue.here / "ended"
    queue.enqueue(f"touch {ended}", "settled-slowly")
    until(ended.exists, "its command has ended")
    gates = [queue.gate() for _ in range(2)]
    queue.batch([{"id": f"job-{at}", "command": gate.wait} for at, gate in enumerate(gates)])
    until(lambda: len(queue.commands()) == 2, "both run", 3)
    for gate in gates:
        gate.open()
    assert pool.stop() == 0


def test_what_fails_for_an_idle_worker_ends_no_other(queue: Queue) -> None:
    """It tells that it cannot look for work, and looks again."""
    gate = queue.gate()
    queue.enqueue(f"{gate.wait}; echo done", "runs")
    (queue.here / "unreadable").touch()
    pool = sharing(
        queue, 2, "--drain", replaced=UNREADABLE.replace("unreadable", f"{queue.here}/unreadable")
    )
    gate.reached()
    until(lambda: "cannot look for work: processing cannot be read" in pool.talk(), "it is told")
    (queue.here / "unreadable").unlink()
    until(lambda: "recovered" in pool.talk(), "it has looked again")
    gate.open()
    assert pool.wait() == 0
    assert queue.log("runs") == "done\n"
    assert queue.history("completed", "runs") == ["succeeded"]


def test_refused_claim_of_one_holds_up_no_job_that_was_claimed_with_it(queue: Queue) -> None:
    """The other runs its own at once; what was refused is told, and is there for the next claim."""
    refused = queue.here / "refused"
    refused.touch()
    gate = queue.gate()
    queue.batch([{"id": "first", "command": gate.wait}, {"id": "later", "command": "true"}])
    pool = sharing(queue, 2, replaced=REFUSED_LATER.replace("no claims", str(refused)))
    gate.reached()
    until(lambda: "cannot claim a job, retrying: " in pool.talk(), "it is told")
    assert len(queue.ids("pending")) == 1
    refused.unlink()
    gate.open()
    queue.until_in("completed", "later")
    assert "recovered" in pool.talk()
    assert pool.stop() == 0


def test_worker_that_was_not_asked_for_when_a_job_was_claimed_does_not_sleep(queue: Queue) -> None:
    """One that wants a job again before its sibling has heard of the last claim takes one alone."""
    gates = [queue.gate() for _ in range(2)]
    batch = queue.here / "batch"
    batch.write_text("".join(json.dumps({"command": gate.wait}) + "\n" for gate in gates))
    pool = sharing(queue, 2, replaced=CLAIMS_AGAIN.replace("a batch", str(batch)))
    for gate in gates:
        gate.reached()
    for gate in gates:
        gate.open()
    assert pool.stop() == 0


@pytest.mark.parametrize("count", [1, 3])
def test_jobs_that_were_claimed_when_a_stop_came_are_given_back(queue: Queue, count: int) -> None:
    """A signal in the middle of the claims of several workers starts none of their jobs."""
    ids = [f"job-{at}" for at in range(4)]
    queue.batch([{"id": each, "command": "touch ran"} for each in ids])
    env = queue.replacing("sitecustomize", STOPPED.replace("a count", str(min(2, count))))
    pool = queue.pool("--count", str(count), preexec_fn=on_one_processor, env=env)
    assert pool.wait() == 0
    assert sorted(queue.pending()) == ids
    assert queue.ids("processing") == []
    assert not (queue.here / "ran").exists()

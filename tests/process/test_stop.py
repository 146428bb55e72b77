"""How workers are stopped, and that a job never pays for it."""

import os
import shlex
import signal
import sys

import pytest
from tests.process.support import SLOW_FORK, Queue, in_each_setting, lives, proc_stat, until
from tests.program import QUEUECTL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_job_end_and_takes_no_other(queue: Queue, number: int) -> None:
    """The supervisor ends with 0 when the job is done; the next one waits."""
    gate = queue.gate()
    queue.enqueue(f"{gate.wait}; echo done", "running")
    queue.enqueue("true", "waiting")
    pool = queue.pool("--count", "1")
    gate.reached()
    workers = pool.pids()
    pool.signal(number)
    until(lambda: "supervisor stopping when the jobs are done" in pool.talk(), "it is told")
    gate.open()
    assert pool.wait() == 0
    assert queue.history("completed", "running") == ["succeeded"]
    assert queue.pending() == ["waiting"]
    assert not any(map(lives, workers))
    assert queue.ids("workers") == []


def test_an_idle_pool_leaves_at_once(queue: Queue) -> None:
    """Nothing is waited for where nothing runs."""
    pool = queue.pool("--count", "3").ready(3)
    assert pool.signal(signal.SIGTERM).wait(5) == 0


def test_a_second_signal_puts_the_jobs_back_as_they_were(queue: Queue) -> None:
    """The commands are ended, the attempts not counted; the names in pending/ are the old ones."""
    gates = [queue.gate(), queue.gate()]
    for number, gate in enumerate(gates):
        queue.enqueue(f"echo ran; {gate.wait}", f"job-{number}")
    names = queue.ids("pending")
    documents = [queue.document("pending", name) for name in names]
    pool = queue.pool("--count", "2")
    for gate in gates:
        gate.reached()
    pool.signal(signal.SIGTERM)
    until(lambda: "stopping when" in pool.talk(), "the first one has arrived")
    assert len(queue.ids("processing")) == 2
    pool.signal(signal.SIGINT)
    assert pool.wait() == 0
    assert queue.ids("pending") == names
    assert [queue.document("pending", name) for name in names] == documents
    assert documents[0]["history"] == []
    assert queue.ids("processing") == []
    assert queue.commands() == []
    assert "job-0 attempt 1 returned to the queue (not counted)" in pool.talk()


def test_a_job_that_cannot_be_put_back_is_told_and_counts_as_lost(queue: Queue) -> None:
    """The worker leaves in order, as after any second signal, and the job runs again later."""
    queue.configure(backoff_base=1, backoff_max="0.01s")
    gate = queue.gate()
    queue.enqueue(f"test $QUEUECTL_ATTEMPT -gt 1 || {gate.wait}", "job")
    pool = queue.pool()
    gate.reached()
    (queue.store / "pending").rmdir()
    pool.signal(signal.SIGTERM)
    until(lambda: "stopping when" in pool.talk(), "the first one has arrived")
    pool.signal(signal.SIGTERM)
    assert pool.wait() == 0
    assert "job attempt 1 cannot be returned to the queue, and counts as lost: " in pool.talk()
    assert "cannot work" not in pool.talk()
    assert queue.ids("processing") == ["job.1"]
    assert queue.ids("workers") == []
    pool = queue.pool()  # a drain may end before the backoff is over
    queue.until_in("completed", "job")
    assert queue.history("completed", "job") == ["lost", "succeeded"]
    assert pool.stop() == 0


def test_a_job_that_was_not_started_is_put_back_as_soon_as_it_can_be(queue: Queue) -> None:
    """Told once to stop, a worker tries again until it can: the attempt has not run."""
    gate = queue.gate()
    queue.enqueue(gate.wait, "parent")
    queue.enqueue("true", "job", "--after", "parent")
    first = queue.pool()
    gate.reached()
    pool = queue.pool().ready()
    (queue.store / "logs").chmod(0o777)
    first.signal(signal.SIGTERM)
    until(lambda: "stopping when" in first.talk(), "it takes no other job")
    gate.open()
    until(lambda: "job waits to be started: " in pool.talk(), "the other one has taken it")
    lock = queue.store / "pending.lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()
    pool.signal(signal.SIGTERM)
    until(
        lambda: "cannot return job attempt 1 to the queue, retrying: " in pool.talk(), "it is told"
    )
    assert queue.ids("processing") == ["job.1"]
    lock.rmdir()
    assert pool.wait() == 0
    assert queue.pending() == ["job"]
    assert queue.ids("processing") == []


def test_now_reaches_a_worker_that_cannot_settle_and_has_lost_its_supervisor(queue: Queue) -> None:
    """It neither runs a command nor has anybody to pass the request on, and leaves at once."""
    gate = queue.gate()
    queue.enqueue(gate.wait, "job")
    pool = queue.pool()
    gate.reached()
    (worker,) = pool.pids()
    (queue.store / "completed").rmdir()
    gate.open()
    until(lambda: "cannot record a finished job" in pool.talk(), "it is told")
    pool.process.kill()
    pool.process.wait()
    assert lives(worker)
    queue.ok("worker", "stop", "--now")
    assert not lives(worker)
    assert pool.talk().count("cannot record finished jobs before stopping") == 1
    queue.drain()
    assert queue.history("completed", "job") == ["succeeded"]


def test_signals_that_were_blocked_at_the_start_reach_a_pool(queue: Queue) -> None:
    """Whoever starts it may block any signal; `worker stop --now` needs some of them."""
    block = "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32));"
    gate = queue.gate()
    queue.enqueue(gate.wait, "job")
    prefix = (sys.executable, "-c", f"{block} os.execvp(sys.argv[1], sys.argv[1:])")
    pool = queue.pool(prefix=prefix)
    gate.reached()
    queue.ok("worker", "stop", "--now")
    assert pool.wait() == 0
    assert queue.pending() == ["job"]


def test_one_signal_to_all_processes_of_a_pool_is_one_request(queue: Queue) -> None:
    """As killall and a service manager send it: the job that runs is finished nevertheless."""
    gate = queue.gate()
    queue.enqueue(f"{gate.wait}; echo done", "running")
    pool = queue.pool()
    gate.reached()
    pids = [*pool.pids(), pool.pid]
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    until(lambda: "stopping when" in pool.talk(), "the supervisor has heard of it")
    until(lambda: proc_stat(pool.pid)[0] == "S", "it has passed that on")
    until(lambda: all(proc_stat(pid)[0] == "S" for pid in pids), "the worker has heard twice")
    assert queue.commands()
    gate.open()
    assert pool.wait() == 0
    assert queue.history("completed", "running") == ["succeeded"]


def test_a_signal_while_workers_are_being_forked_reaches_them_all(queue: Queue) -> None:
    """One that comes before a worker can take it is not lost."""
    pool = queue.pool("--count", "48", env=queue.replacing("sitecustomize", SLOW_FORK))
    until(lambda: len(pool.pids()) > 2, "many are forked")
    assert pool.signal(signal.SIGTERM).wait(8) == 0


def test_a_signal_to_one_worker_stops_that_one(queue: Queue) -> None:
    """It finishes its job and leaves with 0, and is not replaced."""
    gate = queue.gate()
    queue.enqueue(f"{gate.wait}; echo done", "running")
    pool = queue.pool("--count", "2").ready(2)
    gate.reached()
    (record,) = [each for each in queue.records() if each["job"] == "running"]
    os.kill(record["pid"], signal.SIGTERM)
    gate.open()
    until(lambda: len(pool.pids()) == 1, "it has left")
    assert record["pid"] not in pool.pids()
    assert queue.history("completed", "running") == ["succeeded"]
    assert pool.stop() == 0


def test_stop_waits_for_the_workers_of_all_pools(queue: Queue) -> None:
    """It names them, and those who ask find nobody at work when it has ended."""
    pools = [queue.pool("--count", "2").ready(2), queue.pool().ready()]
    names = sorted(record["name"] for record in queue.records())
    answer = queue("worker", "stop")
    assert answer == (0, "", f"stopped 3 workers: {', '.join(names)}\n")
    assert queue.records() == []
    assert [pool.wait() for pool in pools] == [0, 0]


# As sitecustomize, this keeps a process for a while after all that it had to do.
SLOW_EXIT = """
import os, time
leave = os._exit
os._exit = lambda code: (time.sleep(0.5), leave(code))
"""


def test_stop_returns_when_the_processes_are_gone(queue: Queue) -> None:
    """Not when their records are, which is a moment earlier."""
    pool = queue.pool("--count", "2", env=queue.replacing("sitecustomize", SLOW_EXIT)).ready(2)
    pids = pool.pids()
    assert queue("worker", "stop").exit_code == 0
    assert not any(map(lives, pids))
    assert pool.wait() == 0


def test_stop_does_not_wait_for_ever_for_a_pid_that_is_another_process(queue: Queue) -> None:
    """A record may have the pid of a worker in another container."""
    pool = queue.pool().ready()
    (path,) = (queue.store / "workers").glob("*.json")
    record = path.read_text()
    with path.open("r+") as file:  # the same file: the worker has it locked
        file.write(record.replace(f'"pid": {pool.pids()[0]}', f'"pid": {os.getpid()}'))
    assert queue("worker", "stop").exit_code == 0
    assert pool.wait() == 0


def test_stop_now_ends_the_job_of_a_worker_without_supervisor(queue: Queue) -> None:
    """Nobody else could tell the worker, which else finishes its job however long that takes."""
    gate = queue.gate()
    queue.enqueue(f"{gate.wait}; echo done", "running")
    (name,) = queue.ids("pending")
    pool = queue.pool()
    gate.reached()
    (worker,) = pool.pids()
    pool.signal(signal.SIGKILL).wait()
    assert queue("worker", "stop", "--timeout", "0.1s").exit_code == 75
    assert queue("worker", "stop", "--now", "--timeout", "10s").exit_code == 0
    assert not lives(worker)
    assert queue.ids("pending") == [name]
    assert queue.document("pending", name)["history"] == []
    assert queue.commands() == []


def test_stop_lets_the_job_end(queue: Queue) -> None:
    """The poison pill is as patient as a signal."""
    gate = queue.gate()
    queue.enqueue(f"{gate.wait}; echo done", "running")
    pool = queue.pool()
    gate.reached()
    answer = queue("worker", "stop", "--timeout", "0.2s")
    (record,) = queue.records()
    assert answer.exit_code == 75
    assert answer.stderr == (
        f"Error: still running: {record['name']}; they stop when their jobs are done\n"
    )
    assert queue.ids("processing") == ["running.1"]
    gate.open()
    assert pool.wait() == 0
    assert queue.history("completed", "running") == ["succeeded"]


@in_each_setting
def test_stop_now_puts_the_job_back_as_it_was(queue: Queue) -> None:
    """Same name, attempt not counted, history empty, and the command is gone when it returns."""
    gate = queue.gate()
    queue.enqueue(f"{gate.wait}; echo done", "running", "--priority", "3")
    (name,) = queue.ids("pending")
    document = queue.document("pending", name)
    pool = queue.pool()
    gate.reached()
    assert queue("worker", "stop", "--now").exit_code == 0
    assert queue.ids("pending") == [name]
    assert queue.document("pending", name) == document
    assert (document["attempts"], document["history"]) == (0, [])
    assert queue.commands() == []
    assert pool.wait() == 0
    gate.forget()
    second = queue.pool()
    gate.open()
    queue.until_in("completed", "running")
    assert queue.history("completed", "running", "number") == [1]
    assert second.stop() == 0


def test_stop_now_after_a_patient_stop_is_not_patient(queue: Queue) -> None:
    """A second pill can ask for more than the first one."""
    gate = queue.gate()
    queue.enqueue(gate.wait, "running")
    pool = queue.pool()
    gate.reached()
    assert queue("worker", "stop", "--timeout", "0.1s").exit_code == 75
    assert queue("worker", "stop", "--now").exit_code == 0
    assert pool.wait() == 0
    assert queue.pending() == ["running"]


def test_a_stop_from_before_stops_nobody_who_starts_later(queue: Queue) -> None:
    """Workers go on beside the pill of others, and the same pool takes the next one."""
    assert queue("worker", "stop") == (0, "", "no workers are running\n")
    assert (queue.store / "stop_workers").exists()
    pool = queue.pool()
    queue.enqueue("true", "job")
    queue.until_in("completed", "job")
    assert queue("worker", "stop").exit_code == 0
    assert pool.wait() == 0


def test_touching_the_pill_stops_workers_too(queue: Queue) -> None:
    """The queue is a directory, and a hand may write into it."""
    pool = queue.pool().ready()
    (queue.store / "stop_workers").touch(mode=0o600)
    assert pool.wait() == 0


@in_each_setting
def test_detached_workers_run_on_until_they_are_stopped(queue: Queue) -> None:
    """The command returns when they are there, so that a stop straight after it finds them."""
    answer = queue("worker", "start", "--count", "2", "--detach")
    assert answer.exit_code == 0
    assert answer.stdout == ""
    assert answer.stderr == (
        f"started 2 workers in the background, logging to {queue.store}/worker.log\n"
    )
    records = queue.records()
    assert len(records) == 2
    queue.enqueue("echo done", "job")
    queue.until_in("completed", "job")
    stopped = queue("worker", "stop")
    assert stopped.stderr.startswith("stopped 2 workers: ")
    assert not any(lives(record["pid"]) for record in records)
    assert "job attempt 1 started" in (queue.store / "worker.log").read_text()
    assert (queue.store / "worker.log").stat().st_mode & 0o777 == 0o600


def test_detached_workers_that_are_to_be_quiet_say_nothing(queue: Queue) -> None:
    """Neither here nor in their log."""
    assert queue("worker", "start", "--detach", "--quiet") == (0, "", "")
    queue.enqueue("true", "job")
    queue.until_in("completed", "job")
    queue.ok("worker", "stop")
    assert (queue.store / "worker.log").read_text() == ""


def test_drain_ends_when_nothing_is_due_and_nothing_runs(queue: Queue) -> None:
    """It waits for what a running job adds, runs that too, and leaves what is due later."""
    gate = queue.gate()
    child = f"{shlex.join(QUEUECTL)} enqueue 'echo child' --id child"
    queue.enqueue(f"{gate.wait}; {child}", "parent")
    queue.enqueue("true", "later", "--delay", "1h")
    pool = queue.pool("--count", "3", "--drain")
    gate.reached()
    gate.open()
    assert pool.wait() == 0
    assert queue.ids("completed") == ["child", "parent"]
    assert queue.pending() == ["later"]


def test_drain_of_an_empty_queue_ends_at_once(queue: Queue) -> None:
    """Cron starts it each minute, mostly for nothing."""
    assert queue.drain("--count", "2") == ""
    assert queue.ids("workers") == []


def test_drain_ends_with_0_whatever_became_of_the_jobs(queue: Queue) -> None:
    """That a job has failed is for the dead letter queue to tell."""
    queue.enqueue("exit 3", "dies", "--max-retries", "1")
    queue.enqueue("exit 3", "fails")
    queue.drain()
    assert (queue.ids("dead"), queue.pending()) == (["dies"], ["fails"])


def test_detached_workers_begin_a_log_that_has_grown_long_again(queue: Queue) -> None:
    """What it held is kept beside it, and they go on telling."""
    log = queue.store / "worker.log"
    queue.enqueue("true", "a")
    log.write_bytes(b"x" * 10_500_000)
    log.chmod(0o600)
    queue.ok("worker", "start", "--detach")
    old = queue.store / "worker.log.1"
    until(lambda: old.exists() and not log.read_bytes().startswith(b"x"), "it begins again")
    queue.enqueue("true", "b")
    until(lambda: "b attempt 1 succeeded" in log.read_text(), "they tell")
    assert old.read_bytes().startswith(b"x" * 10_500_000)
    queue.ok("worker", "stop")
    assert queue("doctor") == (0, "", "")

"""Commands that misbehave: the worker and the store come through, and nothing is left behind."""

import os
import shlex
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from tests.process.support import Pool, Queue, children, lives, proc_stat, until

LARGE = bool(os.environ.get("QUEUECTL_TEST_LARGE"))
# Writes into a file that it runs now, and refuses to run where another one does.
GUARDED = "mkdir {place} || echo twice >> {twice}; {body}; rmdir {place}"
DAEMON = """
import os, sys
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.chdir("/")
if "close" in sys.argv:
    os.closerange(0, 256)
with open(sys.argv[1], "w") as file:
    file.write(str(os.getpid()))
os.open(sys.argv[2], os.O_RDONLY)  # until somebody comes to the gate
"""
# Closes what it has inherited, and becomes a shell that runs its last argument.
CLOSING = """
import os, sys
os.closerange(3, 4096)
os.execv("/bin/sh", ["sh", "-c", sys.argv[1]])
"""


def script(queue: Queue, text: str) -> str:
    """Return what runs a Python program of a job."""
    path = queue.here / f"script-{len(list(queue.here.glob('script-*')))}.py"
    path.write_text(text)
    return f"{sys.executable} -S {path}"


def closing(queue: Queue, command: str) -> str:
    """Return a command that closes its lock, and goes on in the same process."""
    return f"exec {script(queue, CLOSING)} {shlex.quote(command)}"


def kill_worker(pool: Pool) -> None:
    """Kill the only worker of a pool, as the kernel does where memory is short."""
    (worker,) = pool.pids()
    os.kill(worker, signal.SIGKILL)
    until(lambda: pool.pids() not in ([], [worker]), "the worker is replaced")


def is_well(queue: Queue, pool: Pool) -> None:
    """Check that the pool runs the next job, ends when it is told to, and the store is clean."""
    queue.enqueue("echo well", "next")
    queue.until_in("completed", "next", 30)
    assert pool.stop() == 0
    assert queue.ids("processing") == []
    assert queue.ids("corrupt") == []
    doctor = queue("doctor")
    assert doctor.exit_code == 0, doctor


# --- leaving, and not leaving ---


@pytest.mark.parametrize("closes", ["", "close"])
def test_a_daemon_is_no_part_of_its_job(queue: Queue, closes: str) -> None:
    """A double fork with setsid leaves the job, which ends with its command; a stop goes by."""
    gate, pid_file = queue.gate(), queue.here / "pid"
    path = gate.wait.removeprefix("read line < ")
    queue.enqueue(f"{script(queue, DAEMON)} {pid_file} {path} {closes}", "job")
    pool = queue.pool()
    queue.until_in("completed", "job")
    daemon = int(until(lambda: pid_file.exists() and pid_file.read_text(), "it tells its pid"))
    is_well(queue, pool)
    assert lives(daemon)
    gate.reached()  # that lets it end
    until(lambda: not lives(daemon), "it has ended")


def test_a_daemon_that_keeps_the_lock_puts_off_a_retry_of_a_killed_worker_alone(
    queue: Queue,
) -> None:
    """While its worker lives it matters to nobody; the file that it holds is no other job's."""
    gate, pid_file = queue.gate(), queue.here / "pid"
    path = gate.wait.removeprefix("read line < ")
    queue.enqueue(f"{script(queue, DAEMON)} {pid_file} {path}", "job")
    pool = queue.pool()
    queue.until_in("completed", "job")
    queue.batch([{"id": f"job-{n}", "command": "true"} for n in range(100)])
    until(lambda: len(queue.ids("completed")) == 101, "the others have run")
    assert queue.history("completed", "job") == ["succeeded"]
    is_well(queue, pool)
    gate.reached()  # that lets it end


def test_a_command_that_ignores_sigterm_is_killed_when_its_grace_is_over(queue: Queue) -> None:
    """So are its children, which have inherited that they ignore it."""
    queue.configure(kill_grace="0.3s")
    gate = queue.gate()
    queue.enqueue(
        f"trap '' TERM INT HUP; ({gate.wait}) & {gate.wait}; wait", "job",
        "--timeout", "0.2s", "--max-retries", "1",
    )  # fmt: skip
    pool = queue.pool()
    queue.until_in("dead", "job")
    assert queue.history("dead", "job") == ["timed_out"]
    assert queue.history("dead", "job", "signal") == [signal.SIGKILL]
    assert not [pid for pid in queue.commands() if lives(pid)]
    is_well(queue, pool)


def test_a_thousand_children_end_with_their_job(queue: Queue) -> None:
    """The timeout ends a process group of any size, and the worker's own limits are not hurt."""
    many = 1000 if LARGE else 300
    queue.configure(kill_grace="5s")
    started = queue.here / "started"
    program = script(
        queue,
        f"""
import os, signal, sys
for _ in range({many}):
    if os.fork() == 0:
        signal.pause()
open(sys.argv[1], "w").close()
signal.pause()
""",
    )
    queue.enqueue(f"{program} {started}", "job", "--timeout", "1h", "--max-retries", "1")
    pool = queue.pool()
    until(started.exists, "all are there", 30)
    assert sum(map(lives, queue.commands())) > many
    queue.ok("cancel", "job")
    assert queue.history("cancelled", "job") == ["cancelled"]
    assert not [pid for pid in queue.commands() if lives(pid)]
    is_well(queue, pool)


def test_a_command_that_stops_itself_runs_until_somebody_continues_it(queue: Queue) -> None:
    """A stopped command is no ended one; its worker sleeps, and other workers go on."""
    pid_file = queue.here / "pid"
    queue.enqueue(f"echo $$ > {pid_file}; kill -STOP $$; echo goes on", "job")
    pool = queue.pool("--count", "2")

    def stopped() -> int:
        with suppress(FileNotFoundError, ValueError):
            pid = int(pid_file.read_text())
            return pid if proc_stat(pid)[:1] == ["T"] else 0
        return 0

    pid = until(stopped, "it has stopped")
    queue.enqueue("true", "other")
    queue.until_in("completed", "other")
    assert queue.ids("processing") == ["job.1"]
    os.kill(pid, signal.SIGCONT)
    queue.until_in("completed", "job")
    assert queue.log("job") == "goes on\n"
    is_well(queue, pool)


@pytest.mark.parametrize("number", ["KILL", "TERM", "STOP"])
def test_a_command_that_signals_its_process_group_hits_itself_alone(
    queue: Queue, number: str
) -> None:
    """Neither the worker nor the supervisor is in that group."""
    queue.enqueue(f"kill -{number} 0", "job", "--max-retries", "1", "--timeout", "0.3s")
    pool = queue.pool().ready()
    workers = pool.pids()
    queue.until_in("dead", "job")
    expected = "timed_out" if number == "STOP" else "signalled"
    assert queue.history("dead", "job") == [expected]
    assert pool.pids() == workers
    is_well(queue, pool)


@pytest.mark.parametrize("number", ["KILL", "STOP"])
def test_a_command_that_hits_its_worker_costs_others_nothing(queue: Queue, number: str) -> None:
    """A killed worker's attempt is lost; a stopped one's job waits until it is continued."""
    gate = queue.gate()
    queue.enqueue(f"kill -{number} $PPID; {gate.wait}", "job", "--max-retries", "1")
    queue.enqueue("true", "other")
    pool = queue.pool("--count", "2").ready(2)
    gate.reached()
    queue.until_in("completed", "other")
    stopped = [pid for pid in pool.pids() if proc_stat(pid)[:1] == ["T"]]
    assert queue.ids("processing") == ["job.1"]
    gate.open()
    if number == "KILL":
        queue.until_in("dead", "job")
        assert queue.history("dead", "job") == ["lost"]
    else:
        (worker,) = stopped
        os.kill(worker, signal.SIGCONT)
        queue.until_in("completed", "job")
    is_well(queue, pool)


def test_a_log_that_is_written_at_full_speed_costs_the_worker_nothing(queue: Queue) -> None:
    """Nothing is copied through the worker; the limit is the one that the command sets itself."""
    blocks = (64 << 20) // 512
    queue.enqueue(f"ulimit -f {blocks}; exec yes", "job", "--max-retries", "1")
    pool = queue.pool().ready()
    queue.until_in("dead", "job", 30)
    (worker,) = pool.pids()
    assert queue.history("dead", "job", "signal") == [signal.SIGXFSZ]
    assert (queue.store / "logs" / "job.1.log").stat().st_size == 64 << 20
    status = Path(f"/proc/{worker}/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0])
    assert peak < 64 << 10  # KiB
    assert queue.ok("logs", "job", "--tail", "2") == "y\ny\n"
    is_well(queue, pool)


# --- the lock that a command inherits ---


def test_a_command_that_closed_its_lock_is_not_run_beside_itself(queue: Queue) -> None:
    """When its worker is killed, what the command was started with tells that it runs still."""
    gate, place, twice = queue.gate(), queue.here / "place", queue.here / "twice"
    body = GUARDED.format(place=place, twice=twice, body=gate.wait)
    queue.enqueue(closing(queue, body), "job")
    queue.configure(backoff_base=1, backoff_max="0.01s")
    pool = queue.pool()
    gate.reached()
    (command,) = (pid for pid in queue.commands() if os.getsid(pid) == pid)
    until(lambda: not os.path.exists(f"/proc/{command}/fd/100"), "it has closed the lock")
    kill_worker(pool)
    pool.ready()
    # Each second workers and supervisor look whether the attempt belongs to nobody.
    queue.enqueue("sleep 1.2", "other")
    queue.until_in("completed", "other")
    assert queue.ids("processing") == ["job.1"]
    assert lives(command)
    gate.open()
    until(lambda: not lives(command), "it has ended")
    gate.open()  # the second attempt
    queue.until_in("completed", "job")
    assert not twice.exists()
    assert queue.history("completed", "job") == ["lost", "succeeded"]
    is_well(queue, pool)


def test_a_command_that_closed_its_lock_and_outlives_its_worker_is_cancelled(queue: Queue) -> None:
    """It is found by what it was started with, and ended."""
    gate = queue.gate()
    queue.enqueue(closing(queue, gate.wait), "job")
    pool = queue.pool()
    gate.reached()
    kill_worker(pool)
    queue.ok("cancel", "job")
    assert queue.history("cancelled", "job") == ["cancelled"]
    assert not [pid for pid in queue.commands() if lives(pid)]
    is_well(queue, pool)


def test_a_daemon_that_closed_the_lock_puts_nothing_off(queue: Queue) -> None:
    """It has left the session of the command, and is not taken for it."""
    gate, held, pid_file = queue.gate(), queue.gate(), queue.here / "pid"
    path = held.wait.removeprefix("read line < ")
    queue.configure(backoff_base=1, backoff_max="0.01s")
    queue.enqueue(f"{script(queue, DAEMON)} {pid_file} {path} close; {gate.wait}", "job")
    pool = queue.pool()
    gate.reached()
    daemon = int(until(lambda: pid_file.exists() and pid_file.read_text(), "it tells its pid"))
    (worker,) = pool.pids()
    command = children(worker)
    os.kill(worker, signal.SIGKILL)
    for pid in command:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(lives, command)), "the command has ended")
    gate.forget()
    gate.open()
    queue.until_in("completed", "job")
    assert queue.history("completed", "job") == ["lost", "succeeded"]
    assert lives(daemon)
    is_well(queue, pool)
    held.reached()  # that lets it end


# --- what outlives its worker ---


@pytest.mark.parametrize("closes", [False, True])
def test_the_timeout_of_a_command_that_outlived_its_worker_is_kept(
    queue: Queue, closes: bool
) -> None:
    """SIGTERM once, the grace, SIGKILL; the attempt is lost and names its worker."""
    queue.configure(kill_grace="0.5s", backoff_base=1, backoff_max="0.01s")
    gate = queue.gate()
    command = f"trap 'echo term' TERM; while :; do {gate.wait}; done"
    command = closing(queue, command) if closes else command
    queue.enqueue(command, "job", "--timeout", "1s", "--max-retries", "1")
    pool = queue.pool("--count", "3").ready(3)
    gate.reached()
    (record,) = (each for each in queue.records() if each["job"] == "job")
    os.kill(record["pid"], signal.SIGKILL)
    queue.until_in("dead", "job")
    assert queue.history("dead", "job") == ["lost"]
    assert queue.history("dead", "job", "worker") == [record["name"]]
    assert queue.log("job").splitlines()[:2] in ([], ["term"])
    assert not [pid for pid in queue.commands() if lives(pid)]
    assert pool.talk().count("outlived its worker and its timeout; ending it") == 1
    is_well(queue, pool)


def test_a_whole_pool_that_is_killed_leaves_the_timeout_to_the_next_one(queue: Queue) -> None:
    """Nobody has to know of the first one; the command's age tells when its time is over."""
    queue.configure(kill_grace="0.5s")
    gate = queue.gate()
    queue.enqueue(gate.wait, "job", "--timeout", "1s", "--max-retries", "1")
    pool = queue.pool()
    gate.reached()
    pool.kill()
    second = queue.pool()
    queue.until_in("dead", "job")
    assert queue.history("dead", "job") == ["lost"]
    is_well(queue, second)


def test_a_command_without_a_timeout_may_outlive_its_worker_for_ever(queue: Queue) -> None:
    """Nobody ends it; its attempt tells, when it has ended, which worker ran it."""
    gate = queue.gate()
    queue.enqueue(gate.wait, "job", "--max-retries", "1")
    pool = queue.pool()
    gate.reached()
    (record,) = queue.records()
    kill_worker(pool)
    pool.ready()
    assert queue("doctor", "--repair").exit_code == 0
    queue.enqueue("sleep 1.2", "other")
    queue.until_in("completed", "other")
    gate.open()
    queue.until_in("dead", "job")
    assert queue.history("dead", "job", "worker") == [record["name"]]
    assert pool.stop() == 0
    queue.drain()
    assert list((queue.store / "workers").iterdir()) == []


# --- what a worker holds ---


def test_an_idle_worker_does_not_stay_in_the_directory_of_its_last_job(queue: Queue) -> None:
    """A file system that a job was run on can be unmounted afterwards."""
    place = queue.here / "place"
    place.mkdir()
    queue.enqueue("true", "job", "--cwd", str(place))
    pool = queue.pool()
    queue.until_in("completed", "job")
    (worker,) = pool.pids()
    until(lambda: os.readlink(f"/proc/{worker}/cwd") == "/", "it has left")
    is_well(queue, pool)


@pytest.mark.timeout(900 if LARGE else 60)
def test_thousands_of_jobs_leave_neither_descriptors_nor_zombies(queue: Queue) -> None:
    """Workers and supervisor have open what they had after the first ones, whatever jobs do."""
    queue.configure(backoff_base=1, backoff_max="0.01s")
    total = 10_000 if LARGE else 1_000
    commands = ["true", "exit 1", "kill -9 $$", "no-such-command-here", "true & exit 0", "sleep 0"]
    ends = {"true": 1, "true & exit 0": 1, "sleep 0": 1}
    pool = queue.pool("--count", "2", "--quiet").ready(2)
    workers = pool.pids()
    done = 0

    def descriptors() -> list[int]:
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in (pool.pid, *workers)]

    def run(last: int) -> list[int]:
        nonlocal done
        queue.batch(
            [
                {"id": f"job-{n}", "command": commands[n % len(commands)], "max_retries": 1}
                for n in range(done, last)
            ],
        )
        done = last

        def all_ran() -> bool:
            most = max(descriptors())
            assert most < 200
            assert all(len(children(pid)) <= 1 for pid in workers)
            return len(queue.ids("completed")) + len(queue.ids("dead")) == last

        until(all_ran, f"{last} jobs have run", 60 if not LARGE else 600)
        # Idle again: everything is settled.
        until(
            lambda: (
                not queue.ids("processing") and all(proc_stat(pid)[0] == "S" for pid in workers)
            ),
            "they are idle",
        )
        assert [children(pid) for pid in workers] == [[], []]
        assert pool.pids() == workers
        return descriptors()

    few = run(total // 10)
    assert all(after <= before for before, after in zip(few, run(total), strict=True))
    assert len(queue.ids("completed")) == sum(
        commands[n % len(commands)] in ends for n in range(total)
    )
    assert pool.stop() == 0

"""What workers do when the machine, or somebody's hand, is in their way: no job pays for it."""

import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from tests.process.support import REFUSED_LATER, Ear, Pool, Queue, ticks, until, uses_little


def fill_disk(pid: int, *, full: bool) -> None:
    """Let a process write no byte into a file, as on a full disk, or as many as it likes."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0 if full else hard, hard))


def told(pool: Pool, text: str) -> bool:
    """Tell whether a pool has told something."""
    return text in pool.talk()


def test_a_full_disk_costs_no_job_and_no_new_one_is_taken(queue: Queue, ear: Ear) -> None:
    """What has ended is kept and held, told once, and settled when there is room again."""
    gate = queue.gate()
    queue.enqueue(gate.wait, "ends")
    pool = queue.pool(stderr=ear.write_fd)
    gate.reached()
    (worker,) = pool.pids()
    fill_disk(worker, full=True)
    gate.open()
    until(lambda: ear.hears("cannot record a finished job, retrying: "), "it is told")
    queue.enqueue("true", "waits")
    # It tries again each second; the job is still its own and the other one waits.
    uses_little(pool, 1.2)
    assert queue.ids("processing") == ["ends.1"]
    assert queue.pending() == ["waits"]
    assert ear.heard.count("cannot record a finished job") == 1
    fill_disk(worker, full=False)
    queue.until_in("completed", "waits")
    assert queue.history("completed", "ends") == ["succeeded"]
    assert ear.hears("recovered")
    assert pool.stop() == 0


def test_a_state_that_is_missing_makes_a_worker_wait_and_not_spin(queue: Queue) -> None:
    """What cannot be moved on is tried again each second, also when a thread wakes the worker."""
    gate = queue.gate()
    queue.enqueue(gate.wait, "ends")
    pool = queue.pool()
    gate.reached()
    (queue.store / "completed").rmdir()
    gate.open()
    until(lambda: told(pool, "cannot record a finished job, retrying: "), "it is told")
    uses_little(pool, 1.2)
    pool.signal(signal.SIGTERM)
    until(lambda: told(pool, "stopping when"), "the first one has arrived")
    assert pool.signal(signal.SIGTERM).wait() == 0
    queue.drain()
    assert queue.history("completed", "ends") == ["succeeded"]


# As sitecustomize, this refuses each claim as long as a file is there.
REFUSED_CLAIM = """
import errno, os
from queuectl.store import files

move_new = files.move_new

def refuse(*move):
    if os.path.exists(os.environ["REFUSES"]):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    move_new(*move)

files.move_new = refuse
"""


def test_a_claim_that_was_refused_is_tried_again(queue: Queue, tmp_path: Path) -> None:
    """A worker that has nothing else to do tries each second, though nothing tells of the job."""
    refuses = tmp_path / "refuses"
    refuses.touch()
    queue.enqueue("true", "waits")
    env = queue.replacing("sitecustomize", REFUSED_CLAIM) | {"REFUSES": str(refuses)}
    pool = queue.pool(env=env)
    until(lambda: told(pool, "cannot claim a job, retrying: "), "it is told")
    uses_little(pool, 2.2)
    assert pool.talk().count("cannot claim a job, retrying: ") == 1
    refuses.unlink()
    queue.until_in("completed", "waits")
    assert told(pool, "recovered")
    assert pool.stop() == 0


# As sitecustomize, this makes the first sync slow, and the second one wait until a gate is
# opened.
SLOW_DISK = """
import os, time
from queuectl.store.files import Syncer

sync, syncs = Syncer.sync, 0

def sync_slowly(*arguments):
    global syncs
    syncs += 1
    if syncs == 1:
        time.sleep(0.02)
    elif syncs == 2:
        open(os.environ["DISK_GATE"]).close()
    sync(*arguments)

Syncer.sync = sync_slowly
"""


def test_a_timeout_does_not_wait_for_a_slow_disk(queue: Queue, tmp_path: Path) -> None:
    """A disk that was slow is waited for beside the command, whose timeout is kept meanwhile."""
    disk = queue.gate(tmp_path / "disk")
    env = queue.replacing("sitecustomize", SLOW_DISK) | {"DISK_GATE": str(tmp_path / "disk")}
    pool = queue.pool(env=env)
    queue.enqueue("true", "first")
    queue.until_in("completed", "first")
    queue.batch(
        [
            {"command": "true", "id": "ended"},
            {"command": "sleep 60", "id": "late", "timeout": 0.3, "max_retries": 1},
        ]
    )
    until(lambda: told(pool, "late attempt 1 timed out"), "it is told")
    assert queue.ids("completed") == ["first"]
    disk.reached()
    queue.until_in("dead", "late")
    assert queue.ids("completed") == ["ended", "first"]
    assert pool.stop() == 0


def test_a_running_job_that_a_hand_takes_away_keeps_no_worker(queue: Queue) -> None:
    """It stays where the hand has put it, its end is told, and the worker goes on."""
    gate = queue.gate()
    queue.enqueue(gate.wait, "taken")
    pool = queue.pool()
    gate.reached()
    (queue.store / "processing" / "taken.1.json").rename(queue.store / "cancelled" / "taken.json")
    queue.enqueue("true", "next")
    gate.open()
    queue.until_in("completed", "next")
    until(
        lambda: told(pool, "taken attempt 1 is not recorded: its document was removed"),
        "it is told",
    )
    assert queue.ids("processing") == []
    assert queue.ids("cancelled") == ["taken"]
    assert queue.document("cancelled", "taken")["history"] == []
    assert pool.stop() == 0


def test_a_worker_that_is_told_to_stop_on_a_full_disk_waits_for_room(
    queue: Queue, ear: Ear
) -> None:
    """It neither spins nor leaves its job unrecorded; a second signal makes it leave."""
    gate = queue.gate()
    queue.enqueue(gate.wait, "ends")
    pool = queue.pool(stderr=ear.write_fd)
    gate.reached()
    (worker,) = pool.pids()
    fill_disk(worker, full=True)
    gate.open()
    until(lambda: ear.hears("cannot record a finished job"), "it is told")
    pool.signal(signal.SIGTERM)
    until(lambda: ear.hears("stopping when"), "the supervisor has heard")
    uses_little(pool, 1.2)
    fill_disk(worker, full=False)
    assert pool.wait() == 0
    assert queue.history("completed", "ends") == ["succeeded"]


def test_a_log_directory_that_others_could_change_starts_no_job(queue: Queue) -> None:
    """The job waits, and so does its attempt: it goes on as soon as the directory is put right."""
    queue.drain()
    logs = queue.store / "logs"
    queue.enqueue("echo done", "job")
    pool = queue.pool().ready()
    queue.until_in("completed", "job")
    assert pool.stop() == 0
    queue.enqueue("echo done", "second")
    logs.chmod(0o700)
    logs.rename(queue.store / "tmp" / "logs")
    logs.symlink_to(queue.store / "tmp" / "logs")
    refused = queue("worker", "start")
    assert refused.exit_code in (69, 77)
    assert refused.stderr.startswith("Error: ")
    assert queue.pending() == ["second"]


def test_a_log_that_cannot_be_opened_is_told(queue: Queue) -> None:
    """A job that would run without a log is not started, and fails as one that cannot be."""
    queue.configure(backoff_base=1, backoff_max="0.01s")
    queue.drain()
    (queue.store / "logs" / "job.1.log").symlink_to("/dev/null")
    queue.enqueue("echo done", "job")
    pool = queue.pool()
    queue.until_in("completed", "job")
    assert queue.history("completed", "job") == ["not_started", "succeeded"]
    assert told(pool, "job attempt 1 cannot be started: ")
    assert told(pool, "nor can its log be written")
    assert queue.log("job", 2) == "done\n"
    assert pool.stop() == 0


def test_a_broken_config_is_told_and_no_job_taken(queue: Queue) -> None:
    """Settings that cannot be read are not guessed; workers go on when they can be."""
    pool = queue.pool().ready()
    config = queue.store / "config.json"
    queue.enqueue("true", "first")
    queue.until_in("completed", "first")
    config.touch(mode=0o600)
    config.write_text("{")
    (queue.here / "job.json").write_text('{"command": "true"}')
    (queue.here / "job.json").rename(queue.store / "pending" / "second.json")
    until(lambda: told(pool, "cannot claim a job, retrying: "), "it is told")
    assert queue.ids("completed") == ["first"]
    config.unlink()
    queue.until_in("completed", "second")
    assert pool.stop() == 0


def test_drain_does_not_end_while_it_can_take_no_job(queue: Queue) -> None:
    """That a worker cannot look for a job does not mean that none is due; it is told once."""
    gate = queue.gate()
    queue.enqueue(gate.wait, "first")
    queue.enqueue("true", "second")
    pool = queue.pool("--drain")
    gate.reached()
    config = queue.store / "config.json"
    config.touch(mode=0o600)
    config.write_text("{")
    gate.open()
    until(lambda: told(pool, "cannot claim a job, retrying: "), "it is told")
    time.sleep(2.5)
    assert len(pool.pids()) == 1
    assert queue.pending() == ["second"]
    assert pool.talk().count("cannot recover: ") <= 1  # by the supervisor, if it has looked
    assert pool.talk().count("cannot claim a job, retrying: ") == 1
    (worker,) = queue.records()
    assert not told(pool, f"{worker['name']} recovered")  # though it has settled the first one
    config.unlink()
    assert pool.wait() == 0
    assert pool.talk().count(f"{worker['name']} recovered") == 1
    assert queue.ids("completed") == ["first", "second"]


def test_many_jobs_that_cannot_be_started_do_not_use_up_the_descriptors(queue: Queue) -> None:
    """Each that ended is held until it is settled, also where no command is waited for."""
    gone = queue.here / "gone"
    queue.batch(
        [{"id": f"j{n}", "command": "true", "cwd": str(gone)} for n in range(1200)],
        "--max-retries", "1",
    )  # fmt: skip
    pool = queue.pool("--drain", prefix=["sh", "-c", 'ulimit -n 1024; exec "$@"', "sh"])
    assert pool.wait(30) == 0, pool.talk()
    assert len(queue.ids("dead")) == 1200


def test_what_has_ended_does_not_wait_for_a_job_that_cannot_be_claimed(queue: Queue) -> None:
    """It is settled before the worker waits to try again."""
    queue.batch([{"id": "first", "command": "true"}, {"id": "later", "command": "true"}])
    refused = queue.here / "refused"
    refused.touch()
    text = REFUSED_LATER.replace("no claims", str(refused))
    pool = queue.pool(env=queue.replacing("sitecustomize", text))
    queue.until_in("completed", "first")
    assert queue.pending() == ["later"]
    assert pool.stop() == 0


def test_what_is_scarce_for_a_while_is_waited_for(queue: Queue) -> None:
    """Too many open files are not the job's fault: its attempt is neither used nor lost."""
    pool = queue.pool().ready()
    queue.enqueue("true", "warm-up")
    queue.until_in("completed", "warm-up")
    (worker,) = pool.pids()
    _, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    taken = set(map(int, os.listdir(f"/proc/{worker}/fd")))
    # Nothing can be opened: the kernel gives the lowest number that is free.
    free = next(number for number in count() if number not in taken)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (free, hard))
    queue.enqueue("echo done", "job")
    until(lambda: "Too many open files" in pool.talk(), "it is told")
    assert queue.ids("completed") == ["warm-up"]
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (hard, hard))
    queue.until_in("completed", "job")
    assert queue.history("completed", "job") == ["succeeded"]
    assert pool.pids() == [worker]
    assert pool.stop() == 0


def test_enqueue_without_descriptors_is_refused(queue: Queue) -> None:
    """Wherever they run out it says so in one line, enqueues nothing and leaves nothing behind."""
    queue.enqueue("true", "first")
    refused = 0
    for most in range(8, 50, 3):
        answer = queue("enqueue", "true", prefix=["sh", "-c", f'ulimit -n {most}; exec "$@"', "sh"])
        if answer.exit_code == 0:
            break
        # Python itself does not start with fewer.
        if answer.stderr.startswith("Error: "):
            refused += 1
            assert answer.exit_code in (69, 74)
            assert answer.stderr.count("\n") == 1
            assert "Too many open files" in answer.stderr
        assert queue.pending() == ["first"]
        assert os.listdir(queue.store / "tmp") == []
    else:
        raise AssertionError("no number of descriptors is enough")
    assert refused > 0


def test_a_supervisor_without_descriptors_goes_on(queue: Queue, ear: Ear) -> None:
    """It tells once, neither fails nor gives up, and replaces its worker when there are some."""
    gate = queue.gate()
    queue.enqueue(gate.wait, "job", "--max-retries", "1")
    pool = queue.pool(stderr=ear.write_fd)
    gate.reached()
    (worker,) = pool.pids()
    (command,) = queue.commands()
    _, hard = resource.prlimit(pool.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pool.pid, resource.RLIMIT_NOFILE, (3, hard))
    os.kill(worker, signal.SIGKILL)
    os.kill(command, signal.SIGKILL)
    gate.forget()
    until(lambda: ear.hears("cannot start a worker, retrying: "), "it is told")
    used = ticks(pool.pid)
    time.sleep(2.2)
    assert ticks(pool.pid) - used < 20
    assert ear.heard.count("cannot start a worker, retrying: ") == 1
    assert "Traceback" not in ear.heard
    resource.prlimit(pool.pid, resource.RLIMIT_NOFILE, (hard, hard))
    queue.until_in("dead", "job")
    assert queue.history("dead", "job") == ["lost"]
    queue.enqueue("true", "next")
    queue.until_in("completed", "next")
    assert pool.stop() == 0


@pytest.fixture
def everybodys() -> Iterator[Path]:
    """Return a directory that every user can look into."""
    path = Path(tempfile.mkdtemp(prefix="queuectl-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become a user of its own")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_a_user_without_processes_loses_no_job(queue: Queue, ear: Ear, everybodys: Path) -> None:
    """What has ended is recorded all the same; what cannot be started waits, its attempt unused."""
    gate = queue.gate(everybodys / "gate")
    (everybodys / "gate").chmod(0o666)
    queue.enqueue(gate.wait, "runs")
    queue.enqueue("echo done", "waits")
    # Such a limit is nothing to root, so the real user is another one, who may do the same.
    user = ["setpriv", f"--ruid={1_000_000 + os.getpid()}"]
    user += ["--bounding-set=-sys_resource,-sys_admin"]
    # A supervisor, a worker, its command and a thread.
    pool = queue.pool(prefix=[*user, "prlimit", "--nproc=4"], stderr=ear.write_fd)
    gate.reached()
    (worker,) = pool.pids()
    others = [subprocess.Popen([*user, "sleep", "60"]) for _ in range(3)]
    until(lambda: all(cmdline(each.pid)[:5] == b"sleep" for each in others), "they are there")
    gate.open()
    until(lambda: ear.hears("waits waits to be started: "), "it is told")
    queue.until_in("completed", "runs")
    uses_little(pool, 1.2)
    assert queue.ids("processing") == ["waits.1"]
    # Nor can another worker be forked, and the supervisor waits.
    os.kill(worker, signal.SIGKILL)
    until(lambda: ear.hears("cannot start a worker, retrying: "), "it is told")
    for each in others:
        each.kill()
        each.wait()
    queue.until_in("completed", "waits")
    assert queue.history("completed", "runs") == ["succeeded"]
    assert queue.history("completed", "waits") == ["lost", "succeeded"]
    assert "Traceback" not in ear.heard
    assert pool.stop() == 0


def cmdline(pid: int) -> bytes:
    """Return the words that a process was started with."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()

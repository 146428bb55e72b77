"""What keeps a command from being started and is no fault of its job: no attempt is used."""

import os
import resource
import shutil
from pathlib import Path

from tests.process.support import Pool, Queue, until, uses_little

# As sitecustomize, this makes a job that is put off due again soon.
SOON = """
from queuectl.worker import worker
worker._DEFER_SECONDS = 0.1
"""
# As sitecustomize, this lets a directory answer with an I/O error while there is a file "broken".
BROKEN = (
    SOON
    + """
import errno, os
chdir = os.chdir

def refuse(path):
    if os.fsdecode(path).endswith("/mnt") and os.path.exists(os.environ["BROKEN"]):
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)
    chdir(path)

os.chdir = refuse
"""
)
# As sitecustomize, this lets a directory answer nothing while there is a FIFO "hang" beside it.
HANGS = (
    SOON
    + """
import os
from queuectl.worker import execution
execution.PATIENCE_SECONDS = float(os.environ["PATIENCE"])
access, chdir = os.access, os.chdir

def hang(path):
    if os.fsdecode(path).endswith("/mnt") and os.path.exists(os.environ["HANG"]):
        open(os.environ["HANG"]).close()

def slow_access(path, mode):
    hang(path)
    return access(path, mode)

def slow_chdir(path):
    hang(path)
    chdir(path)

os.access, os.chdir = slow_access, slow_chdir
"""
)
# As sitecustomize, this takes another shell.
SHELL = """
import os
from queuectl.worker import command
command.SHELL = os.environ["THE_SHELL"]
"""


def waits(pool: Pool, job_id: str, reason: str) -> None:
    """Return when it is told, once, why a job waits."""
    text = f"{job_id} waits to be started: {reason}"
    until(lambda: text in pool.talk(), f"it is told; told is {pool.talk()}")
    uses_little(pool, 1.2)
    assert pool.talk().count("waits to be started") == 1


def test_a_limit_below_the_number_of_the_lock_costs_no_attempt(queue: Queue) -> None:
    """Descriptor 100 cannot be made for any job; each waits until it can be."""
    pool = queue.pool().ready()
    (worker,) = pool.pids()
    _, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (100, hard))
    queue.enqueue("echo done", "job", "--max-retries", "1")
    waits(pool, "job", "Bad file descriptor (the limit of descriptors is 100: see ulimit -n)")
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (hard, hard))
    queue.until_in("completed", "job")
    assert queue.history("completed", "job") == ["succeeded"]
    assert pool.stop() == 0


def test_a_small_stack_puts_off_what_it_has_no_room_for(queue: Queue) -> None:
    """Other jobs run, and that one does where the stack may grow as usual."""
    env = {f"V{number}": "x" * 100_000 for number in range(3)}
    queue.batch([{"id": "large", "command": "true", "env": env, "max_retries": 1}])
    queue.enqueue("true", "small")
    pool = queue.pool(
        prefix=["sh", "-c", 'ulimit -S -s 256; exec "$@"', "sh"],
        env=queue.replacing("sitecustomize", SOON),
    )
    queue.until_in("completed", "small")
    waits(pool, "large", "Argument list too long (the limit is 131072 bytes: see ulimit -s)")
    assert pool.stop() == 0
    until(lambda: queue.drain() and queue.ids("completed") == ["large", "small"], "it has run")
    assert queue.history("completed", "large") == ["succeeded"]


def test_a_directory_with_an_io_error_puts_off_its_jobs_alone(queue: Queue) -> None:
    """It is told once for all of them, and they run when it can be looked at."""
    broken, mnt = queue.here / "broken", queue.here / "mnt"
    mnt.mkdir()
    broken.touch()
    queue.batch(
        [{"id": f"j{n}", "command": "true", "cwd": str(mnt), "max_retries": 1} for n in range(3)]
    )
    queue.enqueue("true", "other")
    env = queue.replacing("sitecustomize", BROKEN) | {"BROKEN": str(broken)}
    pool = queue.pool(env=env)
    queue.until_in("completed", "other")
    waits(pool, "j0", f"Input/output error: {mnt}")
    broken.unlink()
    until(lambda: len(queue.ids("completed")) == 4, "all have run")
    assert queue.history("completed", "j0") == ["succeeded"]
    assert pool.stop() == 0


def test_a_missing_shell_costs_no_attempt(queue: Queue) -> None:
    """It is missing for all jobs, as while a system is upgraded."""
    shell = queue.here / "shell"
    env = queue.replacing("sitecustomize", SHELL) | {"THE_SHELL": str(shell)}
    queue.enqueue("true", "job", "--max-retries", "1")
    pool = queue.pool(env=env)
    waits(pool, "job", f"No such file or directory: {shell}")
    shell.symlink_to("/bin/sh")
    queue.until_in("completed", "job")
    assert queue.history("completed", "job") == ["succeeded"]
    assert pool.stop() == 0


def test_a_log_directory_that_is_gone_costs_no_attempt(queue: Queue) -> None:
    """A worker holds it open, so the job waits for workers that are started anew."""
    pool = queue.pool()
    queue.enqueue("true", "first")
    queue.until_in("completed", "first")
    shutil.rmtree(queue.store / "logs")
    queue.enqueue("echo done", "job", "--max-retries", "1")
    waits(pool, "job", "No such file or directory: job.1.log")
    assert pool.stop() == 0
    assert queue.pending() == ["job"]
    queue.drain()
    assert queue.history("completed", "job") == ["succeeded"]
    assert os.listdir(queue.store / "logs") == ["job.1.log"]


def hanging(queue: Queue, patience: str) -> tuple[Path, Path, dict[str, str]]:
    """Return a directory that does not answer, what keeps it so, and an environment for that."""
    mount = queue.here / "mnt"
    mount.mkdir()
    hang = queue.here / "hang"
    os.mkfifo(hang)
    env = queue.replacing("sitecustomize", HANGS) | {"HANG": str(hang), "PATIENCE": patience}
    return mount, hang, env


def answer(hang: Path) -> None:
    """Let a directory answer whoever waits for it, and whoever asks from now on."""
    fd = os.open(hang, os.O_RDWR)
    hang.unlink()
    os.close(fd)


def test_a_directory_that_does_not_answer_holds_up_its_own_job_alone(queue: Queue) -> None:
    """The others of its process go on, with their timeouts; it runs when the directory answers."""
    mount, hang, env = hanging(queue, "0.3")
    pool = queue.pool("--count", "16", env=env).ready(16)
    queue.enqueue("pwd", "job", "--cwd", str(mount), "--max-retries", "1")
    until(lambda: "job attempt 1 started" in pool.talk(), "a worker is at it")
    for number in range(8):
        queue.enqueue("sleep 60", f"long-{number}", "--timeout", "0.1", "--max-retries", "1")
    for number in range(8):
        queue.until_in("dead", f"long-{number}")
    told = f"job waits to be started: the directory does not answer: {mount}"
    until(lambda: told in pool.talk(), "it is told")
    answer(hang)
    queue.until_in("completed", "job")
    assert queue.log("job") == f"{mount}\n"
    assert queue.history("completed", "job") == ["succeeded"]
    assert pool.stop() == 0


def test_a_job_that_waits_for_its_directory_can_be_cancelled_and_given_back(queue: Queue) -> None:
    """Nobody has to wait until the directory answers."""
    mount, hang, env = hanging(queue, "60")
    pool = queue.pool(env=env).ready()
    queue.enqueue("pwd", "one", "--cwd", str(mount))
    until(lambda: "one attempt 1 started" in pool.talk(), "a worker is at it")
    queue.ok("cancel", "one")
    assert queue.history("cancelled", "one") == ["cancelled"]
    queue.enqueue("pwd", "two", "--cwd", str(mount))
    until(lambda: "two attempt 1 started" in pool.talk(), "a worker is at it")
    assert pool.stop() == 0
    assert queue.pending() == ["two"]
    answer(hang)

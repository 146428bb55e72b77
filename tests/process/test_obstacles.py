"""What keeps a command from being started and is no fault of its job: no attempt is used."""

import os
import resource
import shutil

from tests.process.support import Pool, Queue, until, uses_little

# As sitecustomize, this makes a job that is put off due again soon.
SOON = """
from queuectl import worker
worker._PUT_OFF_SECONDS = 0.1
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
# As sitecustomize, this takes another shell.
SHELL = """
import os
from queuectl import runner
runner.SHELL = os.environ["THE_SHELL"]
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

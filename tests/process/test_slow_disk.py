"""A slow disk, or few descriptors: what is not settled is bounded, and goes on by itself."""

import os
import resource
import signal
from pathlib import Path

import pytest
from tests.process.support import Ear, Gate, Pool, Queue, until, uses_little

from queuectl.worker.settler import MAX_PENDING

# As sitecustomize, this lets each sync take a second, but for those that are not of a settlement.
SECOND = """
import time
from queuectl.store.files import Syncer

sync = Syncer.sync

def sync_slowly(*arguments):
    time.sleep(1.0)
    sync(*arguments)

Syncer.sync = sync_slowly
"""
# As sitecustomize, this lets the first sync be slow and the others wait until a gate is opened.
STUCK = """
import os, time
from queuectl.store.files import Syncer

sync, syncs = Syncer.sync, 0

def wait_and_sync(*arguments):
    global syncs
    syncs += 1
    time.sleep(0.02)
    if syncs == 2:
        open(os.environ["DISK_GATE"]).readline()
    sync(*arguments)

Syncer.sync = wait_and_sync
"""


def limited(number: int) -> list[str]:
    """Return what a command is run behind so that it may have so many descriptors."""
    return ["sh", "-c", f'ulimit -n {number}; exec "$@"', "sh"]


def stuck(queue: Queue, tmp_path: Path, *options: str, jobs: int, descriptors: int = 1024) -> Pool:
    """Return a pool that runs jobs and whose disk does not answer."""
    queue.batch([{"command": "true", "id": f"j{number}"} for number in range(jobs)])
    env = queue.replacing("sitecustomize", STUCK) | {"DISK_GATE": str(tmp_path / "disk")}
    return queue.pool(*options, prefix=limited(descriptors), env=env)


@pytest.fixture
def disk(queue: Queue, tmp_path: Path) -> Gate:
    """Return what the disk waits at."""
    return queue.gate(tmp_path / "disk")


def test_a_disk_that_does_not_answer_bounds_what_a_kill_runs_again(
    queue: Queue, disk: Gate, tmp_path: Path
) -> None:
    """A worker takes no job beside those that it could not settle, and waits in the kernel."""
    pool = stuck(queue, tmp_path, jobs=1000)
    disk.reached()
    until(lambda: len(queue.ids("processing")) > 20, "more have ended")
    uses_little(pool, 1.2)
    unsettled = len(queue.ids("processing"))
    assert unsettled <= MAX_PENDING
    pool.kill()
    pool = queue.pool("--quiet")
    until(lambda: len(queue.ids("completed")) == 1000, "all have run")
    assert pool.stop() == 0
    outcomes = [queue.history("completed", job_id) for job_id in queue.ids("completed")]
    assert sum(each == ["lost", "succeeded"] for each in outcomes) <= unsettled
    assert all(each in (["succeeded"], ["lost", "succeeded"]) for each in outcomes)


@pytest.mark.parametrize("descriptors", [110, 1024])
def test_a_disk_that_answers_late_is_waited_for(
    queue: Queue, disk: Gate, tmp_path: Path, descriptors: int
) -> None:
    """With few descriptors, too: nothing runs twice, and nothing needs to be stopped."""
    pool = stuck(queue, tmp_path, "--drain", jobs=1000, descriptors=descriptors)
    disk.reached()
    until(lambda: len(queue.ids("processing")) > 20, "more have ended")
    uses_little(pool, 1.2)
    disk.open()
    assert pool.wait(40) == 0, pool.talk()
    assert "Too many open files" not in pool.talk()
    assert len(queue.ids("completed")) == 1000
    for job_id in queue.ids("completed"):
        assert queue.history("completed", job_id) == ["succeeded"]


def test_a_drain_whose_syncs_take_a_second_ends(queue: Queue) -> None:
    """Each sync settles as many as have ended meanwhile, and none of them more than the bound."""
    queue.batch([{"command": "true", "id": f"j{number}"} for number in range(300)])
    pool = queue.pool("--drain", env=queue.replacing("sitecustomize", SECOND))
    most = 0
    while len(queue.ids("completed")) < 300 and pool.process.poll() is None:
        most = max(most, len(queue.ids("processing")))
    assert pool.wait(30) == 0, pool.talk()
    assert 20 < most <= MAX_PENDING


def test_a_stop_waits_for_no_more_than_one_sync(queue: Queue, disk: Gate, tmp_path: Path) -> None:
    """What has ended is settled before a worker leaves, though the disk was late."""
    pool = stuck(queue, tmp_path, jobs=1000)
    disk.reached()
    until(lambda: len(queue.ids("processing")) > 20, "more have ended")
    pool.signal(signal.SIGTERM)
    until(lambda: "stopping when" in pool.talk(), "it is told")
    disk.open()
    assert pool.wait() == 0
    assert queue.ids("processing") == []
    assert len(queue.ids("completed")) + len(queue.pending()) == 1000


def test_workers_with_hardly_enough_descriptors_run_all(queue: Queue) -> None:
    """Sixteen of a process that end together do not need one more for each."""
    queue.batch([{"command": "sleep 0.3", "id": f"j{number}"} for number in range(100)])
    pool = queue.pool("--count", "32", "--drain", prefix=limited(102))
    assert pool.wait(40) == 0, pool.talk()
    assert len(queue.ids("completed")) == 100
    for job_id in queue.ids("completed"):
        assert queue.history("completed", job_id) == ["succeeded"]


@pytest.mark.parametrize("options", [[], ["--drain"], ["--detach"]], ids=str)
def test_a_pool_that_could_run_nothing_is_refused(queue: Queue, options: list[str]) -> None:
    """In one line that says how many descriptors a worker needs, before any job is taken."""
    queue.enqueue("true", "waits")
    answer = queue("worker", "start", *options, prefix=limited(100))
    assert (answer.exit_code, answer.stdout) == (74, "")
    assert answer.stderr == (
        "Error: a worker needs 101 file descriptors at least, and may have 100: raise the limit"
        " (ulimit -n)\n"
    )
    assert queue.pending() == ["waits"]


@pytest.mark.parametrize("command", ["true", "false"])
def test_what_ended_is_settled_though_no_descriptor_is_left(
    queue: Queue, ear: Ear, command: str
) -> None:
    """Some are kept for that, also for the lock without which no job comes back into pending/."""
    gate = queue.gate()
    queue.enqueue(f"{gate.wait}; {command}", "job", "--max-retries", "2")
    pool = queue.pool(stderr=ear.write_fd)
    gate.reached()
    (worker,) = pool.pids()
    _, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    opened = set(map(int, os.listdir(f"/proc/{worker}/fd")))
    limit = next(number for number in range(1000) if number not in opened)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (limit, hard))
    gate.open()
    until(lambda: queue.ids("processing") == [], "the job is settled")
    assert not ear.hears("cannot record a finished job")
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (hard, hard))
    assert pool.stop() == 0
    assert len(queue.ids("completed")) + len(queue.pending()) == 1

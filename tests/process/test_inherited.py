"""What a pool is started with that is not its own: signals, descriptors, limits, a directory."""

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.process.support import Queue, in_each_setting, until
from tests.program import IGNORING_SIGCHLD, QUEUECTL


@pytest.mark.parametrize("option", ["--drain", "--detach"])
def test_pool_whose_parent_ignores_its_children(queue: Queue, option: str) -> None:
    """An ignored SIGCHLD lets nobody wait for a child, and is inherited."""
    queue.enqueue("sleep 0.1; exit 3", "a", "--max-retries", "1")
    answer = queue("worker", "start", option, "--quiet", prefix=IGNORING_SIGCHLD)
    assert answer == (0, "", "")
    queue.until_in("dead", "a")
    assert queue("worker", "stop", prefix=IGNORING_SIGCHLD).exit_code == 0


def start(queue: Queue, *options: str, pass_fds: Sequence[int]) -> "subprocess.Popen[bytes]":
    """Start a pool that inherits descriptors."""
    words = [*QUEUECTL, "worker", "start", "--quiet", *options]
    return subprocess.Popen(words, env=queue.env, cwd=queue.here, pass_fds=pass_fds)


@pytest.mark.parametrize("number", [0, 100])
def test_detached_pool_keeps_no_descriptor_of_its_caller(queue: Queue, number: int) -> None:
    """Whoever waits for the end of a pipe, or for a lock, waits for the start alone."""
    read_fd, write_fd = os.pipe()
    if number:  # as that of a job which starts a pool
        os.dup2(write_fd, number)
    numbers = [write_fd, number] if number else [write_fd]
    starting = start(queue, "--detach", pass_fds=numbers)
    for fd in numbers:
        os.close(fd)
    assert starting.wait(20) == 0
    os.set_blocking(read_fd, False)
    try:
        assert os.read(read_fd, 1) == b""
    finally:
        os.close(read_fd)
    queue.enqueue("true", "a")
    queue.until_in("completed", "a")
    queue.ok("worker", "stop")


def test_pool_in_the_foreground_keeps_what_it_was_started_with(queue: Queue) -> None:
    """A lock that is held for the pool is held as long as that lives."""
    read_fd, write_fd = os.pipe()
    pool = start(queue, pass_fds=[write_fd])
    os.close(write_fd)
    os.set_blocking(read_fd, False)
    until(queue.records, "a worker is registered")
    with pytest.raises(BlockingIOError):
        os.read(read_fd, 1)
    queue.ok("worker", "stop")
    assert pool.wait(20) == 0
    assert os.read(read_fd, 1) == b""
    os.close(read_fd)


def test_store_below_a_directory_that_gives_its_group(tmp_path: Path) -> None:
    """The setgid bit goes on to what is made there, and does no harm."""
    os.chmod(tmp_path, 0o2755)
    (tmp_path / "given").mkdir()
    if not (tmp_path / "given").stat().st_mode & 0o2000:
        pytest.skip("this file system does not hand the setgid bit on")
    queue = Queue(tmp_path)
    queue.enqueue("true", "parent")
    queue.enqueue("true", "child", "--after", "parent")
    assert queue("doctor") == (0, "", "")
    queue.drain()
    assert queue("doctor") == (0, "", "")
    queue.store.chmod(0o2750)
    assert "chmod 0700" in queue("doctor").stdout
    queue.close()


def test_pool_whose_signals_were_blocked_can_be_stopped(queue: Queue) -> None:
    """A mask is inherited, and would keep a SIGTERM away."""
    everything = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pool = queue.pool()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, everything)
    pool.ready()
    assert pool.stop() == 0


def test_pool_whose_directory_is_gone_runs_jobs_elsewhere(queue: Queue, tmp_path: Path) -> None:
    """It has none to come back to, and needs none."""
    gone = tmp_path / "gone"
    gone.mkdir()
    queue.enqueue("pwd", "a")
    prefix = ("sh", "-c", f'cd {gone} && rmdir {gone} && exec "$@"', "sh")
    pool = queue.pool("--drain", prefix=prefix)
    assert pool.wait() == 0, pool.talk()
    assert queue.log("a") == f"{queue.here}\n"


@pytest.mark.parametrize("is_replaced", [False, True])
def test_pool_whose_store_is_gone_ends(queue: Queue, is_replaced: bool) -> None:
    """It says so once, lets the running command end, and leaves no worker that nobody finds."""
    gate, ran = queue.gate(), queue.here / "ran"
    queue.enqueue(f"{gate.wait}; touch {ran}", "a")
    pool = queue.pool("--count", "3").ready(3)
    gate.reached()
    if is_replaced:
        queue.store.rename(queue.here / "elsewhere")
        queue.enqueue("true", "of-the-new-store")
    else:
        shutil.rmtree(queue.store)
    until(lambda: "was deleted" in pool.talk(), "the pool tells")
    assert not ran.exists()
    gate.open()
    assert pool.wait() == 74
    assert ran.exists()
    assert pool.talk().count("\n") == 4 + (not is_replaced), pool.talk()
    assert f"{queue.store} was deleted or replaced\n" in pool.talk()
    assert queue.pending() == ["of-the-new-store"] if is_replaced else not queue.store.exists()


@in_each_setting
def test_doctor_repairs_and_workers_go_on(queue: Queue) -> None:
    """Damage is found and repaired while a pool runs, which takes the jobs that are added then."""
    pool = queue.pool("--count", "8").ready(8)
    (queue.store / "completed" / "broken.json").write_text("{")
    (queue.store / "completed" / "broken.json").chmod(0o600)
    assert queue("doctor").exit_code == 1
    assert queue("doctor", "--repair").exit_code == 0
    assert queue("doctor") == (0, "", "")
    queue.batch([{"id": f"job-{n}", "command": "true"} for n in range(200)])
    until(lambda: len(queue.ids("completed")) == 200, "all jobs have run")
    assert pool.stop() == 0

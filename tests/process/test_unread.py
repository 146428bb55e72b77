"""What is told holds up no job, whether it is read or not."""

import os
import pty
import re
import signal
import subprocess
import termios
from collections.abc import Iterator
from contextlib import suppress

import pytest
from tests.process.support import Ear, Queue, lives, until
from tests.program import QUEUECTL

# As sitecustomize, this ends a supervisor with a traceback.
FAILS = """
import os
from queuectl.worker.pool import Supervisor
reap = Supervisor._reap
Supervisor._reap = lambda self: 1 / 0 if os.path.exists("fails") else reap(self)
"""
DROPPED = re.compile(r"(\d+) lines? (?:was|were) dropped: nobody read them")


@pytest.fixture
def unread() -> Iterator[Ear]:
    """Return a pipe that nobody reads until a test does."""
    ear = Ear()
    yield ear
    ear.close()


@pytest.mark.parametrize("count", [1, 8])
def test_a_pool_whose_stderr_nobody_reads_runs_all_jobs(
    queue: Queue, unread: Ear, count: int
) -> None:
    """What could not be told is counted; that is told when somebody reads, and nothing is lost."""
    queue.batch([{"id": f"job-{n}", "command": "true"} for n in range(1500)])
    pool = queue.pool("--count", str(count), stderr=unread.write_fd)
    until(lambda: len(queue.ids("completed")) == 1500, "all jobs are completed", 40)
    assert os.get_blocking(unread.write_fd)

    def all_told() -> bool:
        unread.hears("")
        dropped = sum(map(int, DROPPED.findall(unread.heard)))
        return dropped + unread.heard.count(" attempt 1 ") == 3000

    until(all_told, "each line is told or counted")
    queue.enqueue("true", "last")
    until(lambda: unread.hears(" last attempt 1 succeeded"), "it tells again")
    assert pool.stop() == 0


def test_a_pool_that_drains_ends_though_nobody_reads_its_stderr(queue: Queue, unread: Ear) -> None:
    """Nothing is left to wait for."""
    for _ in range(16):
        os.write(unread.write_fd, b"x" * 4096)
    queue.enqueue("true", "job")
    assert queue.pool("--drain", stderr=unread.write_fd).wait() == 0
    assert queue.ids("completed") == ["job"]


def test_ctrl_s_in_the_terminal_of_a_pool_stops_no_job(queue: Queue) -> None:
    """After Ctrl-Q it is told how many lines were dropped."""
    master, terminal = pty.openpty()
    pool = queue.pool(stderr=terminal).ready()
    termios.tcflow(terminal, termios.TCOOFF)
    queue.enqueue("true", "job")
    queue.until_in("completed", "job")
    termios.tcflow(terminal, termios.TCOON)
    os.set_blocking(master, False)
    said = ""

    def hears(text: str) -> bool:
        nonlocal said
        with suppress(BlockingIOError):
            said += os.read(master, 4096).decode()
        return text in said

    until(lambda: hears("2 lines were dropped: nobody read them"), "it is told")
    assert pool.stop() == 0
    os.close(master)
    os.close(terminal)


def test_a_supervisor_that_cannot_say_why_it_ends_does_not_keep_its_workers(
    queue: Queue,
) -> None:
    """They leave as soon as it has failed, however long it waits for who reads that."""
    reader, writer = os.pipe()
    for _ in range(16):
        os.write(writer, b"x" * 4096)
    pool = queue.pool(env=queue.replacing("sitecustomize", FAILS), stderr=writer).ready()
    os.close(writer)
    workers = pool.pids()
    (queue.here / "fails").touch()
    pool.signal(signal.SIGCHLD)
    until(lambda: not any(map(lives, workers)), "the worker has left")
    with pytest.raises(subprocess.TimeoutExpired):
        pool.process.wait(0.1)
    os.close(reader)
    pool.process.wait(10)


def test_ctrl_s_while_a_batch_is_added_keeps_no_lock_from_the_workers(queue: Queue) -> None:
    """How far it is, is shown while pending.lock is held."""
    master, terminal = pty.openpty()
    termios.tcflow(terminal, termios.TCOOFF)
    process = subprocess.Popen(
        [*QUEUECTL, "enqueue", "--batch", "-"],
        env=queue.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    )
    assert process.stdin is not None
    with process.stdin as lines:
        lines.writelines(b'{"id": "job-%d", "command": "true"}\n' % n for n in range(20))
    assert process.wait(20) == 0
    assert len(queue.pending()) == 20
    os.close(terminal)
    os.close(master)

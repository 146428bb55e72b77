"""What workers do when the machine, or somebody's hand, is in their way: no job pays for it."""

import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from tests.process.support import Pool, Queue, proc_stat, until


class Ear:
    """Hear what a pool tells through a pipe, which is no file that a full disk could hit."""

    def __init__(self) -> None:
        self._fd, self.write_fd = os.pipe()
        os.set_blocking(self._fd, False)
        self.heard = ""

    def hears(self, text: str) -> bool:
        """Tell whether the pool has told something."""
        with suppress(BlockingIOError):
            self.heard += os.read(self._fd, 65536).decode()
        return text in self.heard

    def close(self) -> None:
        """Hear no more."""
        os.close(self._fd)
        os.close(self.write_fd)


@pytest.fixture
def ear() -> Iterator[Ear]:
    """Return what hears a pool."""
    ear = Ear()
    yield ear
    ear.close()


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
    until(lambda: ear.hears("keeps an ended job, and tries again: "), "it is told")
    queue.enqueue("true", "waits")
    # It tries again each second; the job is still its own and the other one waits.
    used = proc_stat(worker)[11:13]
    time.sleep(1.2)
    assert queue.ids("processing") == ["ends.1"]
    assert queue.pending() == ["waits"]
    assert ear.heard.count("keeps an ended job") == 1
    assert sum(map(int, proc_stat(worker)[11:13])) - sum(map(int, used)) < 20
    fill_disk(worker, full=False)
    queue.until_in("completed", "waits")
    assert queue.history("completed", "ends") == ["succeeded"]
    assert ear.hears("goes on")
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
    until(lambda: ear.hears("keeps an ended job"), "it is told")
    pool.signal(signal.SIGTERM)
    until(lambda: ear.hears("stops when"), "the supervisor has heard")
    used = proc_stat(worker)[11:13]
    time.sleep(1.2)
    assert sum(map(int, proc_stat(worker)[11:13])) - sum(map(int, used)) < 20
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
    until(lambda: told(pool, "takes no job: "), "it is told")
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
    until(lambda: told(pool, "cannot recover: "), "it is told")
    time.sleep(2.5)
    assert len(pool.pids()) == 1
    assert queue.pending() == ["second"]
    assert pool.talk().count("cannot recover: ") == 1
    assert pool.talk().count("takes no job: ") == 1
    assert not told(pool, "goes on")  # though it has settled the first one
    config.unlink()
    assert pool.wait() == 0
    assert pool.talk().count("goes on") == 1
    assert queue.ids("completed") == ["first", "second"]


def test_what_is_scarce_for_a_while_is_waited_for(queue: Queue) -> None:
    """Too many open files are not the job's fault: its attempt is neither used nor lost."""
    pool = queue.pool().ready()
    queue.enqueue("true", "warm-up")
    queue.until_in("completed", "warm-up")
    (worker,) = pool.pids()
    _, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    opened = max(map(int, os.listdir(f"/proc/{worker}/fd"))) + 1
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (opened, hard))
    queue.enqueue("echo done", "job")
    until(lambda: "Too many open files" in pool.talk(), f"it is told; told is {pool.talk()}")
    assert queue.ids("completed") == ["warm-up"]
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (hard, hard))
    queue.until_in("completed", "job")
    assert queue.history("completed", "job") == ["succeeded"]
    assert pool.pids() == [worker]
    assert pool.stop() == 0

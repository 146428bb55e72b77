"""A disk that is full, or that cannot be written to, loses no job, and all goes on by itself."""

import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.disks import in_memory, make_image, mounted, needs_mounts
from tests.process.support import Answer, Ear, Queue, ticks, until, uses_little

from queuectl.store.layout import DIRECTORIES

pytestmark = [needs_mounts, pytest.mark.timeout(180)]


class Ballast:
    """Be a file that takes all the room that a disk has left."""

    def __init__(self, disk: Path) -> None:
        self._path = disk / "ballast"

    def fill(self, but_bytes: int = 0) -> None:
        """Take all room, but for so much."""
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for size in (1 << 20, 4096, 1):
            with suppress(OSError):
                while os.write(fd, bytes(size)):
                    pass
        os.ftruncate(fd, os.fstat(fd).st_size - but_bytes)
        os.fsync(fd)
        os.close(fd)

    def drop(self) -> None:
        """Give all room back."""
        self._path.unlink()


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Return a small file system."""
    if request.param == "tmpfs":
        with in_memory("size=8m") as found:
            yield found
    else:
        make_image(request.param, tmp_path / "image")
        with mounted("-o", "loop", str(tmp_path / "image")) as found:
            yield found


@pytest.fixture
def ballast(disk: Path) -> Ballast:
    """Return what fills the disk."""
    return Ballast(disk)


@pytest.fixture
def queue(tmp_path: Path, disk: Path) -> Iterator[Queue]:
    """Return a user's view of a queue on the disk, which has been used before."""
    queue = Queue(tmp_path, store=disk / "store")
    queue.enqueue("true", "first")
    queue.drain()
    # A spare file has room for one record after the other, once the disk knows that it is gone.
    for spare in (queue.store / "tmp").iterdir():
        spare.unlink()
    fd = os.open(queue.store / "tmp", os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    yield queue
    queue.close()


def refuses(answer: Answer, *words: str) -> None:
    """Check that a command has given one line, its exit code, and nothing else."""
    assert answer.exit_code == 74, answer
    assert answer.stdout == ""
    assert answer.stderr.startswith("Error: ")
    assert answer.stderr.count("\n") == 1
    for word in words:
        assert word in answer.stderr


def contents(store: Path) -> dict[str, bytes]:
    """Return what is in each file of a store that holds jobs, or did while it was written."""
    places = set(DIRECTORIES) - {"logs", "workers"}
    return {
        str(path): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file() and path.relative_to(store).parts[0] in places
    }


@pytest.mark.parametrize(
    "words",
    [["true"], ["--id", "chosen", "true"], ["--after", "first", "true"], ["--batch", "-"]],
    ids=["one", "chosen", "dependent", "batch"],
)
def test_enqueue_on_a_full_disk_is_refused(
    queue: Queue, ballast: Ballast, words: list[str]
) -> None:
    """It says so in one line and leaves nothing behind; with room again it works."""
    # Room for some of a batch.
    ballast.fill(16 * 4096 if "--batch" in words else 0)
    batch = "".join(f"echo {number}\n" for number in range(100))
    before = contents(queue.store)
    refuses(queue("enqueue", *words, stdin=batch), "nothing is enqueued", os.strerror(errno.ENOSPC))
    assert contents(queue.store) == before
    ballast.drop()
    ids = queue.ok("enqueue", *words, stdin=batch).split()
    queue.drain()
    assert {*ids, "first"} == set(queue.ids("completed"))


def test_a_store_that_a_full_disk_has_no_room_for_is_made_later(
    tmp_path: Path, disk: Path, ballast: Ballast
) -> None:
    """The first enqueue of all is refused like any other, and the next one works."""
    (tmp_path / "user").mkdir()
    queue = Queue(tmp_path / "user", store=disk / "store")
    ballast.fill()
    answer = queue("enqueue", "true")
    assert answer.exit_code in (69, 74)
    assert answer.stdout == ""
    assert answer.stderr.startswith("Error: ")
    assert answer.stderr.count("\n") == 1
    ballast.drop()
    job_id = queue.ok("enqueue", "true").strip()
    queue.drain()
    assert queue.ids("completed") == [job_id]


def test_what_is_changed_on_a_full_disk_is_changed_wholly_or_not(
    queue: Queue, ballast: Ballast
) -> None:
    """A cancel, a retry, a setting or a stop is refused in one line, and can be given again."""
    queue.enqueue("false", "dead", "--max-retries", "1")
    queue.drain()
    queue.enqueue("true", "waits")
    ballast.fill()
    for words in (
        ["cancel", "waits"],
        ["retry", "first"],
        ["dlq", "retry", "dead"],
        ["config", "set", "timeout", "1h"],
        ["worker", "stop"],
    ):
        before = contents(queue.store)
        refuses(queue(*words), os.strerror(errno.ENOSPC))
        assert contents(queue.store) == before
    # What frees room works, and so does looking.
    assert queue.ok("config", "get", "timeout") == "none\n"
    assert '"first"' in queue.ok("list", "--json")
    queue.ok("purge", "--state", "completed")
    assert queue.ids("completed") == []
    ballast.drop()
    queue.ok("cancel", "waits")
    queue.ok("dlq", "retry", "dead")
    queue.ok("config", "set", "timeout", "1h")
    assert queue.ids("cancelled") == ["waits"]
    assert queue.pending() == ["dead"]
    queue.ok("doctor")


def test_workers_keep_what_they_ran_on_a_full_disk(
    queue: Queue, ballast: Ballast, ear: Ear
) -> None:
    """They tell once, take no job, use no processor, and go on by themselves."""
    gates = [queue.gate(), queue.gate()]
    for number, gate in enumerate(gates):
        queue.enqueue(gate.wait, f"runs-{number}")
    pool = queue.pool("--count", "2", stderr=ear.write_fd)
    for gate in gates:
        gate.reached()
    queue.batch([{"command": "true", "id": f"waits-{number}"} for number in range(300)])
    ballast.fill()
    for gate in gates:
        gate.open()
    until(lambda: ear.hears("retrying: ", 2), "both workers tell")
    # They have run some more before they knew, 128 each at most.
    running, left = queue.ids("processing"), queue.pending()
    completed = {f"{each}.1" for each in queue.ids("completed")}
    assert {"runs-0.1", "runs-1.1"} <= {*running, *completed}
    assert len(running) >= 2
    assert left
    uses_little(pool)
    assert (running, left) == (queue.ids("processing"), queue.pending())
    assert ear.heard.count("retrying: ") == 2
    assert os.strerror(errno.ENOSPC) in ear.heard
    ballast.drop()
    until(lambda: len(queue.ids("completed")) == 303, "all have completed")
    assert pool.stop() == 0
    for job_id in queue.ids("completed"):
        assert queue.history("completed", job_id) == ["succeeded"]
    queue.ok("doctor")


def test_what_a_disk_has_room_for_is_settled(queue: Queue, ballast: Ballast) -> None:
    """Room for some is room for all, one after the other: each leaves the file that it was in."""
    gates = [queue.gate() for _ in range(40)]
    queue.batch([{"command": each.wait, "id": f"j{n}"} for n, each in enumerate(gates)])
    pool = queue.pool("--count", "40")
    for gate in gates:
        gate.reached()
    ballast.fill(48 * 1024)
    for worker in pool.pids():  # so that they end together
        os.kill(worker, signal.SIGSTOP)
    for gate in gates:
        gate.open()
    for worker in pool.pids():
        os.kill(worker, signal.SIGCONT)
    until(lambda: len(queue.ids("completed")) == 41, "all have completed")
    assert pool.stop() == 0
    ballast.drop()
    queue.ok("doctor")


def test_a_worker_that_dies_on_a_full_disk_is_replaced_when_there_is_room(
    queue: Queue, ballast: Ballast, ear: Ear
) -> None:
    """Its supervisor neither gives up nor tells each try; the lost attempt counts once."""
    gate = queue.gate()
    queue.enqueue(gate.wait, "runs", "--max-retries", "1")
    pool = queue.pool(stderr=ear.write_fd)
    gate.reached()
    (worker,) = pool.pids()
    (command,) = queue.commands()
    ballast.fill()
    os.kill(worker, 9)
    os.kill(command, 9)
    gate.forget()
    until(lambda: ear.hears("cannot start a worker, retrying: "), "it is told")
    time.sleep(2.5)
    assert ear.heard.count("cannot start a worker, retrying: ") == 1
    assert "Traceback" not in ear.heard
    assert ticks(pool.pid) < 100
    assert queue.ids("processing") == ["runs.1"]
    ballast.drop()
    queue.until_in("dead", "runs")
    assert queue.history("dead", "runs") == ["lost"]
    queue.enqueue("true", "next")
    queue.until_in("completed", "next")
    assert pool.stop() == 0


def test_workers_that_start_on_a_full_disk_wait_for_room(
    queue: Queue, ballast: Ballast, ear: Ear
) -> None:
    """A pool for good waits, and one that is to drain or to go to the background says so."""
    queue.enqueue("true", "waits")
    ballast.fill()
    pool = queue.pool(stderr=ear.write_fd)
    until(lambda: ear.hears("cannot start a worker, retrying: "), "it is told")
    answer = queue("worker", "start", "--detach")
    refuses(answer, "no worker could start")
    assert queue.pending() == ["waits"]
    ballast.drop()
    queue.until_in("completed", "waits")
    assert pool.stop() == 0


def test_a_log_that_fills_the_disk_costs_no_outcome(queue: Queue, disk: Path, ear: Ear) -> None:
    """The command fails by itself, and that is recorded as soon as there is room."""
    queue.enqueue("echo begins; exec dd if=/dev/zero bs=64k", "greedy", "--max-retries", "1")
    queue.enqueue("true", "waits")
    pool = queue.pool(stderr=ear.write_fd)
    # One block that is free all the same has room for one record after the other.
    until(lambda: ear.hears("retrying: ") or queue.ids("dead"), "it is told, or recorded")
    uses_little(pool)
    log = queue.store / "logs" / "greedy.1.log"
    with log.open("rb") as file:
        assert file.readline() == b"begins\n"
    os.truncate(log, 7)
    queue.until_in("completed", "waits")
    queue.until_in("dead", "greedy")
    assert queue.history("dead", "greedy") == ["failed"]
    assert queue.history("dead", "greedy", "exit_code") == [1]
    assert pool.stop() == 0


def test_a_disk_without_free_inodes_is_full(tmp_path: Path, ear: Ear) -> None:
    """No file can be made any more: nothing is enqueued, and what ended is kept."""
    with in_memory("nr_inodes=200") as disk:
        queue = Queue(tmp_path, store=disk / "store")
        gate = queue.gate()
        queue.enqueue(gate.wait, "runs")
        pool = queue.pool(stderr=ear.write_fd)
        gate.reached()
        files = disk / "files"
        files.mkdir()
        with suppress(OSError):
            for number in range(1000):
                (files / str(number)).touch()
        before = contents(queue.store)
        refuses(queue("enqueue", "true"), "nothing is enqueued")
        assert contents(queue.store) == before
        gate.open()
        until(lambda: ear.hears("cannot record a finished job"), "it is told")
        shutil.rmtree(files)
        queue.until_in("completed", "runs")
        assert queue.history("completed", "runs") == ["succeeded"]
        assert pool.stop() == 0
        queue.close()


def test_a_disk_that_is_mounted_for_reading_only_is_looked_at(tmp_path: Path) -> None:
    """What reads works, what writes is refused in one line, and all works when it is put right."""
    make_image("ext4", tmp_path / "image")
    with mounted("-o", "loop", str(tmp_path / "image")) as disk:
        queue = Queue(tmp_path, store=disk / "store")
        queue.enqueue("false", "dead", "--max-retries", "1")
        queue.drain()
        queue.enqueue("true", "waits")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        before = contents(queue.store)
        for words in (
            ["enqueue", "true"],
            ["enqueue", "--id", "new", "true"],
            ["cancel", "waits"],
            ["dlq", "retry", "dead"],
            ["config", "set", "timeout", "1h"],
            ["worker", "stop"],
        ):
            refuses(queue(*words), os.strerror(errno.EROFS))
        assert queue("purge", "--state", "dead").exit_code == 74
        started = time.monotonic()
        assert queue("worker", "start", "--drain").exit_code == 74
        assert time.monotonic() - started < 20
        assert contents(queue.store) == before
        assert '"waits"' in queue.ok("list", "--json")
        assert "waits" in queue.ok("show", "waits")
        queue.ok("status")
        queue.ok("dlq", "list")
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        queue.ok("dlq", "retry", "dead")
        queue.drain()
        assert queue.ids("completed") == ["waits"]
        assert queue.ids("dead") == ["dead"]
        queue.close()


def test_workers_wait_while_a_disk_is_read_only(tmp_path: Path, ear: Ear) -> None:
    """What they have run is kept and held, no job is taken, and all is settled afterwards.

    A subvolume of btrfs is set so while files are open; other file systems refuse that as long as a
    worker lives.
    """
    make_image("btrfs", tmp_path / "image")
    if shutil.which("btrfs") is None:
        pytest.skip("btrfs is not installed")
    with mounted("-o", "loop", str(tmp_path / "image")) as disk:
        volume = disk / "volume"
        subprocess.run(["btrfs", "-q", "subvolume", "create", str(volume)], check=True)
        queue = Queue(tmp_path, store=volume / "store")
        gate = queue.gate()
        queue.enqueue(gate.wait, "runs")
        pool = queue.pool(stderr=ear.write_fd)
        gate.reached()
        queue.enqueue("true", "waits")
        read_only(volume, is_so=True)
        refuses(queue("enqueue", "true"), os.strerror(errno.EROFS))
        gate.open()
        until(lambda: ear.hears("cannot record a finished job"), "it is told")
        uses_little(pool)
        assert queue.ids("processing") == ["runs.1"]
        assert queue.pending() == ["waits"]
        read_only(volume, is_so=False)
        queue.until_in("completed", "waits")
        assert queue.history("completed", "runs") == ["succeeded"]
        assert pool.stop() == 0
        queue.close()


def read_only(volume: Path, *, is_so: bool) -> None:
    """Let nothing be written to a subvolume, or all."""
    subprocess.run(
        ["btrfs", "property", "set", str(volume), "ro", str(is_so).lower()],
        check=True,
        capture_output=True,
    )

"""Measure the floor under a drain: what the rules ask of the system, and nothing else.

`python -m benchmarks.floor [--backlog] [WORKERS [COUNT]]` makes the system calls that a worker
makes for a job that succeeds (claim, log, start, wait, settle; many made durable at once), in plain
loops without a check, a record, a config, an error or a word of JSON, and prints its rate over that
of xargs, the program's own between them. What the program lacks of the floor is its own to lose;
what the floor lacks of xargs is the price of keeping the jobs, by any program that is written in
Python.

With --backlog it compares both rates with a million pending jobs with those with COUNT: what the
file system takes for a large directory.
"""

import argparse
import fcntl
import gc
import os
import select
import sys
import time
from pathlib import Path

from benchmarks.measure import alternating, median, remove, scratch, seconds
from benchmarks.run import Bench, drain, drain_some, xargs
from queuectl.store import files
from queuectl.worker.command import _DEFAULT_SIGNALS

_BATCH_SECONDS = 0.1


def work(store_dir: Path, names: list[str]) -> None:
    """Claim, run and settle the documents of these names in pending/."""
    pending, processing, completed, logs, tmp = (
        os.open(store_dir / name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for name in ("pending", "processing", "completed", "logs", "tmp")
    )
    env = dict(os.environb)
    ended: list[tuple[int, str]] = []
    spares: list[str] = []
    since = time.monotonic()
    for name in names:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=pending)
        os.fstat(fd)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.stat(name, dir_fd=pending)
        os.pread(fd, 65536, 0)
        os.rename(name, name, src_dir_fd=pending, dst_dir_fd=processing)
        os.utime(fd)
        log_fd = os.open(
            name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600, dir_fd=logs
        )
        pid = os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", "true"],
            env,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, log_fd, 1),
                (os.POSIX_SPAWN_DUP2, log_fd, 2),
                (os.POSIX_SPAWN_DUP2, fd, 100),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=_DEFAULT_SIGNALS,
        )
        os.close(log_fd)
        if time.monotonic() - since > _BATCH_SECONDS:
            settle(ended, spares, (tmp, processing, completed))
            since = time.monotonic()
        poll = select.poll()
        pidfd = os.pidfd_open(pid)
        poll.register(pidfd, select.POLLIN)
        poll.poll()
        os.waitpid(pid, 0)
        os.close(pidfd)
        ended.append((fd, name))
    settle(ended, spares, (tmp, processing, completed))


def settle(ended: list[tuple[int, str]], spares: list[str], fds: tuple[int, int, int]) -> None:
    """Write new documents, make all durable by one call, put them in place and move them."""
    tmp, processing, completed = fds
    written = []
    for _, name in ended:
        spare = spares.pop() if spares else f"{os.getpid()}.{name}"
        fd = os.open(spare, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=tmp)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.pwrite(fd, b"x" * 627, 0)
        written.append((spare, fd))
    if written:
        files.sync_file_system(tmp)
    for (fd, name), (spare, spare_fd) in zip(ended, written, strict=True):
        files.exchange(tmp, spare, processing, name)
        os.rename(name, name, src_dir_fd=processing, dst_dir_fd=completed)
        os.close(fd)
        os.close(spare_fd)
    spares += [spare for spare, _ in written]
    ended.clear()


def floor(store_dir: Path, names: list[str], workers: int) -> None:
    """Run jobs of a store by plain loops in forked processes."""
    files.load_library()
    gc.freeze()
    pids = []
    for index in range(workers):
        pid = os.fork()
        if pid == 0:
            work(store_dir, names[index::workers])
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        if os.waitpid(pid, 0)[1]:
            raise RuntimeError("a process of the floor failed")


def names_of(store_dir: Path) -> list[str]:
    """Return the names in pending/, in their order."""
    return sorted(os.listdir(store_dir / "pending"))


def seconds_of_floor(store_dir: Path, count: int, workers: int) -> float:
    """Time the floor for the first jobs of a store."""
    names = names_of(store_dir)[:count]
    return seconds(lambda: floor(store_dir, names, workers))


def compare_with_xargs(bench: Bench, count: int, workers: int) -> None:
    """Print the rates of the floor and of the program over that of xargs."""
    ours: list[float] = []

    def run_floor() -> float:
        store_dir = bench.new_store(count)
        ours.append(seconds(lambda: drain(store_dir, workers)))
        return seconds_of_floor(bench.new_store(count), count, workers)

    floors, limits, ratios = alternating(
        run_floor, lambda: seconds(lambda: xargs(count, workers)), 5
    )
    own = median([limit / each for limit, each in zip(limits, ours, strict=True)])
    sys.stdout.write(
        f"{count} jobs, {workers} workers, seconds: xargs {median(limits):.2f},"
        f" floor {median(floors):.2f}, queuectl {median(ours):.2f}\n"
        f"rate over xargs: floor {1 / median(ratios):.2f}, queuectl {own:.2f}\n"
    )


def compare_backlogs(bench: Bench, count: int, workers: int) -> None:
    """Print the rates of floor and program with very many pending jobs over those with few."""
    backlog = bench.backlog()
    rounds: list[tuple[float, float, float, float]] = [
        (
            seconds_of_floor(bench.new_store(count), count, workers),
            seconds_of_floor(backlog, count, workers),
            drain_some(bench.new_store(count), count - 100, workers).per_second,
            drain_some(backlog, count - 100, workers).per_second,
        )
        for _ in range(5)
    ]
    floors = median([few / many for few, many, _, _ in rounds])
    own = median([many / few for _, _, few, many in rounds])
    sys.stdout.write(
        f"{count} jobs, {workers} workers, rate with {bench.many} pending over that with {count}:"
        f" floor {floors:.2f}, queuectl {own:.2f}\n"
    )


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workers", nargs="?", type=int, default=2)
    parser.add_argument("count", nargs="?", type=int, default=3000)
    parser.add_argument("--backlog", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp/queuectl-bench"))
    given = parser.parse_args()
    compare = compare_backlogs if given.backlog else compare_with_xargs
    with scratch(given.folder) as folder:
        compare(Bench(folder, quick=False), given.count, given.workers)
        remove(folder)


if __name__ == "__main__":
    main()

"""Run the table of docs/performance.md: `python -m benchmarks.run [--quick] [ROW ...]`."""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from benchmarks import memory
from benchmarks.measure import (
    PYTHON,
    QUEUECTL,
    Row,
    alternating,
    median,
    percentile,
    print_table,
    private_mb,
    processor_seconds,
    remove,
    run,
    scratch,
    seconds,
    usage_of,
    write_json,
)
from queuectl.clock import utc_now
from queuectl.document import encode_job
from queuectl.job import Job, State, new_id
from queuectl.store import files, open_store
from queuectl.store.names import filed_name


class Bench:
    """Measure each row in directories below one folder."""

    def __init__(self, folder: Path, *, quick: bool) -> None:
        """Take the folder; with ``quick`` everything is smaller and fewer."""
        self.folder = folder
        self.quick = quick
        self.many = 100_000 if quick else 1_000_000
        self._backlog: Path | None = None

    # --- stores ---

    def fill(self, store_dir: Path, count: int, command: str = "true") -> None:
        """Enqueue jobs through the library, so that only what is to be measured is measured."""
        store = open_store(str(store_dir), create=True)
        step = 50_000
        for start in range(0, count, step):
            store.add([job(command, i) for i in range(min(step, count - start))])
        store.close()

    def backlog(self) -> Path:
        """Return a store with very many pending jobs, made once."""
        if self._backlog is None:
            self._backlog = self.folder / "backlog"
            sys.stderr.write(f"making {self.many} pending jobs ...\n")
            self.fill(self._backlog, self.many)
        return self._backlog

    def new_store(self, count: int, command: str = "true") -> Path:
        """Return a new store with some pending jobs."""
        with scratch(self.folder) as path:
            self.fill(path / "q", count, command)
            os.sync()
            return path / "q"

    # --- rows ---

    def cold_enqueue(self) -> list[Row]:
        """Time a whole enqueue against the import of click alone."""
        store_dir = self.new_store(0)
        enqueue = (*QUEUECTL, "--store", str(store_dir), "enqueue", "true")
        click = (PYTHON, "-c", "import click")
        run(enqueue)
        run(click)
        ours, limits, ratios = alternating(
            lambda: seconds(lambda: run(enqueue)),
            lambda: seconds(lambda: run(click)),
            15 if self.quick else 40,
        )
        return [
            Row(
                name="cold enqueue",
                measure="wall of `queuectl enqueue true` / `python -c 'import click'`",
                goal="<= 1.20",
                value=median(ratios),
                reached=median(ratios) <= 1.20,
                details={"ours_ms": median(ours) * 1e3, "limit_ms": median(limits) * 1e3},
            )
        ]

    def bulk(self) -> list[Row]:
        """Time a batch against writing the same files with one sync and one rename each."""
        count = 5_000 if self.quick else 20_000
        lines = self.folder / "lines"
        lines.write_text("true\n" * count)

        def ours() -> float:
            store_dir = self.new_store(0)
            return count / seconds(
                lambda: run(
                    (*QUEUECTL, "--store", str(store_dir), "enqueue", "--batch", str(lines))
                )
            )

        def limit() -> float:
            store_dir = self.new_store(0)
            script = (
                "import os, sys, benchmarks.run as b\n"
                f"b.write_plainly({str(store_dir)!r}, {count})\n"
            )
            return count / seconds(lambda: run((PYTHON, "-c", script)))

        rates, limits, ratios = alternating(ours, limit, 3 if self.quick else 5)
        return [
            Row(
                name="bulk",
                measure="`enqueue --batch` / the same files with one syncfs and a rename each",
                goal=">= 0.6",
                value=median(ratios),
                reached=median(ratios) >= 0.6,
                details={"ours_per_s": median(rates), "limit_per_s": median(limits)},
            ),
            Row(
                name="bulk rate",
                measure="jobs/s of `enqueue --batch`",
                goal=">= 8000",
                value=median(rates),
                reached=median(rates) >= 8000,
                unit="/s",
            ),
        ]

    def drain(self) -> list[Row]:
        """Time draining against xargs."""
        rows = []
        count = 3_000  # of fewer, the start of the pool would be a large part
        for workers, goal in ((2, 0.85), (8, 0.95)):

            def ours(workers: int = workers) -> float:
                store_dir = self.new_store(count)
                return count / seconds(lambda: drain(store_dir, workers))

            def limit(workers: int = workers) -> float:
                self.new_store(0)
                return count / seconds(lambda: xargs(count, workers))

            rates, limits, ratios = alternating(ours, limit, 3 if self.quick else 5)
            rows.append(
                Row(
                    name=f"drain, {workers} workers",
                    measure=f"{count} jobs `true`, jobs/s / `xargs -P{workers} -n1 sh -c true`",
                    goal=f">= {goal}",
                    value=median(ratios),
                    reached=median(ratios) >= goal,
                    details={"ours_per_s": median(rates), "limit_per_s": median(limits)},
                )
            )
        return rows

    def latency(self) -> list[Row]:
        """Time from the return of an enqueue to the first act of its command, one idle worker."""
        store_dir = self.new_store(0)
        fifo = store_dir.parent / "started"
        os.mkfifo(fifo)
        reader = os.open(fifo, os.O_RDWR)
        waits = []
        with pool(store_dir, 1):
            store = open_store(str(store_dir))
            for i in range(100 if self.quick else 500):
                store.add([job(f"echo > {fifo}", i)])
                start = time.perf_counter()
                os.read(reader, 16)
                waits.append((time.perf_counter() - start) * 1e3)
                time.sleep(0.01)  # so that the worker is idle again
            store.close()
        os.close(reader)
        half, most = median(waits), percentile(waits, 0.99)
        return [
            Row(
                name="latency p50",
                measure="return of enqueue to the first write of the command, one idle worker",
                goal="<= 3 ms",
                value=half,
                reached=half <= 3,
                unit=" ms",
            ),
            Row(
                name="latency p99",
                measure="the same",
                goal="<= 15 ms",
                value=most,
                reached=most <= 15,
                unit=" ms",
            ),
        ]

    def idle(self) -> list[Row]:
        """Sum the processor time of an idle pool."""
        length = 15 if self.quick else 60
        store_dir = self.new_store(0)
        with pool(store_dir, 8) as pids:
            time.sleep(1)  # they have looked at everything once, and sleep
            before = sum(map(processor_seconds, pids))
            time.sleep(length)
            used = (sum(map(processor_seconds, pids)) - before) * 60 / length
        return [
            Row(
                name="idle",
                measure="processor time of 8 idle workers and their supervisor over 60 s",
                goal="<= 0.05 s",
                value=used,
                reached=used <= 0.05,
                unit=" s",
            )
        ]

    def idle_among_busy(self) -> list[Row]:
        """Sum the processor time of workers that idle while as many wait for their commands."""
        store_dir = self.new_store(100, "exec sleep 120")
        with pool(store_dir, 200) as pids:
            wait_for(partial(holds_more, store_dir / "processing", 99))
            time.sleep(6)  # the first looks are over

            def used() -> float:
                return sum(map(processor_seconds, pids))

            before = used()
            time.sleep(10)
            idle = used() - before
            store, before = open_store(str(store_dir)), used()
            for i in range(10):
                store.add([job("true", i)])
                time.sleep(0.5)
            arrivals = used() - before
            store.close()
            run((*QUEUECTL, "--store", str(store_dir), "worker", "stop", "--now"))
        return [
            Row(
                name="idle among busy",
                measure="processor time of 200 workers over 10 s, 100 of them in `sleep`",
                goal="<= 0.3 s",
                value=idle,
                reached=idle <= 0.3,
                unit=" s",
            ),
            Row(
                name="arrivals among busy",
                measure="the same over 5 s in which ten jobs `true` arrive",
                goal="<= 0.3 s",
                value=arrivals,
                reached=arrivals <= 0.3,
                unit=" s",
            ),
        ]

    def backlog_rate(self) -> list[Row]:
        """Compare draining from a large and from a small backlog, and time the first start."""
        count = 1_000 if self.quick else 3_000

        large, small, firsts = [], [], []
        for _ in range(3):
            drained = drain_some(self.backlog(), count - 100)
            large.append(drained.per_second)
            firsts.append(drained.first_start)
            small.append(drain_some(self.new_store(count), count - 100).per_second)
        ratio = median([a / b for a, b in zip(large, small, strict=True)])
        return [
            Row(
                name="backlog",
                measure=f"drain rate with {self.many} pending / with {count}",
                goal=">= 0.9",
                value=ratio,
                reached=ratio >= 0.9,
                details={"large_per_s": median(large), "small_per_s": median(small)},
            ),
            Row(
                name="backlog, first start",
                measure=f"start of the pool to the first claim, {self.many} pending",
                goal="<= 2 s",
                value=median(firsts),
                reached=median(firsts) <= 2,
                unit=" s",
            ),
        ]

    def lookups(self) -> list[Row]:
        """Time the commands that look for something among very many pending jobs."""
        store_dir = self.backlog()
        some = pending_id(store_dir)
        rows = []
        for name, (wall, peak) in look_up(store_dir, some).items():
            rows.append(
                Row(
                    name=f"look-up: {name}",
                    measure=f"wall, with {self.many} pending ({peak:.0f} MB)",
                    goal="<= 1 s, <= 150 MB",
                    value=wall,
                    reached=wall <= 1 and peak <= 150,
                    unit=" s",
                    details={"peak_mb": peak},
                )
            )
        return rows

    def memory(self) -> list[Row]:
        """Read the private memory of a worker in a pool of two."""
        rows = []
        for count, goal in ((1_000, 12), (self.many, 24)):
            store_dir = self.new_store(1_000) if count == 1_000 else self.backlog()
            with pool(store_dir, 2) as pids:
                wait_for(partial(holds_more, store_dir / "completed", 100))
                value = max(private_mb(pid) for pid in pids[1:])
            rows.append(
                Row(
                    name=f"memory, {count} pending",
                    measure="private memory of a worker",
                    goal=f"<= {goal} MB",
                    value=value,
                    reached=value <= goal,
                    unit=" MB",
                )
            )
        return rows

    def settled(self) -> list[Row]:
        """Compare the rates of draining with very many and with no settled jobs."""
        count = 3_000
        full = self.new_store(0)
        sys.stderr.write(f"making {self.many} completed jobs ...\n")
        for i in range(self.many):
            (full / "completed" / filed_name(f"old-{i}")).write_bytes(b"{}")
        os.sync()

        def rate(store_dir: Path) -> float:
            self.fill(store_dir, count)
            return count / seconds(lambda: drain(store_dir, 2))

        ours, limits, ratios = alternating(lambda: rate(full), lambda: rate(self.new_store(0)), 3)
        return [
            Row(
                name="settled jobs",
                measure=f"the drain with {self.many} completed / with none",
                goal=">= 0.95",
                value=median(ratios),
                reached=median(ratios) >= 0.95,
                details={"full_per_s": median(ours), "empty_per_s": median(limits)},
            )
        ]


def job(command: str, index: int) -> Job:
    """Return a new job, due now; ``index`` keeps those made together in order."""
    now = utc_now() + timedelta(microseconds=index)
    return Job(
        id=new_id(now),
        command=command,
        max_retries=3,
        cwd="/",
        created_at=now,
        updated_at=now,
        run_at=now,
    )


@dataclass(frozen=True)
class Drained:
    """Be what was seen of a pool of two that drained a part of a store."""

    per_second: float  # jobs
    first_start: float  # seconds from the start of the pool to its first claim
    worker_mb: float  # private memory of the larger worker


def drain_some(store_dir: Path, count: int, workers: int = 2) -> Drained:
    """Let a pool run at least so many jobs of a store."""
    store = open_store(str(store_dir))
    start = time.perf_counter()
    with pool(store_dir, workers) as pids:
        wait_for(lambda: bool(os.listdir(store_dir / "processing")))
        first = time.perf_counter()
        # By the workers' own counts: to list what is completed takes longer the more there is.
        while (done := sum(each.settled for each in store.workers.live())) < count:
            time.sleep(0.02)
        now = time.perf_counter()
        memory = max(private_mb(pid) for pid in pids[1:])
    store.close()
    return Drained(done / (now - first), first - start, memory)


def pending_id(store_dir: Path) -> str:
    """Return the id of a pending job that is not among the next."""
    store = open_store(str(store_dir))
    *_, found = store.entries(State.PENDING, utc_now(), 2000)
    store.close()
    return found.id


def look_up(store_dir: Path, some_id: str) -> dict[str, tuple[float, float]]:
    """Run the commands that look for something; return the seconds and the MB of each."""
    base = (*QUEUECTL, "--store", str(store_dir))
    commands = {
        "status": (*base, "status"),
        "show ID": (*base, "show", some_id),
        "list --limit 20": (*base, "list", "--limit", "20"),
        "enqueue --id new": (*base, "enqueue", "--id", f"new-{time.time_ns()}", "true"),
        "completion of an id": QUEUECTL,
        "cancel ID": (*base, "cancel", some_id),
    }
    found = {}
    for name, command in commands.items():
        # A job is cancelled, and an id enqueued, once; the others are quick to repeat.
        repeat = 1 if name in ("cancel ID", "enqueue --id new") else 3
        asked = completing(store_dir, some_id[:-2]) if command is QUEUECTL else {}
        used = [usage_of(command, asked) for _ in range(repeat)]
        found[name] = (median([each[0] for each in used]), max(each[1] for each in used))
    return found


def holds_more(directory: Path, count: int) -> bool:
    """Tell whether a directory holds more files than so many."""
    return len(os.listdir(directory)) > count


def completing(store_dir: Path, word: str) -> dict[str, str]:
    """Return the environment in which a shell asks for what completes an id."""
    words = ("queuectl", "--store", str(store_dir), "show", word)
    return {
        "_QUEUECTL_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }


def write_plainly(store_dir: str, count: int) -> None:
    """Write what a batch writes, with nothing else: the limit of the row `bulk`."""
    tmp_fd = os.open(f"{store_dir}/tmp", os.O_RDONLY)
    pending_fd = os.open(f"{store_dir}/pending", os.O_RDONLY)
    for i in range(count):
        fd = os.open(f"{i}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=tmp_fd)
        os.write(fd, encode_job(job("true", i)))
        os.close(fd)
    files.sync_file_system(tmp_fd)
    for i in range(count):
        name = f"5-20260101T000000.{i:06}Z-x{i}.json"
        os.rename(f"{i}", name, src_dir_fd=tmp_fd, dst_dir_fd=pending_fd)
    os.fsync(pending_fd)


def drain(store_dir: Path, workers: int) -> None:
    """Drain a store by the program."""
    run(
        (
            *QUEUECTL,
            "--store",
            str(store_dir),
            "worker",
            "start",
            "--quiet",
            "--drain",
            "--count",
            str(workers),
        )
    )


def xargs(count: int, workers: int) -> None:
    """Run as many commands by xargs: the yardstick."""
    numbers = "".join(f"{i}\n" for i in range(count)).encode()
    run(("xargs", f"-P{workers}", "-n1", "sh", "-c", "true"), input=numbers)


class pool:  # noqa: N801
    """Run a pool of workers while a block runs; gives the pids, the supervisor's first."""

    def __init__(self, store_dir: Path, count: int) -> None:
        """Take the store and the number of workers."""
        self._arguments = (
            *QUEUECTL, "--store", str(store_dir), "worker", "start", "--quiet",
            "--count", str(count),
        )  # fmt: skip
        self._count = count
        self._store_dir = store_dir

    def __enter__(self) -> list[int]:
        """Start the pool and wait until its workers are there."""
        self._process = subprocess.Popen(self._arguments)
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        records = self._store_dir / "workers"
        wait_for(lambda: sum(each.endswith(".json") for each in os.listdir(records)) >= self._count)
        return [pid, *map(int, children.read_text().split())]

    def __exit__(self, *_: object) -> None:
        """Stop the pool."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()


def wait_for(condition: Callable[[], bool], timeout_seconds: float = 60) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the moment did not come")
        time.sleep(0.002)


ROWS = {
    "enqueue": Bench.cold_enqueue,
    "bulk": Bench.bulk,
    "drain": Bench.drain,
    "latency": Bench.latency,
    "idle": Bench.idle,
    "busy": Bench.idle_among_busy,
    "backlog": Bench.backlog_rate,
    "lookups": Bench.lookups,
    "memory": Bench.memory,
    "arrivals": memory.arrivals,
    "listed": memory.listed,
    "batch": memory.batch,
    "settled": Bench.settled,
}


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--quick", action="store_true", help="smaller and fewer, under two minutes")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp/queuectl-bench"))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/table.json"))
    chosen = parser.parse_args()
    unknown = set(chosen.rows) - set(ROWS)
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    rows: list[Row] = []
    with scratch(chosen.folder) as folder:
        bench = Bench(folder, quick=chosen.quick)
        for name in chosen.rows or ROWS:
            sys.stderr.write(f"{name} ...\n")
            rows += ROWS[name](bench)
        print_table(rows)
        write_json(chosen.json, rows)
        sys.stderr.write("removing what was made ...\n")
        remove(folder)


if __name__ == "__main__":
    main()

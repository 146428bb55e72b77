"""What is measured with each peer: speed, in turn with queuectl, and what is lost."""

import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.measure import median, percentile, scratch, seconds
from benchmarks.peers.base import Installation, Queue, until


@dataclass(kw_only=True, frozen=True)
class Scale:
    """Say how much is done."""

    cold: int  # enqueues of one job
    rounds: int  # of everything that takes long
    jobs: int
    slow_jobs: int  # with peers that are slow, for both sides
    starts: int  # jobs whose start is timed
    slow_starts: int
    kills: int  # of each kind
    patience: float  # seconds without anything new after which a job counts as not run


QUICK = Scale(
    cold=5, rounds=1, jobs=500, slow_jobs=500, starts=30, slow_starts=10, kills=1, patience=8
)
FULL = Scale(
    cold=20, rounds=3, jobs=3000, slow_jobs=500, starts=200, slow_starts=40, kills=3, patience=10
)


@dataclass(kw_only=True)
class Pair:
    """Be what was measured with a peer and with queuectl, in turn."""

    ours: float
    theirs: float
    count: int  # of jobs, or of enqueues

    @property
    def ratio(self) -> float:
        """Return theirs over ours."""
        return self.theirs / self.ours


@dataclass(kw_only=True)
class Killed:
    """Be what became of the jobs that were acknowledged, after `kill -9`."""

    acknowledged: int = 0
    lost: int = 0  # never completed, and the peer knows of it no more
    stuck: int = 0  # not completed, and still there; somebody has to see to it
    unsettled: int = 0  # completed, but the peer shows it as running, waiting or failed
    twice: int = 0  # completed more than once
    together: int = 0  # begun again while the first run went on

    def count(self, lines: Sequence[str], jobs: int, left: int) -> None:
        """Add what the log of some jobs tells, and how many the peer shows as not done."""
        missing = sum(f"end {i}" not in lines for i in range(jobs))
        stuck = min(missing, left)
        self.acknowledged += jobs
        self.stuck += stuck
        self.lost += missing - stuck
        self.unsettled += left - stuck
        self.twice += sum(lines.count(f"end {i}") > 1 for i in range(jobs))
        self.together += sum(runs_together(lines, i) for i in range(jobs))


@dataclass(kw_only=True)
class Subject:
    """Be a kind of queue, with what is installed for it and a folder for its queues."""

    kind: type[Queue]
    installed: Installation
    folder: Path

    @contextmanager
    def queue(self) -> Iterator[Queue]:
        """Give a new queue, open, and end all of it afterwards."""
        with scratch(self.folder) as folder:
            made = self.kind(self.installed, folder)
            try:
                made.open()
                yield made
            finally:
                made.close()


@dataclass(kw_only=True)
class Comparison:
    """Measure a peer in turn with queuectl."""

    ours: Subject
    theirs: Subject
    scale: Scale
    pairs: dict[str, Pair] = field(default_factory=dict)

    @property
    def jobs(self) -> int:
        """Return how many jobs both sides run."""
        usual = self.scale.slow_jobs if self.theirs.kind.slow else self.scale.jobs
        return min(usual, self.theirs.kind.most_jobs)

    def in_turn(self, name: str, action: Callable[[Queue], float], rounds: int, count: int) -> None:
        """Do something with both, again and again, each time with a new queue."""
        results: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            for subject, values in zip((self.ours, self.theirs), results, strict=True):
                with subject.queue() as queue:
                    values.append(action(queue))
        ours, theirs = map(median, results)
        self.pairs[name] = Pair(ours=ours, theirs=theirs, count=count)

    def cold(self) -> None:
        """Time the enqueue of one job, with the start of the program, in seconds."""
        times: tuple[list[float], list[float]] = ([], [])
        with self.ours.queue() as ours, self.theirs.queue() as theirs:
            for _ in range(self.scale.cold):
                for queue, values in zip((ours, theirs), times, strict=True):
                    values.append(seconds(partial(queue.add_one, "true")))
        pair = Pair(ours=median(times[0]), theirs=median(times[1]), count=self.scale.cold)
        self.pairs["cold_seconds"] = pair

    def bulk(self) -> None:
        """Take the rate at which many jobs are enqueued, a second."""
        commands = ["true"] * self.jobs

        def rate(queue: Queue) -> float:
            queue.hold(1)
            return len(commands) / seconds(lambda: queue.add_many(commands))

        self.in_turn("bulk_per_second", rate, self.scale.rounds, self.jobs)

    def drain(self, workers: int) -> None:
        """Take the rate at which jobs are run that are all there, a second."""
        commands = ["true"] * self.jobs

        def rate(queue: Queue) -> float:
            queue.hold(workers)
            queue.add_many(commands)
            return len(commands) / seconds(lambda: queue.drain(workers))

        self.in_turn(f"drain_{workers}_per_second", rate, self.scale.rounds, self.jobs)

    def combine(self) -> None:
        """Take the rate of enqueueing and running, with two workers, a second.

        Some begin with their jobs when they are enqueued: they have made the processes then, and
        drain what waits the faster.
        """
        bulk, drain = self.pairs.get("bulk_per_second"), self.pairs.get("drain_2_per_second")
        if bulk and drain:
            ours = 1 / (1 / bulk.ours + 1 / drain.ours)
            theirs = 1 / (1 / bulk.theirs + 1 / drain.theirs)
            self.pairs["all_per_second"] = Pair(ours=ours, theirs=theirs, count=self.jobs)

    def latency(self) -> None:
        """Time from the return of an enqueue to the first act of its command, in seconds."""
        count = self.scale.slow_starts if self.theirs.kind.slow else self.scale.starts
        chance = random.Random(1)  # so that no poller is met in step
        gaps = [chance.uniform(0.02, 0.2) for _ in range(count)]
        waits: list[list[float]] = []
        for subject in (self.ours, self.theirs):
            with subject.queue() as queue:
                fifo = queue.folder / "started"
                subprocess.run(("mkfifo", fifo), check=True)
                queue.work(1)
                queue.latencies(fifo, [0.2] * 2)  # the worker is there
                waits.append(queue.latencies(fifo, gaps))
        for name, pick in (("p50", median), ("p99", lambda values: percentile(values, 0.99))):
            ours, theirs = map(pick, waits)
            self.pairs[f"start_{name}_seconds"] = Pair(ours=ours, theirs=theirs, count=count)


# --- safety ---

_JOBS = 20
_HELD = 5  # the job that runs when the kill comes
_HOLD_SECONDS = 3


def killed(subject: Subject, scale: Scale, *, everything: bool) -> Killed:
    """Kill a peer's workers, or all of it with the running command, and see what is run.

    The queue is started again at once, as its documentation says, and waited for until nothing
    new has happened for some time.
    """
    found = Killed()
    for _ in range(scale.kills):
        with subject.queue() as queue:
            log = queue.folder / "log"
            log.touch()
            script = queue.folder / "job.sh"
            script.write_text(f'echo "begin $1" >>{log}; sleep $2; echo "end $1" >>{log}\n')
            lengths = [_HOLD_SECONDS if i == _HELD else 0.02 for i in range(_JOBS)]
            queue.work(1)
            queue.add_many([f"sh {script} {i} {length}" for i, length in enumerate(lengths)])
            until(partial(has, log, f"begin {_HELD}\n"), seconds=60)
            queue.kill(commands=everything)
            if everything:
                queue.open()
            queue.work(1)
            wait_until_quiet(log, _JOBS, scale.patience)
            found.count(log.read_text().splitlines(), _JOBS, queue.left())
    return found


def runs_together(lines: Sequence[str], number: int) -> bool:
    """Tell whether a job was begun again before it had ended."""
    mine = [line.split()[0] for line in lines if line.split()[1] == str(number)]
    return mine[:2] == ["begin", "begin"] and mine.count("end") > 1


def wait_until_quiet(log: Path, jobs: int, patience: float) -> None:
    """Wait until all jobs have ended and none begins again, or nothing is new for some time."""
    seen, since = -1, time.monotonic()
    while True:
        lines = log.read_text().splitlines()
        if len(lines) != seen:
            seen, since = len(lines), time.monotonic()
        done = len({line for line in lines if line.startswith("end")}) == jobs
        # What was cut off and has ended is begun again by some within their backoff.
        if time.monotonic() - since > (min(patience, 6) if done else patience):
            return
        time.sleep(0.05)


_SYNCS = "fsync,fdatasync,sync,syncfs,msync,sync_file_range"


def synced(subject: Subject) -> list[str] | None:
    """Return what is synced before an enqueue returns, or None where strace is missing."""
    strace = shutil.which("strace")
    if strace is None:
        return None
    with subject.queue() as queue:
        queue.hold(1)
        queue.add_one("true")  # what is made once has been made
        trace = queue.folder / "trace"
        options = (strace, "-f", "-y", "-e", f"trace={_SYNCS}", "-o")
        for pid in queue.processes(commands=False):
            queue.start(*options, f"{trace}.{pid}", "-p", str(pid))
            until(partial(is_traced, pid), seconds=10)
        (queue.folder / "input").write_bytes(queue.input("true"))
        # -D: strace is the grandchild, so that a client that goes on in the background, as some
        # do until their job is done, is not waited for.
        traced = (*options, str(trace), "-D", *queue.enqueue("true"))
        if queue.start("sh", "-c", 'exec "$@" <input', "sh", *traced).wait():
            raise RuntimeError((queue.folder / "output").read_text()[-2000:])
        text = "".join(path.read_text() for path in queue.folder.glob("trace*"))
        folder = str(queue.folder)
    call = re.compile(r"\b(\w+)\(\d+<([^>]*)>.*= 0$", re.MULTILINE)
    return [
        f"{name} {path.removeprefix(folder).strip('/') or '.'}" for name, path in call.findall(text)
    ]


def has(path: Path, text: str) -> bool:
    """Tell whether a file contains a text."""
    return text in path.read_text()


def is_traced(pid: int) -> bool:
    """Tell whether strace has a process."""
    try:
        return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True

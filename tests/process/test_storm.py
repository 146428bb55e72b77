"""Producers, workers and supervisors are killed at random: what was acknowledged is completed."""

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from tests.process.support import Pool, Queue, until
from tests.program import QUEUECTL

LARGE = bool(os.environ.get("QUEUECTL_TEST_LARGE"))
SEED = os.environ.get("QUEUECTL_TEST_SEED")
FIGURES = os.environ.get("QUEUECTL_TEST_FIGURES")
SECONDS = 45.0 if LARGE else 3.0
POOLS, WORKERS, PRODUCERS, BATCH = 2, 3, 2, 10
_MOST_WAITING = 300  # then the producers pause: a slow machine has to come to an end, too


class Storm:
    """Keep producers and pools on one queue, and kill them."""

    def __init__(self, queue: Queue, directory: Path, chance: random.Random) -> None:
        self._queue = queue
        self._directory = directory
        self._chance = chance
        self.command = ""
        self.killed: Counter[str] = Counter()
        self.acknowledged: list[Path] = []
        self._producers: list[subprocess.Popen[bytes]] = []
        self.pools: list[Pool] = []
        self.dead_pools: list[Pool] = []

    def keep_pools(self) -> None:
        """Start the pools that are missing."""
        while len(self.pools) < POOLS:
            self.pools.append(self._queue.pool("--count", str(WORKERS)))

    def keep_producers(self) -> None:
        """Start the producers that are missing, unless much waits already."""
        self._producers = [each for each in self._producers if each.poll() is None]
        waiting = len(os.listdir(self._queue.store / "pending"))
        while len(self._producers) < PRODUCERS and waiting < _MOST_WAITING:
            self._producers.append(self._produce())

    def _produce(self) -> "subprocess.Popen[bytes]":
        """Enqueue a few jobs by a process that may be killed; what it prints is acknowledged."""
        number = len(self.acknowledged)
        chosen = self._chance.random() < 0.5
        jobs: list[dict[str, object]] = []
        for index in range(self._chance.randint(1, BATCH)):
            job: dict[str, object] = {"command": self.command, "max_retries": 1000}
            if chosen:
                job["id"] = f"job-{number}-{index}"
                if index and self._chance.random() < 0.3:
                    job["after"] = [f"job-{number}-{index - 1}"]
            jobs.append(job)
        batch = self._directory / f"batch-{number}"
        batch.write_text("".join(json.dumps(job) + "\n" for job in jobs))
        told = self._directory / f"acknowledged-{number}"
        self.acknowledged.append(told)
        with told.open("wb") as stdout:
            return subprocess.Popen(
                [*QUEUECTL, "enqueue", "--batch", str(batch)], env=self._queue.env, stdout=stdout
            )

    def kill_one(self) -> None:
        """Kill a worker, a producer, or now and then a supervisor or a whole pool."""
        what = self._chance.choices(
            ("worker", "producer", "supervisor", "pool"), weights=(60, 25, 10, 5)
        )[0]
        if what == "producer" and self._producers:
            producer = self._producers.pop(self._chance.randrange(len(self._producers)))
            producer.kill()
            producer.wait()
        elif what == "worker":
            pids = [pid for pool in self.pools for pid in pool.pids()]
            if not pids:
                return
            with suppress(ProcessLookupError):
                os.kill(self._chance.choice(pids), signal.SIGKILL)
        elif what in ("supervisor", "pool") and self.pools:
            pool = self.pools.pop(self._chance.randrange(len(self.pools)))
            self.dead_pools.append(pool)
            if what == "pool":
                pool.kill()
            else:
                pool.signal(signal.SIGKILL).wait()
        else:
            return
        self.killed[what] += 1

    def calm(self) -> list[str]:
        """Let the producers end; return all ids that were acknowledged."""
        for producer in self._producers:
            producer.wait(30)
        ids = []
        for told in self.acknowledged:
            # What a kill cut in the middle of a line was not told.
            ids += told.read_text().split("\n")[:-1]
        return ids


def test_what_was_acknowledged_survives_a_storm(queue: Queue, tmp_path: Path) -> None:
    """Each acknowledged job is completed, none ran beside itself, and nothing else is left."""
    chance = random.Random(SEED)
    running, overlaps, ran = tmp_path / "running", tmp_path / "overlaps", tmp_path / "ran"
    running.mkdir()
    queue.configure(backoff_base=1, backoff_max="0.01s")
    queue.enqueue("true", "first", "--max-retries", "1000")
    storm = Storm(queue, tmp_path, chance)
    # The kernel frees the lock of a run that was cut off, so a held one is a run that is alive.
    storm.command = (
        f"exec 9> {running}/$QUEUECTL_JOB_ID; flock -n 9 || echo $QUEUECTL_JOB_ID >> {overlaps};"
        f" sleep 0.0{chance.randint(1, 9)}; echo $QUEUECTL_JOB_ID >> {ran}"
    )
    end_at = time.monotonic() + SECONDS
    while time.monotonic() < end_at:
        storm.keep_pools()
        storm.keep_producers()
        time.sleep(chance.uniform(0.01, 0.2))
        storm.kill_one()
    acknowledged = storm.calm()
    storm.keep_pools()
    until(lambda: not left(queue), "all jobs have ended", 120)
    # One that was started a moment ago does not listen to signals yet.
    assert [pool.ready(WORKERS).stop() for pool in storm.pools] == [0] * POOLS
    until(lambda: not queue.commands(), "no command runs", 30)
    queue.drain()  # a worker that starts removes what the killed ones left
    completed = queue.ids("completed")
    lost = sorted(set(acknowledged) - set(completed))
    assert lost == [], "acknowledged, and not completed"
    assert len(set(acknowledged)) == len(acknowledged)
    assert not overlaps.exists(), "ran beside themselves"
    for state in ("dead", "cancelled", "corrupt", "workers"):
        assert os.listdir(queue.store / state) == []
    assert set(ran.read_text().split()) == set(completed) - {"first"}
    outcomes = Counter(each for job_id in completed for each in queue.history("completed", job_id))
    assert outcomes["succeeded"] == len(completed)
    assert set(outcomes) <= {"succeeded", "lost"}
    talk = "".join(pool.talk() for pool in (*storm.pools, *storm.dead_pools))
    assert "Traceback" not in talk
    assert queue("doctor").exit_code == 0, queue("doctor").stdout
    assert storm.killed
    if FIGURES:
        figures = {f"{what}s killed": count for what, count in storm.killed.items()}
        figures |= {"storms": 1, "jobs of storms": len(completed)}
        figures |= {"acknowledged": len(acknowledged), "attempts cut off": outcomes["lost"]}
        with open(FIGURES, "a") as file:
            file.write(json.dumps(figures) + "\n")


def left(queue: Queue) -> list[str]:
    """Return what has not ended."""
    blocked = queue.store / "blocked"
    found = []
    for parent in os.listdir(blocked):
        with suppress(FileNotFoundError):  # the directory of a parent goes with its last child
            found += os.listdir(blocked / parent)
    return [*found, *queue.ids("pending"), *queue.ids("processing")]


pytestmark = pytest.mark.timeout(600 if LARGE else 300)

"""Measure what is held in memory of very many jobs: the rows `arrivals`, `listed` and `batch`."""

import time
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from benchmarks.measure import QUEUECTL, Row, private_mb, usage_of
from queuectl.clock import utc_now
from queuectl.store import open_store

_BATCH = 100_000
_ARRIVALS = 120_000
_AT_ONCE = 10_000


class Stores(Protocol):
    """What makes stores in a folder, with few jobs or many, as the benchmark asks."""

    folder: Path
    many: int

    def new_store(self, count: int) -> Path:
        """Return a new store with some pending jobs."""

    def backlog(self) -> Path:
        """Return a store with very many pending jobs."""


def arrivals(stores: Stores) -> list[Row]:
    """Read the private memory of an idle worker while delayed jobs arrive."""
    from benchmarks.run import job, pool, wait_for  # which imports this

    store_dir = stores.new_store(0)
    used = []
    with pool(store_dir, 1) as pids:
        store = open_store(str(store_dir))
        store.add([job("true", 0)])
        wait_for(lambda: len(list((store_dir / "completed").iterdir())) == 1)
        before = private_mb(pids[1])
        tomorrow = utc_now() + timedelta(days=1)
        for start in range(0, _ARRIVALS, _AT_ONCE):
            store.add(
                [
                    job("true", i)._replace(run_at=tomorrow + timedelta(seconds=start + i))
                    for i in range(_AT_ONCE)
                ]
            )
            used.append(private_mb(pids[1]) - before)
        store.close()
        time.sleep(1)  # it has read of all of them
        used.append(private_mb(pids[1]) - before)
    return [
        Row(
            name=f"memory, {_ARRIVALS} arrivals",
            measure="private memory that an idle worker takes more while delayed jobs arrive",
            goal="<= 4 MB",
            value=max(used),
            reached=max(used) <= 4,
            unit=" MB",
            details={"before_mb": before, "last_mb": used[-1]},
        )
    ]


def listed(stores: Stores) -> list[Row]:
    """Read the peak memory of a list of all jobs."""
    command = (*QUEUECTL, "--store", str(stores.backlog()), "list", "--json")
    seconds, peak = usage_of(command)
    return [_peak_row(f"`list --json`, {stores.many}", "peak memory", seconds, peak)]


def batch(stores: Stores) -> list[Row]:
    """Read the peak memory of enqueuing a batch."""
    lines = stores.folder / "many-lines"
    lines.write_text("true\n" * _BATCH)
    store_dir = stores.new_store(0)
    seconds, peak = usage_of(
        (*QUEUECTL, "--store", str(store_dir), "enqueue", "--batch", str(lines))
    )
    return [_peak_row(f"batch, {_BATCH} lines", "peak memory of `enqueue`", seconds, peak)]


def _peak_row(name: str, measure: str, seconds: float, peak_mb: float) -> Row:
    return Row(
        name=name,
        measure=measure,
        goal="<= 60 MB",
        value=peak_mb,
        reached=peak_mb <= 60,
        unit=" MB",
        details={"seconds": seconds},
    )

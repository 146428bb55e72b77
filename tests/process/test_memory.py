"""No command holds in memory what is there once for each job."""

import os
import sys
from pathlib import Path

import pytest
from benchmarks.measure import usage_of
from tests.jobs import make_job

from queuectl.store import open_store

_MANY = 20_000


def peak_mb(store_dir: Path, *arguments: str) -> float:
    """Return the most memory that a command takes, in MB."""
    _, peak = usage_of((sys.executable, "-m", "queuectl", "--store", str(store_dir), *arguments))
    return peak


@pytest.mark.parametrize("line", ["true", '{{"id": "job-{0}", "command": "true"}}'])
def test_a_batch_is_not_held_whole(tmp_path: Path, line: str) -> None:
    """A batch of 20,000 lines takes a few MB more than one of two."""
    used = []
    for count in (2, _MANY):
        lines = tmp_path / f"{count}.txt"
        lines.write_text("".join(line.format(number) + "\n" for number in range(count)))
        used.append(peak_mb(tmp_path / "q", "enqueue", "--if-exists=skip", "--batch", str(lines)))
    few, many = used
    assert many - few < (12 if "id" in line else 5)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a store with few pending and dead jobs, and one with very many."""
    few, many = (tmp_path_factory.mktemp("memory") / name for name in ("few", "many"))
    for path, count in ((few, 2), (many, _MANY)):
        store = open_store(str(path), create=True)
        store.add([make_job("a")])
        store.close()
        (pending,) = (path / "pending").iterdir()
        for number in range(1, count):
            os.link(pending, f"{path}/pending/{pending.name.removesuffix('a.json')}{number}.json")
            os.link(pending, f"{path}/dead/dead-{number}.json")
    return few, many


@pytest.mark.parametrize(
    "command",
    [
        "list --json",
        "list --json --limit 18000",
        "list --json --reverse",
        "list --command-matches run --json",
        "dlq list --json",
        "dlq purge --dry-run --json",
        "list --json --sort created",
    ],
)
def test_jobs_are_not_held_while_they_are_gone_through(
    stores: tuple[Path, Path], command: str
) -> None:
    """What is held of each of very many jobs is a name, packed."""
    few, many = (peak_mb(store_dir, *command.split()) for store_dir in stores)
    # One part that is sorted is held as it is, with sort keys as entries.
    assert many - few < (12 if "sort" in command else 6)

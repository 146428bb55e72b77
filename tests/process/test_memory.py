"""No command holds in memory what is there once for each job."""

import sys
from pathlib import Path

import pytest
from benchmarks.measure import usage_of

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
    assert many - few < (9 if "id" in line else 5)

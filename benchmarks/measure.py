"""Run programs, time them, and look at what they use."""

import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

PYTHON = sys.executable
QUEUECTL = (str(Path(PYTHON).with_name("queuectl")),)


@dataclass(kw_only=True)
class Row:
    """Be one line of the table: what was measured, against what, and the goal."""

    name: str
    measure: str
    goal: str
    value: float
    reached: bool
    unit: str = ""
    details: dict[str, object] = field(default_factory=dict)


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """Give a new directory; it is removed at the end of all, not between two measurements.

    ext4 makes files slowly for some minutes after many were deleted nearby. So that what one
    measurement deletes does not slow down the next, each directory gets a place of its own on the
    disk: those in a directory with the attribute T are spread over it (see chattr(1)).
    """
    parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        # Only ext4 has it.
        subprocess.run(("chattr", "+T", parent), check=False, capture_output=True)
    yield Path(tempfile.mkdtemp(prefix="bench-", dir=parent))


def run(arguments: Sequence[str], **options: object) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end, and fail where it fails."""
    return subprocess.run(arguments, check=True, capture_output=True, **options)  # type: ignore[call-overload,no-any-return]


def seconds(action: Callable[[], object]) -> float:
    """Return how long an action takes, in seconds on the monotonic clock."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def alternating(
    first: Callable[[], float], second: Callable[[], float], rounds: int
) -> tuple[list[float], list[float], list[float]]:
    """Measure two things in turn; return both lists and the ratios pair by pair."""
    ours, limits = [], []
    for _ in range(rounds):
        ours.append(first())
        limits.append(second())
    return ours, limits, [a / b for a, b in zip(ours, limits, strict=True)]


# The kernel counts in a child's peak what it held before its exec, which was a copy of the parent:
# so the parent must be smaller than anything that is measured.
_SMALL_PARENT = """
import os, sys, time
null = os.open(os.devnull, os.O_RDWR)
start = time.perf_counter()
pid = os.posix_spawnp(
    sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, null, 1)]
)
_, status, used = os.wait4(pid, 0)
print(time.perf_counter() - start, used.ru_maxrss / 1024, os.waitstatus_to_exitcode(status))
"""


def usage_of(
    arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> tuple[float, float]:
    """Run a program; return its wall time in seconds and its peak memory in MB."""
    parent = (PYTHON, "-I", "-S", "-c", _SMALL_PARENT, *arguments)
    output = run(parent, env={**os.environ, **(environment or {})}).stdout
    wall, peak, code = output.split()
    if int(code):
        raise RuntimeError(f"{arguments} ended with {int(code)}")
    return float(wall), float(peak)


def private_mb(pid: int) -> float:
    """Return the memory that a process shares with nobody, in MB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return (
        sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_"))
        / 1024
    )


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used, from the scheduler's nanoseconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that a share of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def machine() -> dict[str, object]:
    """Describe the machine and the moment."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def print_table(rows: Sequence[Row]) -> None:
    """Print the rows for a person."""
    from tabulate import tabulate

    table = [
        (
            row.name,
            row.measure,
            row.goal,
            f"{row.value:.3g}{row.unit}",
            "yes" if row.reached else "NO",
        )
        for row in rows
    ]
    sys.stdout.write(tabulate(table, ("what", "measure", "goal", "measured", "reached")) + "\n")


def write_json(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows and the machine for a program."""
    document = {"machine": machine(), "rows": [asdict(row) for row in rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")


def children_seconds() -> float:
    """Return the processor time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def remove(path: Path) -> None:
    """Delete a directory tree."""
    shutil.rmtree(path, ignore_errors=True)

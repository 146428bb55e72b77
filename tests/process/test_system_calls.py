"""What a job costs in system calls: a guard for speed that depends on no clock."""

import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from tests.jobs import make_jobs
from tests.program import QUEUECTL

from queuectl.clock import utc_now
from queuectl.store import open_store

pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace, which counts system calls, is not installed"
)

# The most that a job may cost on the way from pending/ to completed/, the shell that runs it
# included. A rename over an existing file (the cost of three) shows as unlinkat or renameat.
CEILINGS = {
    "renameat": 0.2,
    # To processing/, the new document in the place of the old, and to completed/.
    "renameat2": 3.1,
    "unlinkat": 0.3,
    # Shared by many jobs that end together; under strace, which is slow, one may pay for itself.
    "fsync": 4.2,
    "syncfs": 0.5,
    "openat": 9.0,  # the document, the log, the spare file; six are the shell's own start
    "flock": 2.5,
    "fcntl": 4.5,
    "pwrite64": 3.5,
}
FEW, MANY = 50, 250


def calls(store_dir: Path, count: int) -> Counter[str]:
    """Count the system calls of draining so many jobs."""
    store = open_store(str(store_dir), create=True)
    store.add(make_jobs(*(f"job-{i}" for i in range(count)), command="true", run_at=utc_now()))
    store.close()
    trace = store_dir.parent / f"{store_dir.name}.trace"
    watched = ("strace", "-f", "-q", "-o", str(trace), "-e", "trace=" + ",".join(CEILINGS))
    queuectl = (*QUEUECTL, "--store", str(store_dir))
    subprocess.run([*watched, *queuectl, "worker", "start", "--drain", "--quiet"], check=True)
    assert len(os.listdir(store_dir / "completed")) == count
    return Counter(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE))


def test_a_job_costs_few_system_calls(tmp_path: Path) -> None:
    """Each kind of call that costs stays below its ceiling, counted from the slope of two runs."""
    few, many = calls(tmp_path / "few", FEW), calls(tmp_path / "many", MANY)
    each = {name: (many[name] - few[name]) / (MANY - FEW) for name in CEILINGS}
    assert {name: cost for name, cost in each.items() if cost > CEILINGS[name]} == {}
    assert each["renameat2"] > 1.5, "the trace has counted nothing"

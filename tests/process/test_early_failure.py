"""A pool whose workers cannot work."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from queuectl import pool

def fail(worker):
    raise RuntimeError("broken")

pool.Worker.run = fail
pool._REPLACE_SECONDS = 0.001
sys.exit(pool.run_pool(sys.argv[1], 2, drain=False, detach=False, quiet=True))
"""


def test_a_pool_whose_workers_all_fail_at_their_start_gives_up(tmp_path: Path) -> None:
    """The supervisor does not start workers for ever that end with a bug at once: exit code 70."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "q")], capture_output=True, check=False
    )
    assert done.returncode == 70
    assert b"gives up: 10 workers failed at their start" in done.stderr
    assert done.stderr.count(b"RuntimeError: broken") in (10, 11, 12)

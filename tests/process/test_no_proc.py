"""Workers where there is no /proc, as on most BSDs and in some sandboxes."""

import shutil
import subprocess

import pytest
from tests.process.support import Queue

UNSHARE = ("unshare", "--map-root-user", "--mount")
HIDDEN = (*UNSHARE, "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh")


@pytest.fixture(autouse=True)
def _hidden() -> None:
    """Skip where /proc cannot be hidden."""
    if shutil.which("unshare") is None or subprocess.run((*HIDDEN, "true"), check=False).returncode:
        pytest.skip("/proc cannot be hidden")


def test_without_proc_workers_run_jobs_and_a_timeout_leaves_the_grace(queue: Queue) -> None:
    """What a command does in its grace is done."""
    queue.enqueue("echo ran", "job")
    queue.enqueue(
        "trap 'sleep 0.1; echo ended in order; exit 3' TERM; while :; do sleep 0.02; done",
        "slow", "--timeout", "0.3s", "--max-retries", "1",
    )  # fmt: skip
    pool = queue.pool("--count", "2", "--drain", prefix=HIDDEN)
    assert pool.wait() == 0, pool.talk()
    assert queue.log("job") == "ran\n"
    assert "ended in order\n" in queue.log("slow")
    assert queue.history("dead", "slow", "exit_code") == [3]


def test_without_proc_a_descriptor_of_the_caller_is_not_for_the_commands(queue: Queue) -> None:
    """Nothing lists those that are open, and all that may be are looked at."""
    (queue.here / "mine").write_text("secret\n")
    queue.enqueue("cat <&7; true", "job")
    prefix = ("sh", "-c", 'exec 7< mine; exec "$@"', "sh", *HIDDEN)
    assert queue.pool("--drain", prefix=prefix).wait() == 0
    assert "secret" not in queue.log("job")

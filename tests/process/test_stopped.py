"""A process that is stopped from outside holds up nobody but those who share it."""

import os
import signal

from tests.process.support import Queue, proc_stat, until

# As sitecustomize, this stops the first process that scans, while it keeps the others out.
STOP_IN_A_SCAN = """
import os, signal
from queuectl.store.listing import Listing
scan = Listing._scan

def stop_and_scan(self, now):
    try:
        os.unlink(os.environ["STOP"])
    except FileNotFoundError:
        pass
    else:
        os.kill(os.getpid(), signal.SIGSTOP)
    scan(self, now)

Listing._scan = stop_and_scan
"""


def test_a_process_that_is_stopped_in_a_scan_does_not_stop_the_others(queue: Queue) -> None:
    """Its siblings scan for themselves: they take jobs, and keep timeouts."""
    stop = queue.here / "stop"
    stop.touch()
    env = {**queue.replacing("sitecustomize", STOP_IN_A_SCAN), "STOP": str(stop)}
    pool = queue.pool("--count", "2", env=env).ready(2)
    until(lambda: not stop.exists(), "one of them scans")
    (stopped,) = until(
        lambda: [pid for pid in pool.pids() if proc_stat(pid)[0] == "T"], "it is stopped"
    )
    queue.enqueue("true", "job")
    queue.enqueue("sleep 60", "long", "--timeout", "0.1", "--max-retries", "1")
    queue.until_in("completed", "job")
    queue.until_in("dead", "long")
    assert queue.history("dead", "long") == ["timed_out"]
    os.kill(stopped, signal.SIGCONT)
    assert pool.stop() == 0

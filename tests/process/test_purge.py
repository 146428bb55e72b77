"""Workers delete what the settings do not keep, while they are idle."""

import os
import time

from tests.process.support import Queue, until


def test_an_idle_worker_purges_and_goes_on(queue: Queue) -> None:
    """What is old goes with its log; a job that comes then runs as ever, and is kept."""
    queue.configure(keep_completed="1h")
    queue.enqueue("echo old", "old")
    queue.drain()
    document, log = queue.store / "completed" / "old.json", queue.store / "logs" / "old.1.log"
    a_day_ago = time.time() - 86400
    os.utime(document, (a_day_ago, a_day_ago))
    os.utime(queue.store / "purge.lock", (a_day_ago, a_day_ago))
    pool = queue.pool("--count", "2").ready(2)
    until(lambda: not document.exists(), "the old job is purged")
    until(lambda: not log.exists(), "its log is gone")
    queue.enqueue("echo new", "new")
    queue.until_in("completed", "new")
    assert queue.log("new") == "new\n"
    assert pool.stop() == 0, pool.talk()


def test_no_setting_makes_no_file(queue: Queue) -> None:
    """A store that keeps everything does not pay for it."""
    queue.enqueue("true", "a")
    queue.drain()
    assert not (queue.store / "purge.lock").exists()

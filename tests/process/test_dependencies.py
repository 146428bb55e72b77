"""Jobs that wait for others, with real workers, real commands and real crashes."""

import json
from typing import Any

from tests.process.support import Queue, in_each_setting


@in_each_setting
def test_pipeline_runs_in_the_order_of_its_dependencies(queue: Queue) -> None:
    """A job never starts before what it waits for has completed, with several workers at it."""
    log = queue.here / "order"
    jobs: list[dict[str, Any]] = [{"id": "a", "command": f"echo a >> {log}"}]
    jobs += [
        {"id": name, "command": f"echo {name} >> {log}", "after": ["a"]} for name in ("b", "c", "d")
    ]
    jobs.append({"id": "e", "command": f"echo e >> {log}", "after": ["b", "c", "d"]})
    queue.batch(jobs)
    queue.drain("--count", "3")
    order = log.read_text().split()
    assert order[0] == "a"
    assert sorted(order[1:4]) == ["b", "c", "d"]
    assert order[4:] == ["e"]
    assert list((queue.store / "blocked").iterdir()) == []


def test_child_wakes_a_worker_that_sleeps(queue: Queue) -> None:
    """The end of the parent is told to the workers that have nothing to do, at once."""
    gate = queue.gate()
    queue.enqueue(gate.wait, "p")
    queue.enqueue("true", "c1", "--after", "p")
    queue.enqueue("true", "c2", "--after", "p")
    pool = queue.pool("--count", "2").ready(2)
    gate.open()
    queue.until_in("completed", "c1", seconds=5)
    queue.until_in("completed", "c2", seconds=5)
    assert pool.stop() == 0


def test_dead_parent_blocks_until_it_is_retried(queue: Queue) -> None:
    """Drain ends though a job is blocked for good; dlq retry of the parent lets it go on."""
    flag = queue.here / "flag"
    queue.enqueue(f"test -e {flag}", "p", "--max-retries", "1")
    queue.enqueue("true", "strict", "--after", "p")
    queue.enqueue("true", "any", "--after-any", "p")
    queue.drain()
    assert queue.ids("dead") == ["p"]
    assert queue.ids("completed") == ["any"]
    assert "after p (dead)" in queue.ok("list", "--state", "blocked")
    flag.touch()
    queue.ok("dlq", "retry", "p")
    queue.drain()
    assert queue.ids("completed") == ["any", "p", "strict"]


def test_end_that_a_killed_program_did_not_pass_on_is_found_by_the_next_worker(
    queue: Queue,
) -> None:
    """Workers look through what is blocked when they start."""
    queue.enqueue("true", "p")
    queue.enqueue("true", "c", "--after", "p")
    (pending,) = (queue.store / "pending").glob("*-p.json")
    # As a worker leaves it that is killed between the two.
    document = json.loads(pending.read_text()) | {"state": "completed"}
    pending.write_text(json.dumps(document))
    pending.rename(queue.store / "completed/p.json")
    queue.drain()
    assert queue.ids("completed") == ["c", "p"]
    assert list((queue.store / "blocked").iterdir()) == []


def test_purge_keeps_whom_a_blocked_job_names(queue: Queue) -> None:
    """All of its parents stay, and are purged when it has gone on."""
    queue.enqueue("true", "p")
    queue.enqueue("false", "q", "--max-retries", "1")
    queue.enqueue("true", "c", "--after", "q", "--after", "p")
    queue.drain()
    queue.ok("purge", "--state", "completed", "--state", "dead")
    assert (queue.ids("completed"), queue.ids("dead")) == (["p"], ["q"])
    queue.ok("cancel", "c")
    queue.ok("purge", "--state", "completed", "--state", "dead")
    assert (queue.ids("completed"), queue.ids("dead")) == ([], [])

"""What a job may not ask for from inside: it would wait for its own end."""

import shlex
from pathlib import Path

import pytest
from tests.process.support import Queue
from tests.program import QUEUECTL

SELF = shlex.join(QUEUECTL)


def said(queue: Queue, words: str, *pool: str) -> str:
    """Run a queuectl command as a job, and return what it wrote and its exit code."""
    command = f"{SELF} {words}; echo code $?"
    queue.enqueue(command, "job", "--timeout", "10s", "--max-retries", "1")
    queue.drain(*pool)
    assert queue.history("completed", "job") == ["succeeded"]
    return queue.log("job")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("worker stop", "and its worker would wait for its end: give --now or --timeout"),
        ("wait $QUEUECTL_JOB_ID", "and cannot wait for itself"),
        ("wait --timeout 1h job", "and cannot wait for itself"),
        ("wait --any job", "and cannot wait for itself"),
        ("logs -f job", "and would write into the log that it follows"),
    ],
)
def test_a_job_that_would_wait_for_itself_is_told_so_at_once(
    queue: Queue, words: str, why: str
) -> None:
    """It hung until its timeout, or for ever, or filled the disk."""
    assert said(queue, words) == f"Error: job job runs this command, {why}\ncode 65\n"


def test_a_job_does_not_wait_for_one_that_waits_for_it(queue: Queue) -> None:
    """Neither directly nor by others."""
    command = (
        f"{SELF} enqueue --id child --after job true;"
        f"{SELF} enqueue --id grandchild --after child true; {SELF} wait grandchild; echo code $?"
    )
    queue.enqueue(command, "job", "--timeout", "10s", "--max-retries", "1")
    queue.drain()
    assert queue.log("job") == (
        "child\ngrandchild\n"
        "Error: job job runs this command, and cannot wait for grandchild, which waits for it\n"
        "code 65\n"
    )
    assert queue.ids("completed") == ["child", "grandchild", "job"]


def test_a_job_may_wait_for_the_first_of_itself_and_another(queue: Queue) -> None:
    """The other may end before it."""
    queue.enqueue("true", "other")
    assert said(queue, "wait --any job other", "--count", "2") == "code 0\n"


def test_a_job_may_ask_the_workers_to_stop_and_go_on(queue: Queue) -> None:
    """With a timeout it does not wait for its own end."""
    log = said(queue, "worker stop --timeout 0.1s")
    assert log.endswith("they stop when their jobs are done\ncode 75\n")


def test_what_a_job_left_behind_and_another_store_may_be_waited_for(
    queue: Queue, tmp_path: Path
) -> None:
    """Neither waits for the end of that job."""
    queue.env |= {"QUEUECTL_JOB_ID": "job", "QUEUECTL_ATTEMPT": "1"}
    queue.enqueue("true", "job")
    queue.drain()
    assert queue("wait", "job").exit_code == 0
    assert queue("worker", "stop").exit_code == 0
    queue.enqueue(f"{SELF} --store {tmp_path / 'other'} worker stop", "stops-others")
    queue.drain()
    assert queue.log("stops-others") == "no workers are running\n"

"""A job was removed by hand, and its id is used again."""

import pytest
from tests.process.support import Queue


@pytest.mark.parametrize("was", ["completed", "pending"])
def test_new_job_of_an_id_starts_with_an_empty_log(queue: Queue, was: str) -> None:
    """What an older job of that id has written is neither shown as its output nor goes on in it."""
    queue.enqueue("echo old", "again")
    queue.drain()
    if was == "pending":
        queue.ok("retry", "again")
        queue.drain()
        queue.ok("retry", "again")
    for path in (queue.store / was).iterdir():
        path.unlink()
    queue.enqueue("echo new", "again")
    answer = queue("logs", "again")
    assert (answer.exit_code, answer.stdout) == (66, "")
    assert answer.stderr.startswith("Error: job again is pending and has no log of attempt 1")
    assert queue("logs", "again", "--attempt", "2").exit_code == 66
    queue.drain()
    assert queue.ok("logs", "again") == "new\n"
    assert queue.log("again", 1) == "new\n"

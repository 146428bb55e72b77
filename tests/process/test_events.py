"""What workers tell on stderr."""

import re

from tests.process.support import Queue

EVENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (w-\w+|supervisor) (.+)")


def test_each_event_is_a_line_that_says_when_who_and_what(queue: Queue) -> None:
    """Start and end of each attempt, with job, number, outcome, length and what follows."""
    queue.configure(backoff_base=1, backoff_max="0.01s")
    queue.enqueue("true", "good")
    queue.enqueue("exit 7", "bad", "--max-retries", "2")
    queue.enqueue("kill -9 $$", "ugly", "--max-retries", "1")
    pool = queue.pool()
    queue.until_in("completed", "good")
    queue.until_in("dead", "bad")
    queue.until_in("dead", "ugly")
    assert pool.stop() == 0
    events = [EVENT.fullmatch(line) for line in pool.talk().splitlines()]
    assert all(events), pool.talk()
    texts = [event[3] for event in events if event]
    length = r"\d+(\.\d+)?s"
    again = f"retrying in {length} \\(attempt 1 of 2\\)"
    for pattern in (
        "good attempt 1 started",
        f"good attempt 1 succeeded after {length}",
        f"bad attempt 1 failed \\(exit code 7\\) after {length}; {again}",
        f"bad attempt 2 failed \\(exit code 7\\) after {length}; now dead",
        f"ugly attempt 1 killed \\(SIGKILL\\) after {length}; now dead",
        "stopping when the jobs are done",
    ):
        assert sum(bool(re.fullmatch(pattern, text)) for text in texts) == 1, (pattern, texts)
    names = {event[2] for event in events if event}
    (worker,) = names - {"supervisor"}
    assert queue.history("completed", "good", "worker") == [worker]


def test_a_quiet_pool_tells_errors_alone(queue: Queue) -> None:
    """That a job failed is no error of the pool; that a worker was killed is one."""
    queue.configure(backoff_base=1, backoff_max="0.01s")
    queue.enqueue("true", "good")
    queue.enqueue("exit 7", "bad", "--max-retries", "1")
    assert queue.drain("--quiet") == ""
    queue.enqueue("kill -9 $PPID", "killer", "--max-retries", "1")
    pool = queue.pool("--quiet")
    queue.until_in("dead", "killer")
    assert pool.stop() == 0
    (line,) = pool.talk().splitlines()
    event = EVENT.fullmatch(line)
    assert event
    assert event[2] == "supervisor"
    assert re.fullmatch(r"w-\w+ was killed by signal 9", event[3])


def test_what_a_job_brings_cannot_forge_an_event(queue: Queue) -> None:
    """A newline or an escape sequence in a directory's name does not reach the terminal as such."""
    place = queue.here / "a\nb\x1b[31m"
    place.mkdir()
    queue.enqueue("true", "job", "--max-retries", "1", "--cwd", str(place))
    place.rmdir()
    talk = queue.drain()
    assert "\x1b" not in talk
    assert all(EVENT.fullmatch(line) for line in talk.splitlines()), talk

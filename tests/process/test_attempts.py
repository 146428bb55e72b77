"""How an attempt can end, and what becomes of the job then."""

import os
import sys
from datetime import datetime
from pathlib import Path

import pytest
from tests.process.support import Queue, in_each_setting, lives, until
from tests.program import QUEUECTL

SUBREAPER = """
import ctypes, os, subprocess, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans come here, and stay
sys.exit(subprocess.Popen(sys.argv[1:]).wait())
"""


def seconds_between(start: str, end: str) -> float:
    """Return how long after the first instant the second one is."""
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def test_a_job_that_always_fails_ends_in_the_dead_letter_queue(queue: Queue) -> None:
    """By default it runs three times, 2 s and 4 s apart; a retry starts over and keeps all."""
    queue.enqueue("cat /no/file/here", "fail-job")
    pool = queue.pool()
    queue.until_in("dead", "fail-job", 30)
    document = queue.document("dead", "fail-job")
    assert (document["state"], document["attempts"]) == ("dead", 3)
    assert [each["outcome"] for each in document["history"]] == ["failed"] * 3
    assert [each["exit_code"] for each in document["history"]] == [1] * 3
    assert [each["number"] for each in document["history"]] == [1, 2, 3]
    first, second, third = document["history"]
    assert 2 <= seconds_between(first["finished_at"], second["started_at"]) < 4
    assert 4 <= seconds_between(second["finished_at"], third["started_at"]) < 8
    for number in (1, 2, 3):
        assert "No such file" in queue.log("fail-job", number)

    queue.configure(backoff_base=1, backoff_max="0.01s")
    assert queue.ok("dlq", "retry", "fail-job") == "fail-job\n"
    until(lambda: len(queue.history("dead", "fail-job")) == 6 if queue.ids("dead") else False,
          "it has run three times more")  # fmt: skip
    document = queue.document("dead", "fail-job")
    assert document["attempts"] == 3
    assert document["history"][:3] != document["history"][3:]
    assert [each["number"] for each in document["history"]] == [1, 2, 3, 4, 5, 6]
    assert "No such file" in queue.log("fail-job", 6)
    assert pool.stop() == 0


@in_each_setting
def test_a_retried_job_has_no_attempts_but_its_history(queue: Queue) -> None:
    """What is counted starts at 0 again; what has happened stays."""
    queue.enqueue("exit 3", "once", "--max-retries", "1")
    queue.drain()
    before = queue.document("dead", "once")
    queue.ok("dlq", "retry", "once")
    (name,) = queue.ids("pending")
    after = queue.document("pending", name)
    assert (after["attempts"], after["state"]) == (0, "pending")
    assert after["history"] == before["history"]
    queue.drain()
    assert queue.history("dead", "once", "exit_code") == [3, 3]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("no-such-command-here", {"outcome": "not_found", "exit_code": 127}),
        ("exit 42", {"outcome": "failed", "exit_code": 42}),
        ("kill -9 $$", {"outcome": "signalled", "signal": 9}),
        ("kill -TERM $$", {"outcome": "signalled", "signal": 15}),
        ("kill -SEGV $$", {"outcome": "signalled", "signal": 11}),
    ],
)
def test_each_way_to_fail_is_told_apart_and_retried(
    queue: Queue, command: str, expected: dict[str, object]
) -> None:
    """What waitpid tells is recorded, a signal not taken for an exit code; each is tried again."""
    queue.configure(backoff_base=1, backoff_max="0.01s")
    queue.enqueue(command, "job", "--max-retries", "2")
    pool = queue.pool()
    queue.until_in("dead", "job")
    for attempt in queue.document("dead", "job")["history"]:
        for key in ("outcome", "exit_code", "signal"):
            assert attempt.get(key) == expected.get(key)
    assert len(queue.history("dead", "job")) == 2
    assert pool.stop() == 0


def test_a_job_whose_directory_is_gone_cannot_be_started(queue: Queue) -> None:
    """It has failed like any other; its log and the worker say why, with the directory's name."""
    gone = queue.here / "gone"
    gone.mkdir()
    queue.configure(backoff_base=1, backoff_max="0.01s")
    queue.enqueue("true", "job", "--max-retries", "2", "--cwd", str(gone))
    gone.rmdir()
    pool = queue.pool()
    queue.until_in("dead", "job")
    assert queue.history("dead", "job") == ["not_started"] * 2
    assert queue.log("job", 2) == (
        f"queuectl: cannot be started: No such file or directory: {gone}\n"
    )
    assert f"job attempt 2 cannot be started: No such file or directory: {gone}" in pool.talk()
    assert pool.stop() == 0


@in_each_setting
def test_a_command_that_takes_too_long_is_ended_with_all_its_children(queue: Queue) -> None:
    """SIGTERM, the grace, SIGKILL: nothing of the group is left, though it ignores SIGTERM."""
    queue.configure(kill_grace="0.2s", backoff_base=1, backoff_max="0.01s")
    stubborn = "trap '' TERM; (while :; do sleep 0.05; done) & while :; do sleep 0.05; done"
    queue.enqueue(stubborn, "stubborn", "--timeout", "0.3s", "--max-retries", "2")
    pool = queue.pool()
    until(queue.commands, "it runs")
    queue.until_in("dead", "stubborn")
    assert queue.history("dead", "stubborn") == ["timed_out"] * 2
    assert queue.history("dead", "stubborn", "signal") == [9, 9]
    for duration in queue.history("dead", "stubborn", "duration"):
        assert 0.5 <= duration < 8
    assert not [pid for pid in queue.commands() if lives(pid)]
    assert pool.stop() == 0


@in_each_setting
def test_a_command_may_clean_up_when_its_time_is_over(queue: Queue) -> None:
    """It gets SIGTERM first, and one that then ends with 0 has timed out nevertheless."""
    gate = queue.gate()
    command = f"exec 2> /dev/null; trap 'echo cleaned; exit 0' TERM; {gate.wait}"
    queue.enqueue(command, "tidy", "--timeout", "0.2s", "--max-retries", "1")
    queue.drain()
    assert queue.log("tidy") == "cleaned\n"
    assert queue.history("dead", "tidy") == ["timed_out"]
    assert queue.history("dead", "tidy", "exit_code") == [0]


def test_a_command_that_stopped_itself_is_ended(queue: Queue) -> None:
    """A stopped process takes no SIGTERM until it is continued; the grace is not waited out."""
    queue.enqueue("kill -STOP $$", "stopped", "--timeout", "0.2s", "--max-retries", "1")
    queue.drain()
    assert queue.history("dead", "stopped") == ["timed_out"]
    assert queue.history("dead", "stopped", "duration")[0] < 5


def test_what_nobody_reaps_does_not_hold_up_a_timeout(queue: Queue) -> None:
    """In a container whose first process reaps nothing, a dead group is seen to be dead."""
    command = "sleep 100 & sleep 100 & wait"
    queue.enqueue(command, "job", "--timeout", "0.2s", "--max-retries", "1")
    arguments = [sys.executable, "-c", SUBREAPER, *QUEUECTL]
    pid = os.spawnve(
        os.P_NOWAIT,
        sys.executable,
        [*arguments, "worker", "start", "--drain", "--quiet"],
        queue.env,
    )
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    (attempt,) = queue.document("dead", "job")["history"]
    assert attempt["outcome"] == "timed_out"
    # Neither the grace nor the time that a kill may take was waited out.
    assert seconds_between(attempt["started_at"], attempt["finished_at"]) < 8


def test_a_daemon_that_a_job_leaves_behind_does_not_hold_it_up(
    queue: Queue, tmp_path: Path
) -> None:
    """The job ends with its command; what that left in the background goes on."""
    gate = queue.gate()
    queue.enqueue(f"({gate.wait}; echo late) & echo early", "parent")
    pool = queue.pool()
    queue.until_in("completed", "parent")
    assert pool.stop() == 0
    gate.open()
    until(lambda: queue.log("parent") == "early\nlate\n", "the daemon has written to the log")
    assert queue.history("completed", "parent") == ["succeeded"]

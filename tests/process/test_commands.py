"""The commands of the first page of the manual, as they stand there."""

import os
from pathlib import Path

from tests.process.support import Queue, in_each_setting


@in_each_setting
def test_a_string_for_the_shell_runs_and_its_output_is_kept(queue: Queue) -> None:
    """The id alone is printed, and the log holds what the command wrote."""
    answer = queue("enqueue", "sleep 0.3; echo 'job done'", "--id", "sleepy-job")
    assert answer == (0, "sleepy-job\n", "")
    queue.drain()
    assert queue.log("sleepy-job") == "job done\n"
    assert queue.ok("logs", "sleepy-job") == "job done\n"
    document = queue.document("completed", "sleepy-job")
    (attempt,) = document["history"]
    assert (document["state"], document["attempts"]) == ("completed", 0)
    assert (attempt["outcome"], attempt["exit_code"]) == ("succeeded", 0)
    assert 0.3 <= attempt["duration"] < 5


def test_words_after_two_dashes_stay_words(queue: Queue) -> None:
    """A list of words is quoted for the shell, so that a space in one splits nothing."""
    answer = queue("enqueue", "--id", "sync", "--", "printf", "%s\n", "two words", "$HOME", "")
    assert answer == (0, "sync\n", "")
    queue.drain()
    assert queue.log("sync") == "two words\n$HOME\n\n"


def test_a_command_may_begin_with_a_dash_or_a_plus(queue: Queue) -> None:
    """It is no option of the shell, which runs it or says that there is no such command."""
    programs = queue.here / "bin"
    programs.mkdir()
    path = f"PATH={programs}:{os.environ['PATH']}"
    for name, job_id in (("-e", "dash"), ("+x", "plus")):
        (programs / name).write_text('#!/bin/sh\necho "$1"\n')
        (programs / name).chmod(0o755)
        queue.ok("enqueue", "--id", job_id, "--env", path, "--", f"{name} 'a b'")
    queue.ok("enqueue", "--id", "no-such", "--max-retries", "1", "--", "-foo")
    queue.drain()
    assert [queue.log("dash"), queue.log("plus")] == ["a b\n", "a b\n"]
    assert queue.history("dead", "no-such") == ["not_found"]


def test_a_document_chooses_its_id(queue: Queue) -> None:
    """The one argument that looks like a JSON object is one."""
    answer = queue("enqueue", '{"id":"job1","command":"sleep 0.1"}')
    assert answer == (0, "job1\n", "")
    queue.drain()
    assert queue.history("completed", "job1") == ["succeeded"]


def test_an_id_that_is_made_up_is_printed(queue: Queue) -> None:
    """It is one word on one line, and the job is found under it."""
    job_id = queue.ok("enqueue", "true")
    assert job_id.count("\n") == 1
    queue.drain()
    assert queue.ids("completed") == [job_id.strip()]


@in_each_setting
def test_a_script_that_fails_at_first_succeeds_later(queue: Queue) -> None:
    """With five runs allowed a script on the PATH that works on its third is completed."""
    script = queue.here / "bin" / "flaky-script.sh"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\necho x >> tries\ntest $(wc -l < tries) -ge 3\n")
    script.chmod(0o755)
    queue.env["PATH"] = f"{script.parent}:{os.environ['PATH']}"
    queue.configure(backoff_base=1, backoff_max="0.01s")
    answer = queue("enqueue", "flaky-script.sh", "--id", "flaky-1", "--max-retries", "5")
    assert answer == (0, "flaky-1\n", "")
    pool = queue.pool()
    queue.until_in("completed", "flaky-1")
    assert queue.history("completed", "flaky-1") == ["failed", "failed", "succeeded"]
    assert queue.document("completed", "flaky-1")["attempts"] == 2
    assert pool.stop() == 0


def test_ls_pending_is_the_order_of_running(queue: Queue, tmp_path: Path) -> None:
    """Priority, then due time, then the order of enqueueing; one worker keeps to what ls shows."""
    order = tmp_path / "order"
    for job_id, *options in (
        ("third", "--priority", "5"),
        ("fourth",),
        ("last", "--priority", "9", "--run-at", "2026-01-01T00:00:00Z"),
        ("second", "--run-at", "2026-01-02T00:00:00Z"),
        ("first", "--priority", "0"),
        ("fifth", "--priority", "7"),
        ("sixth", "--priority", "7"),
    ):
        queue.enqueue(f"echo {job_id} >> {order}", job_id, *options)
    queue.batch([{"id": f"batch-{n}", "command": f"echo batch-{n} >> {order}"} for n in range(30)])
    shown = queue.pending()
    assert shown[:4] == ["first", "second", "third", "fourth"]
    assert shown[-3:] == ["fifth", "sixth", "last"]
    assert shown[4:-3] == [f"batch-{n}" for n in range(30)]
    queue.drain()
    assert order.read_text().split() == shown


def test_a_job_is_not_run_before_it_is_due(queue: Queue) -> None:
    """Of what waits only the due is taken, however urgent the rest is."""
    queue.enqueue("true", "tomorrow", "--delay", "1d", "--priority", "0")
    queue.enqueue("true", "now", "--priority", "9")
    queue.drain()
    assert (queue.pending(), queue.ids("completed")) == (["tomorrow"], ["now"])

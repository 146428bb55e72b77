"""How the real program waits for jobs and ends what runs."""

import os
import signal
import subprocess
from pathlib import Path

from tests.process.support import Queue, children, in_each_setting, lives, proc_stat, until


def background(queue: Queue, *words: str) -> "subprocess.Popen[str]":
    """Start a command and return it while it runs."""
    return subprocess.Popen(
        [*queue.words, *words],
        env=queue.env,
        cwd=queue.here,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def sleeps(pid: int) -> bool:
    """Tell whether a process waits in poll(2) on its inotify descriptor."""
    try:
        fds = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()]
    except FileNotFoundError:
        return False
    return "anon_inode:inotify" in fds and proc_stat(pid)[0] == "S"


@in_each_setting
def test_wait_ends_as_the_job_does(queue: Queue) -> None:
    """It sleeps until then, through all attempts."""
    queue.configure(backoff_base=1, backoff_max="0.01s")
    first, second = queue.gate(), queue.gate()
    command = f"case $QUEUECTL_ATTEMPT in 1) {first.wait}; exit 7;; 2) {second.wait}; exit 8; esac"
    queue.enqueue(command, "job", "--max-retries", "2")
    waiting = background(queue, "wait", "--quiet", "job")
    pool = queue.pool()
    until(lambda: sleeps(waiting.pid), "it sleeps")
    first.open()
    second.reached()
    assert waiting.poll() is None
    second.open()
    assert waiting.communicate(timeout=20) == ("", "job is dead: failed (exit code 8)\n")
    assert waiting.returncode == 8
    assert pool.stop() == 0


def test_wait_tells_a_signal_and_a_missing_command_as_a_shell_does(queue: Queue) -> None:
    """128 and the signal's number; 127; 0 for what completes."""
    queue.enqueue("kill -KILL $$", "killed", "--max-retries", "1")
    queue.enqueue("no-such-command-here", "missing", "--max-retries", "1")
    queue.enqueue("true", "fine")
    queue.enqueue("sleep 100", "slow", "--max-retries", "1", "--timeout", "0.1s")
    pool = queue.pool("--drain")
    assert queue("wait", "killed").exit_code == 137
    assert queue("wait", "missing").exit_code == 127
    assert queue("wait", "fine") == (0, "", "")
    assert queue("wait", "slow").exit_code == 124
    assert queue("wait", "fine", "missing", "killed").exit_code == 127
    assert pool.wait() == 0


def test_wait_for_any_does_not_wait_for_the_rest(queue: Queue) -> None:
    """The other one runs still."""
    gate = queue.gate()
    queue.enqueue(gate.wait, "long")
    queue.enqueue("exit 5", "short", "--max-retries", "1")
    pool = queue.pool("--count", "2")
    assert queue("wait", "--any", "long", "short", "--timeout", "20s").exit_code == 5
    assert queue("wait", "long", "--timeout", "0.05s").exit_code == 75
    gate.open()
    assert queue("wait", "long") == (0, "", "")
    assert pool.stop() == 0


@in_each_setting
def test_cancelling_a_running_job_ends_its_whole_process_group(queue: Queue) -> None:
    """Children that ignore SIGTERM are killed; it is in cancelled/, and is not run again."""
    queue.configure(kill_grace="0.2s")
    gate = queue.gate()
    queue.enqueue(f"trap '' TERM; sleep 1000 & sleep 1000 & {gate.wait}; exit 1", "stubborn")
    pool = queue.pool()
    gate.reached()
    assert len(queue.commands()) >= 3
    assert queue("cancel", "stubborn") == (0, "stubborn\n", "")
    assert [pid for pid in queue.commands() if lives(pid)] == []
    document = queue.document("cancelled", "stubborn")
    assert (document["state"], document["attempts"]) == ("cancelled", 0)
    assert queue.history("cancelled", "stubborn") == ["cancelled"]
    assert queue.history("cancelled", "stubborn", "signal") == [signal.SIGKILL]
    assert (queue.ids("pending"), queue.ids("processing")) == ([], [])
    queue.enqueue("true", "next")
    queue.until_in("completed", "next")  # the worker goes on
    assert pool.stop() == 0
    assert "stubborn attempt 1 cancelled (SIGKILL)" in pool.talk()


def test_a_command_that_takes_sigterm_has_its_grace(queue: Queue) -> None:
    """What it does then is in its log, though it says that it has succeeded."""
    gate = queue.gate()
    queue.enqueue(f"trap 'echo cleaned up; exit 0' TERM; {gate.wait}", "tidy")
    pool = queue.pool()
    gate.reached()
    assert queue("cancel", "tidy") == (0, "tidy\n", "")
    assert queue.log("tidy") == "cleaned up\n"
    assert queue.history("cancelled", "tidy") == ["cancelled"]
    assert queue.history("cancelled", "tidy", "exit_code") == [0]
    assert pool.stop() == 0


def test_a_job_is_cancelled_while_its_worker_is_to_stop(queue: Queue) -> None:
    """The first signal lets the job finish; cancelling it is heard all the same."""
    gate = queue.gate()
    queue.enqueue(gate.wait, "long")
    pool = queue.pool()
    gate.reached()
    pool.signal(signal.SIGTERM)
    until(lambda: "stopping when" in pool.talk(), "the pool is to stop")
    assert queue("cancel", "long") == (0, "long\n", "")
    assert pool.wait() == 0


def test_several_running_and_waiting_jobs_are_cancelled_at_once(queue: Queue) -> None:
    """First those that wait: else a worker that is freed would run the next one."""
    gates = [queue.gate() for _ in range(3)]
    for index, gate in enumerate(gates):
        queue.enqueue(gate.wait, f"job-{index}")
    queue.enqueue("true", "waiting")
    pool = queue.pool("--count", "3")
    for gate in gates:
        gate.reached()
    told = queue("cancel", "job-2", "waiting", "job-0", "job-1")
    assert told == (0, "waiting\njob-2\njob-0\njob-1\n", "")
    assert queue.ids("cancelled") == ["job-0", "job-1", "job-2", "waiting"]
    assert pool.stop() == 0


def test_a_command_that_outlives_its_worker_is_cancelled(queue: Queue) -> None:
    """Nobody is there to end it, so cancel does: all of its group, and then it settles the job."""
    queue.configure(kill_grace="0.2s")
    gate = queue.gate()
    queue.enqueue(f"trap '' TERM; sleep 1000 100>&- & {gate.wait}", "orphan")
    pool = queue.pool()
    gate.reached()
    pool.kill()
    assert len(queue.commands()) >= 2
    assert queue("cancel", "orphan") == (0, "orphan\n", "")
    assert [pid for pid in queue.commands() if lives(pid)] == []
    assert queue.history("cancelled", "orphan") == ["cancelled"]
    assert queue.drain("--quiet") == ""
    assert queue.ids("cancelled") == ["orphan"]


def test_a_worker_that_stands_still_is_waited_for(queue: Queue) -> None:
    """It lives, so its command is its own to end: nobody does that behind its back."""
    gate = queue.gate()
    queue.enqueue(gate.wait, "job")
    pool = queue.pool()
    gate.reached()
    (worker,) = pool.pids()
    os.kill(worker, signal.SIGSTOP)
    (record,) = queue.records()
    cancelling = background(queue, "cancel", "job")
    assert cancelling.stderr is not None
    assert cancelling.stderr.readline() == (
        f"waiting for job job to end: worker {record['name']} (process {worker}) was asked to"
        " end it\n"
    )
    assert len(queue.commands()) == 1
    os.kill(worker, signal.SIGCONT)
    assert cancelling.communicate(timeout=20) == ("job\n", "")
    assert queue.history("cancelled", "job") == ["cancelled"]
    assert pool.stop() == 0


def test_the_command_of_a_worker_whose_record_was_deleted_is_not_ended(queue: Queue) -> None:
    """Nobody can be asked, yet somebody holds the job: it ends by itself, and that is told."""
    gate = queue.gate()
    queue.enqueue(f"{gate.wait}; echo done", "job")
    pool = queue.pool()
    gate.reached()
    for path in (queue.store / "workers").glob("*.json"):
        path.unlink()
    cancelling = background(queue, "cancel", "job")
    assert cancelling.stderr is not None
    assert cancelling.stderr.readline() == ("waiting for job job to end: no worker can end it\n")
    assert len(queue.commands()) == 1
    gate.open()
    _, stderr = cancelling.communicate(timeout=20)
    assert stderr == "Error: job job is completed and cannot be cancelled\n"
    assert (cancelling.returncode, queue.log("job")) == (65, "done\n")
    assert pool.stop() == 0


def test_a_job_that_died_with_its_worker_and_command_is_cancelled(queue: Queue) -> None:
    """The attempt was lost before it was cancelled, and says so."""
    gate = queue.gate()
    queue.enqueue(gate.wait, "lost")
    pool = queue.pool()
    gate.reached()
    commands = queue.commands()
    pool.kill()
    for pid in commands:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(lives, commands)), "the command is gone")
    assert queue("cancel", "lost") == (0, "lost\n", "")
    assert queue.history("cancelled", "lost") == ["lost"]


def test_a_worker_that_is_killed_while_its_job_is_cancelled_changes_nothing(queue: Queue) -> None:
    """Its replacement may be faster than cancel; either way the job does not run again."""
    queue.configure(kill_grace="1h")
    gate = queue.gate()
    queue.enqueue(f"trap 'echo told' TERM; {gate.wait}; while :; do sleep 0.01; done", "job")
    pool = queue.pool("--count", "2")
    gate.reached()
    cancelling = background(queue, "cancel", "job")
    until(lambda: queue.log("job") == "told\n", "the worker ends the command")
    (worker,) = [
        pid for pid in pool.pids() if any(command in children(pid) for command in queue.commands())
    ]
    os.kill(worker, signal.SIGKILL)
    queue.configure(kill_grace="0.1s")
    assert cancelling.communicate(timeout=30) == ("job\n", "")
    assert [pid for pid in queue.commands() if lives(pid)] == []
    assert queue.ids("cancelled") == ["job"]
    assert pool.stop() == 0


def test_cancelling_what_has_completed_says_so(queue: Queue) -> None:
    """It is too late."""
    queue.enqueue("true", "done")
    queue.drain()
    assert queue("cancel", "done") == (
        65,
        "",
        "Error: job done is completed and cannot be cancelled\n",
    )


def test_a_cancelled_job_runs_again_when_it_is_retried(queue: Queue) -> None:
    """With a new attempt, whose number goes on."""
    gate = queue.gate()
    queue.enqueue(f"if [ $QUEUECTL_ATTEMPT = 1 ]; then {gate.wait}; fi", "job")
    pool = queue.pool()
    gate.reached()
    queue.ok("cancel", "job")
    assert queue.ok("retry", "job") == "job\n"
    assert queue("wait", "job") == (0, "", "")
    assert queue.history("completed", "job") == ["cancelled", "succeeded"]
    assert queue.ok("retry", "job") == "job\n"
    until(lambda: queue.ids("completed"), "it has run once more")
    assert queue.history("completed", "job") == ["cancelled", "succeeded", "succeeded"]
    assert pool.stop() == 0


def test_a_cancelled_parent_lets_go_on_what_accepts_any_end(queue: Queue) -> None:
    """What needs it completed stays blocked."""
    queue.enqueue("true", "parent")
    queue.enqueue("true", "any", "--after-any", "parent")
    queue.enqueue("true", "all", "--after", "parent")
    queue.ok("cancel", "parent")
    assert queue.pending() == ["any"]
    assert queue.ok("cancel", "all") == "all\n"
    queue.drain()
    assert (queue.ids("completed"), queue.ids("cancelled")) == (["any"], ["all", "parent"])


def test_a_live_worker_can_be_told_by_its_owner_alone(queue: Queue) -> None:
    """What it is asked through has mode 0600 under any umask, and goes with it."""
    pool = queue.pool(preexec_fn=lambda: os.umask(0o777)).ready()
    (path,) = until(lambda: list((queue.store / "workers").glob("*.control")), "it is there")
    assert path.is_fifo()
    until(lambda: path.stat().st_mode & 0o777 == 0o600, "it has its mode")
    assert pool.stop() == 0
    assert list((queue.store / "workers").iterdir()) == []


def test_a_stop_that_takes_long_says_whom_it_waits_for(queue: Queue) -> None:
    """The workers finish what they run; --now is what does not wait for that."""
    gate = queue.gate()
    queue.enqueue(gate.wait, "long")
    pool = queue.pool()
    gate.reached()
    (record,) = queue.records()
    stopping = background(queue, "worker", "stop")
    assert stopping.stderr is not None
    assert stopping.stderr.readline() == (
        f"waiting for {record['name']} (process {record['pid']}, job long);"
        " 'queuectl worker stop --now' ends their commands\n"
    )
    gate.open()
    assert stopping.communicate(timeout=20) == ("", f"stopped 1 worker: {record['name']}\n")
    assert pool.wait() == 0

"""What a command finds when it starts: its environment, descriptors, signals, directory."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.process.support import Queue

LOOK = """
import json, os, stat, sys
def descriptors():
    for name in os.listdir("/proc/self/fd"):
        try:
            yield int(name), os.readlink("/proc/self/fd/" + name)
        except FileNotFoundError:
            pass  # the one that has listed them
json.dump({
    "env": dict(os.environ), "fds": dict(descriptors()), "cwd": os.getcwd(), "pid": os.getpid(),
    "ppid": os.getppid(), "sid": os.getsid(0), "pgid": os.getpgrp(),
    "status": open("/proc/self/status").read(), "umask": os.umask(0),
}, open(sys.argv[1], "w"))
"""


def look(queue: Queue, *options: str, **pool: Any) -> dict[str, Any]:
    """Return what a command sees."""
    script, seen = queue.here / "look.py", queue.here / "seen.json"
    script.write_text(LOOK)
    # The shell is replaced, so that nothing of its own is seen.
    queue.enqueue(f"exec {sys.executable} -S {script} {seen}", "look", *options)
    process = queue.pool("--drain", **pool)
    assert process.wait() == 0, process.talk()
    assert queue.history("completed", "look") == ["succeeded"], queue.log("look")
    found: dict[str, Any] = json.loads(seen.read_text())
    return found


def test_the_environment_tells_a_command_who_it_is(queue: Queue) -> None:
    """Id, attempt, limit and store, beside the worker's environment and what the job brought."""
    queue.env["FROM_WORKER"] = "worker"
    queue.env["SHARED"] = "worker"
    env = look(
        queue, "--max-retries", "7", "--env", "SHARED=job", "--env", "OWN=two words\nand a line"
    )["env"]
    assert env["QUEUECTL_JOB_ID"] == "look"
    assert env["QUEUECTL_ATTEMPT"] == "1"
    assert env["QUEUECTL_MAX_RETRIES"] == "7"
    assert env["QUEUECTL_STORE"] == str(queue.store)
    assert (env["FROM_WORKER"], env["SHARED"]) == ("worker", "job")
    assert env["OWN"] == "two words\nand a line"


@pytest.mark.parametrize("given", [None, "C", "C.UTF-8", "en_US.UTF-8"])
def test_the_locale_is_the_users_and_not_pythons(queue: Queue, given: str | None) -> None:
    """Python sets LC_CTYPE where there is no locale, and a command sees what cron has set."""
    for name in [name for name in queue.env if name.startswith("LC_") or name == "LANG"]:
        del queue.env[name]
    if given is not None:
        queue.env["LC_CTYPE"] = given
    queue.enqueue("env", "job")
    queue.drain()
    told = [line for line in queue.log("job").splitlines() if line.startswith("LC_CTYPE=")]
    assert told == ([] if given is None else [f"LC_CTYPE={given}"])


def test_what_was_meant_for_queuectl_itself_does_not_reach_a_command(queue: Queue) -> None:
    """An option of the worker that came from the environment is not one for a job's queuectl."""
    env = look(queue, env={"QUEUECTL_WORKER_START_QUIET": "1"})["env"]
    assert sorted(name for name in env if name.startswith("QUEUECTL_")) == [
        "QUEUECTL_ATTEMPT", "QUEUECTL_JOB_ID", "QUEUECTL_MAX_RETRIES", "QUEUECTL_STORE",
    ]  # fmt: skip


def test_the_attempt_is_counted_over_the_jobs_whole_life(queue: Queue) -> None:
    """A retry starts the count of attempts over, but not the number that names the log."""
    queue.enqueue("echo $QUEUECTL_ATTEMPT; exit 1", "job", "--max-retries", "1")
    queue.drain()
    queue.ok("dlq", "retry", "job")
    queue.drain()
    assert (queue.log("job", 1), queue.log("job", 2)) == ("1\n", "2\n")


def test_a_command_has_the_standard_descriptors_and_its_jobs_lock(queue: Queue) -> None:
    """Nothing to read, the log for both outputs; what the worker was started with is not for it."""
    with (queue.here / "other").open("w") as other:
        fds = look(queue, pass_fds=(other.fileno(),))["fds"]
    log = str(queue.store / "logs" / "look.1.log")
    assert (fds.pop("0"), fds.pop("1"), fds.pop("2")) == ("/dev/null", log, log)
    assert list(fds) == ["100"]
    assert fds["100"].startswith(str(queue.store / "processing" / "look.1.json"))


def test_a_command_runs_in_a_session_of_its_own(queue: Queue) -> None:
    """It has no terminal, and a signal to its group reaches its own children alone."""
    seen = look(queue)
    assert seen["sid"] == seen["pgid"] == seen["pid"]
    assert seen["ppid"] != seen["pid"]


def test_a_command_starts_with_the_default_signals(queue: Queue) -> None:
    """What Python, nohup or anybody else ignores is neither ignored nor blocked there."""

    def ignore() -> None:
        for number in (
            signal.SIGINT,
            signal.SIGHUP,
            signal.SIGQUIT,
            signal.SIGALRM,
            signal.SIGRTMAX,
        ):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGALRM])

    status = look(queue, preexec_fn=ignore)["status"]
    masks = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Sig"))
    # Python itself, which looks here, ignores SIGPIPE and SIGXFSZ and handles SIGINT.
    python = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    assert int(masks["SigBlk"], 16) == 0
    # posix_spawn of the GNU C library ignores two signals that only its threads use.
    library = 1 << (32 - 1) | 1 << (33 - 1)
    assert int(masks["SigIgn"], 16) & ~library == python
    assert int(masks["SigCgt"], 16) == 1 << (signal.SIGINT - 1)


def test_a_pipe_that_is_closed_ends_a_command_quietly(queue: Queue) -> None:
    """SIGPIPE is not ignored: `yes` ends when its reader does."""
    queue.enqueue("yes | head -n 1", "job")
    queue.drain()
    assert queue.log("job") == "y\n"


def test_a_command_runs_where_it_was_enqueued(queue: Queue, tmp_path: Path) -> None:
    """Or where it was told to, with the worker's umask."""
    place = tmp_path / "a place"
    place.mkdir()
    queue.env["PWD"] = str(place)
    assert look(queue, "--cwd", str(place), umask=0o027)["cwd"] == str(place)
    queue.enqueue("pwd; umask", "here")
    queue.drain()
    assert queue.log("here").splitlines()[0] == str(queue.here)


def test_workers_run_with_all_standard_streams_closed(queue: Queue) -> None:
    """No file of the store takes the place of a stream, and the log holds the output alone."""
    queue.enqueue("echo out; echo err >&2; cat", "job")
    pool = queue.pool(prefix=("/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"))
    queue.until_in("completed", "job")
    assert queue.log("job") == "out\nerr\n"
    (worker,) = pool.pids()
    for fd in (0, 1, 2):
        assert os.readlink(f"/proc/{worker}/fd/{fd}") == "/dev/null"
    assert pool.stop() == 0


def test_a_worker_whose_stderr_nobody_reads_goes_on(queue: Queue) -> None:
    """Its events get lost; its jobs do not, and neither does its exit code."""
    read_fd, write_fd = os.pipe()
    pool = queue.pool(stderr=write_fd)
    os.close(write_fd)
    os.close(read_fd)
    queue.enqueue("echo one", "one")
    queue.enqueue("exit 1", "two", "--max-retries", "1")
    queue.until_in("completed", "one")
    queue.until_in("dead", "two")
    assert pool.stop() == 0


def test_a_job_that_reads_gets_nothing(queue: Queue) -> None:
    """Standard input is empty, not the terminal of whoever has started the worker."""
    gate = queue.gate()
    queue.enqueue(f"cat; {gate.wait}; echo end", "job")
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b"what somebody types\n")
    pool = queue.pool(stdin=read_fd)
    os.close(read_fd)
    gate.open()
    queue.until_in("completed", "job")
    assert queue.log("job") == "end\n"
    os.close(write_fd)
    assert pool.stop() == 0


def test_help_is_there_where_python_drops_docstrings() -> None:
    """Of every command the same as ever, with PYTHONOPTIMIZE=2."""
    script = (
        "from queuectl.cli.group import COMMANDS, run\n"
        "subcommands = 'worker start', 'worker list', 'dlq list', 'config set'\n"
        "for words in '', *COMMANDS, *subcommands:\n    run([*words.split(), '--help'])"
    )
    said = [
        subprocess.run(
            (sys.executable, "-c", script),
            env=os.environ | {"PYTHONOPTIMIZE": level},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for level in ("0", "2")
    ]
    assert said[1] == said[0]
    assert "Wait for jobs to end" in said[0]

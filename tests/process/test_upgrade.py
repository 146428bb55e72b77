"""A program that is upgraded under its own processes: its files are gone, or are others."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.process.support import Pool, Queue, until
from tests.program import PREFIX

PACKAGES = ("queuectl", "click", "filelock", "tabulate", "inotify_simple")
# Runs the program; a worker that settles a job called bug-1 finds a bug.
MAIN = """
import sys
from queuectl.worker import worker
from queuectl.cli import main

after_attempt = worker.after_attempt

def fails(job, *others):
    if job.id == "bug-1":
        raise RuntimeError("a bug of the worker")
    return after_attempt(job, *others)

worker.after_attempt = fails
main()
"""


class Installed:
    """A copy of the program, with all that it needs, which can be taken away."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "installed"
        self._main = directory / "main.py"
        self._main.write_text(MAIN)
        for name in PACKAGES:
            spec = find_spec(name)
            if spec is None or spec.origin is None:  # no inotify here
                continue
            source = Path(spec.origin)
            if source.name == "__init__.py":
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source.parent, self._directory / name, ignore=ignored)
            else:
                self._directory.mkdir(exist_ok=True)
                shutil.copy(source, self._directory)

    @property
    def words(self) -> list[str]:
        """Return what runs the copy: not the program that the tests are run with."""
        return [sys.executable, "-S", str(self._main)]

    @property
    def env(self) -> dict[str, str]:
        """Return the environment that finds the copy."""
        return {"PYTHONPATH": str(self._directory), "PYTHONDONTWRITEBYTECODE": "1"}

    def take_away(self) -> None:
        """Leave nothing of the program."""
        self._directory.rename(self._directory.with_name("taken-away"))
        self._main.unlink()


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    """Return a copy of the program."""
    return Installed(tmp_path)


@pytest.fixture
def upgraded(queue: Queue, installed: Installed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    """Return a pool of three workers whose program is taken away."""
    queue.configure(backoff_base=1, backoff_max="1s", kill_grace="1s")
    monkeypatch.setattr("tests.process.support.QUEUECTL", (*PREFIX, *installed.words))
    pool = queue.pool("--count", "3", env=installed.env).ready(3)
    monkeypatch.undo()
    installed.take_away()
    yield pool
    assert "Traceback" not in pool.talk()
    assert "ModuleNotFoundError" not in pool.talk()


def test_attempts_of_a_pool_whose_program_is_gone(queue: Queue, upgraded: Pool) -> None:
    """Failures, retries, timeouts and cancels go their way, and what waits for others goes on."""
    queue.enqueue("exit 3", "fails", "--max-retries", "2")
    queue.enqueue("sleep 60", "times-out", "--timeout", "0.2s", "--max-retries", "1")
    queue.enqueue("echo done", "follows", "--after-any", "fails", "--after-any", "times-out")
    queue.enqueue("sleep 60", "is-cancelled")
    queue.until_in("processing", "is-cancelled.1")
    assert queue("cancel", "is-cancelled").exit_code == 0
    queue.until_in("dead", "fails")
    queue.until_in("dead", "times-out")
    queue.ok("wait", "follows", "--timeout", "20s")
    assert queue.history("dead", "fails") == ["failed", "failed"]
    assert queue.history("dead", "times-out") == ["timed_out"]
    os.utime(queue.store / "completed" / "follows.json", (0, 0))
    queue.configure(keep_completed="1d")
    queue.enqueue("true", "last")
    until(lambda: queue.ids("completed") == ["last"], "what has completed is purged")
    assert upgraded.stop() == 0


def test_files_that_come_by_hand_to_a_pool_whose_program_is_gone(
    queue: Queue, upgraded: Pool
) -> None:
    """They are adopted, or set aside, and a broken setting is told."""
    pending = queue.store / "pending"
    (pending / "torn.json").write_text('{"command": ')
    os.utime(pending / "torn.json", (0, 0))
    queue.until_in("corrupt", "torn")
    temporary = queue.store / "tmp" / "dropped"
    temporary.write_text('{"command": "exit 4", "max_retries": 1}')
    temporary.rename(pending / "dropped.json")
    queue.until_in("dead", "dropped")
    later = {"command": "exit 5", "max_retries": 1, "updated_at": "2999-01-01T00:00:00Z"}
    temporary.write_text(json.dumps(later | {"created_at": "2999-01-01T00:00:00Z"}))
    temporary.rename(pending / "5-29990101T000000.000000Z-later.json")
    queue.until_in("dead", "later")
    queue.configure(prioritty=5)
    (pending / "next.json").write_text('{"command": "true"}')
    until(lambda: "did you mean priority?" in upgraded.talk(), "the broken setting is told")
    assert upgraded.stop() == 0


def test_workers_that_are_killed_when_their_program_is_gone(queue: Queue, upgraded: Pool) -> None:
    """Others take their place, what they lost is recovered, and what outlives them is ended."""
    queue.enqueue("sleep 60", "outlives", "--timeout", "1s", "--max-retries", "1")
    queue.until_in("processing", "outlives.1")
    until(queue.commands, "the command runs")
    victim = next(each["pid"] for each in queue.records() if each["job"] == "outlives")
    os.kill(victim, signal.SIGKILL)
    until(lambda: "ending it" in upgraded.talk(), "the command is ended")
    queue.until_in("dead", "outlives")
    upgraded.ready(3)
    queue.enqueue("exit 3", "fails", "--max-retries", "1")
    queue.until_in("dead", "fails")
    assert queue("worker", "stop", "--timeout", "20s").exit_code == 0
    assert upgraded.wait() == 0


def test_bug_of_a_worker_whose_program_is_gone(queue: Queue, installed: Installed) -> None:
    """It is told with its traceback."""
    talk = queue.here / "bug"
    with talk.open("wb") as stderr:
        process = subprocess.Popen(
            [*installed.words, "worker", "start"], env=queue.env | installed.env, stderr=stderr
        )
    try:
        until(queue.records, "a worker is registered")
        installed.take_away()
        queue.enqueue("true", "bug-1")
        until(lambda: "RuntimeError: a bug of the worker" in talk.read_text(), "it is told")
        assert "Traceback (most recent call last):\n" in talk.read_text()
        assert "ModuleNotFoundError" not in talk.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@pytest.mark.parametrize("words", [("wait", "a"), ("logs", "--follow", "a")], ids=["wait", "logs"])
@pytest.mark.parametrize("exit_code", [0, 3])
def test_what_waits_for_a_job_when_its_program_is_gone(
    queue: Queue, installed: Installed, words: tuple[str, ...], exit_code: int
) -> None:
    """It goes on, and ends as if nothing had happened."""
    gate = queue.gate()
    queue.enqueue(f"{gate.wait}; echo written; exit {exit_code}", "a", "--max-retries", "1")
    queue.pool()
    gate.reached()
    waiting = subprocess.Popen(
        [*installed.words, *words],
        env=queue.env | installed.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: sleeps(waiting.pid), "it sleeps")
    installed.take_away()
    gate.open()
    stdout, stderr = waiting.communicate(timeout=20)
    if words[0] == "wait":
        told = "a is dead: failed (exit code 3)\n" if exit_code else ""
        assert (waiting.returncode, stdout, stderr) == (exit_code, "", told)
    else:
        assert (waiting.returncode, stdout, stderr) == (0, "written\n", "")


def test_wait_that_ends_before_the_job_when_its_program_is_gone(
    queue: Queue, installed: Installed
) -> None:
    """It says what it has waited for."""
    queue.enqueue("true", "a")
    waiting = subprocess.Popen(
        [*installed.words, "wait", "a", "--quiet", "--timeout", "3s"],
        env=queue.env | installed.env,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: sleeps(waiting.pid), "it sleeps")
    installed.take_away()
    assert waiting.communicate(timeout=20)[1].startswith("Error: not ended yet: a; ")
    assert waiting.returncode == 75


def test_live_view_whose_program_is_gone(queue: Queue, installed: Installed) -> None:
    """It goes on drawing, and shows what it has not shown before."""
    wide = os.fsdecode("漢字".encode())  # the same bytes in any locale
    queue.enqueue(f"echo {wide}; exit 3", "fails", "--max-retries", "1")
    terminal, other_end = pty.openpty()
    watching = subprocess.Popen(
        [*installed.words, "status", "--watch"],
        env=queue.env | installed.env | {"TERM": "xterm"},
        stdin=other_end,
        stdout=other_end,
        stderr=other_end,
    )
    os.close(other_end)
    os.set_blocking(terminal, False)
    shown = b""

    def shows(text: bytes) -> bool:
        nonlocal shown
        with suppress(BlockingIOError):
            shown += os.read(terminal, 65536)
        return text in shown

    until(lambda: shows(b"cancelled"), "it has drawn once")
    installed.take_away()
    queue.drain()
    until(lambda: shows(b"LAST LINE"), "it shows the job that failed")
    os.write(terminal, b"q")
    assert watching.wait(20) == 0
    os.close(terminal)


def sleeps(pid: int) -> bool:
    """Tell whether a program waits in the kernel for something to come, and has begun to."""
    try:
        where = Path(f"/proc/{pid}/wchan").read_text()
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    time.sleep(0.3)
    return state == "S" and where != ""

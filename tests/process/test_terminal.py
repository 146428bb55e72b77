"""Ctrl-C in a real terminal, by tmux: it reaches the supervisor alone."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.process.support import Queue, children, lives, until
from tests.program import QUEUECTL

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


class Terminal:
    """Be a shell in a terminal that a test types into."""

    def __init__(self, queue: Queue, directory: Path) -> None:
        # A socket of its own, in a short path: tmux takes no long ones.
        self._socket = f"/tmp/queuectl-test-{os.getpid()}-{directory.stat().st_ino}"
        # The shell is one that starts bare, and gives each job a process group.
        self._tmux(
            "-f", "/dev/null", "new-session", "-d", "-x", "200", "-y", "50", "-s", "test",
            "-c", str(queue.here), "env", "-i",
            *(f"{name}={value}" for name, value in queue.env.items() if name != "ENV"),
            "PS1=ready> ", "sh", "-i",
        )  # fmt: skip
        until(lambda: "ready>" in self.screen(), "the shell is there")

    def _tmux(self, *words: str) -> str:
        return subprocess.run(
            ["tmux", "-S", self._socket, *words], check=True, capture_output=True, text=True
        ).stdout

    def type(self, text: str) -> None:
        """Type a line."""
        self._tmux("send-keys", "-t", "test", "-l", text)
        self._tmux("send-keys", "-t", "test", "Enter")

    def press(self, key: str) -> None:
        """Press a key."""
        self._tmux("send-keys", "-t", "test", key)

    def screen(self) -> str:
        """Return what can be seen, long lines joined."""
        return self._tmux("capture-pane", "-p", "-J", "-S", "-", "-t", "test")

    def shell(self) -> int:
        """Return the process id of the shell."""
        return int(self._tmux("display-message", "-p", "-t", "test", "#{pane_pid}"))

    def close(self) -> None:
        """Take the terminal away."""
        self._tmux("kill-server")


@pytest.fixture
def terminal(queue: Queue, tmp_path: Path) -> Iterator[Terminal]:
    """Return a terminal with a shell in it."""
    terminal = Terminal(queue, tmp_path)
    yield terminal
    terminal.close()


def start_pool(queue: Queue, terminal: Terminal) -> tuple[int, list[int]]:
    """Start two workers from the shell; return the supervisor's pid and the workers'."""
    terminal.type(f"{shlex.join(QUEUECTL)} worker start --count 2; echo exit code $?")
    until(lambda: len(queue.records()) == 2, "both are registered")
    (supervisor,) = children(terminal.shell())
    workers = children(supervisor)
    assert len(workers) == 2
    return supervisor, workers


def test_ctrl_c_lets_the_jobs_end(queue: Queue, terminal: Terminal) -> None:
    """The job's command and the workers do not feel it; the pool ends with 0 after the job."""
    gate = queue.gate()
    queue.enqueue(f"{gate.wait}; echo done", "running")
    supervisor, workers = start_pool(queue, terminal)
    gate.reached()
    # Nobody shares a process group with the supervisor, which alone is in the foreground.
    groups = {os.getpgid(pid) for pid in [supervisor, *workers, *queue.commands()]}
    assert len(groups) == 4
    terminal.press("C-c")
    until(lambda: "supervisor stopping when the jobs are done" in terminal.screen(), "it is told")
    assert queue.ids("processing") == ["running.1"]
    gate.open()
    until(lambda: "exit code 0" in terminal.screen(), "the pool has ended with 0")
    assert queue.history("completed", "running") == ["succeeded"]
    assert queue.log("running") == "done\n"


def test_ctrl_c_twice_puts_the_jobs_back(queue: Queue, terminal: Terminal) -> None:
    """Who presses it again wants the terminal, and loses no job by that."""
    gate = queue.gate()
    queue.enqueue(gate.wait, "running")
    (name,) = queue.ids("pending")
    start_pool(queue, terminal)
    gate.reached()
    terminal.press("C-c")
    until(lambda: "supervisor stopping when the jobs are done" in terminal.screen(), "it is told")
    terminal.press("C-c")
    until(lambda: "exit code 0" in terminal.screen(), "the pool has ended with 0")
    assert "supervisor stopping now" in terminal.screen()
    assert queue.ids("pending") == [name]
    assert queue.commands() == []


def test_a_terminal_that_is_closed_takes_no_job_with_it(queue: Queue, terminal: Terminal) -> None:
    """The pool takes no new job, finishes what it runs, and leaves."""
    gate = queue.gate()
    queue.enqueue(f"{gate.wait}; echo done", "running")
    supervisor, workers = start_pool(queue, terminal)
    gate.reached()
    terminal._tmux("respawn-pane", "-k", "-t", "test", "sh")
    until(lambda: len(children(supervisor)) == 1, "the idle worker has left")
    queue.enqueue("true", "next")
    gate.open()
    until(lambda: not any(map(lives, [supervisor, *workers])), "the pool has left")
    assert queue.history("completed", "running") == ["succeeded"]
    assert queue.pending() == ["next"]


def test_ctrl_z_pauses_the_pool_and_not_its_jobs(queue: Queue, terminal: Terminal) -> None:
    """What runs goes on to its end and is settled; nothing new is taken before fg."""
    gate = queue.gate()
    queue.enqueue(f"{gate.wait}; echo done", "running")
    start_pool(queue, terminal)
    gate.reached()
    terminal.press("C-z")
    until(lambda: "Stopped" in terminal.screen(), "the shell is back")
    assert "paused: no job is started before fg or bg" in terminal.screen()
    queue.enqueue("true", "next")
    gate.open()
    queue.until_in("completed", "running")
    until(lambda: all(not each["job"] for each in queue.records()), "both are idle")
    assert queue.pending() == ["next"]
    terminal.type("fg; echo exit code $?")
    queue.until_in("completed", "next")
    assert "supervisor continued" in terminal.screen()
    terminal.press("C-c")
    until(lambda: "exit code 0" in terminal.screen(), "the pool has ended with 0")

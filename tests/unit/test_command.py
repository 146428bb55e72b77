"""Whom the signals that end a command reach, and whom they must not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from queuectl.job import Outcome
from queuectl.store import holders
from queuectl.worker.command import Command, Result
from queuectl.worker.loop import Loop


def end(command: str, grace_seconds: float, after: Path) -> Result:
    """Run a command, end it when it has made a file, and return how it ended."""
    results: list[Result] = []
    is_ready = after.exists

    async def run() -> None:
        loop_command = Command(
            command, cwd=str(after.parent), env={}, own_env={}, output_fd=2, pass_fds=()
        )
        loop_command.start()
        loop_command.watch()
        while not is_ready():
            await loop.wait((), 0.005)
        await loop_command.end(grace_seconds, loop)
        results.append(loop_command.result())

    loop = Loop()
    loop.run([run()])
    return results[0]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Return the signals that are sent to groups, each with whether the leader has its number."""
    sent = []
    killpg = os.killpg

    def record(group: int, number: int) -> None:
        sent.append((number, Path(f"/proc/{group}").exists()))
        killpg(group, number)

    monkeypatch.setattr(os, "killpg", record)
    return sent


def test_group_that_is_gone_is_not_killed(sent: list[tuple[int, bool]], tmp_path: Path) -> None:
    """Its number may be that of another group by then."""
    result = end("touch ready; exec sleep 60", 5.0, tmp_path / "ready")
    assert (result.outcome, result.signal) == (Outcome.SIGNALLED, signal.SIGTERM)
    assert sent == [(signal.SIGTERM, True), (signal.SIGCONT, True)]


def test_leader_keeps_its_number_until_its_group_is_gone(
    sent: list[tuple[int, bool]], tmp_path: Path
) -> None:
    """It ends at once, and a child of it takes the grace; the time of the leader is recorded."""
    command = "(trap '' TERM; touch ready; exec sleep 60) & trap 'exit 3' TERM; wait"
    result = end(command, 0.5, tmp_path / "ready")
    assert result.exit_code == 3
    assert result.duration_seconds < 0.5
    assert sent == [(signal.SIGTERM, True), (signal.SIGCONT, True), (signal.SIGKILL, True)]


def test_without_proc_a_command_has_its_grace(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An empty /proc does not say that all of its processes are zombies."""
    monkeypatch.setattr(sys, "platform", "freebsd")
    command = "trap 'sleep 0.1; exit 3' TERM; touch ready; while :; do sleep 0.01; done"
    assert end(command, 5.0, tmp_path / "ready").exit_code == 3


def test_group_that_outlived_its_worker_and_is_gone_is_not_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Somebody else has its number when the grace is over."""
    killed: list[tuple[int, int]] = []
    process = subprocess.Popen(("sleep", "60"), start_new_session=True)
    stranger = subprocess.Popen(("sleep", "60"), start_new_session=True)
    found = holders._members

    def members(_: object) -> dict[int, set[tuple[int, int]]]:
        if not killed:
            return found([process.pid])
        return {process.pid: found([stranger.pid])[stranger.pid]}

    monkeypatch.setattr(holders, "_members", members)
    monkeypatch.setattr(os, "killpg", lambda *sent: killed.append(sent))
    began = time.monotonic()
    holders.end_groups([process.pid], 0.1)
    assert killed == [(process.pid, signal.SIGTERM), (process.pid, signal.SIGCONT)]
    assert time.monotonic() - began < 5
    for each in (process, stranger):
        each.kill()
        each.wait()


def test_group_that_lives_on_is_killed_after_the_grace() -> None:
    """All of it, and nothing is waited for that is a zombie only."""
    text = "trap '' TERM; echo ready; sleep 60 & wait"
    with subprocess.Popen(
        ("sh", "-c", text), start_new_session=True, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        holders.end_groups([process.pid], 0.05)
        assert process.wait() == -signal.SIGKILL

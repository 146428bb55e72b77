"""Processes of two versions on one store: that of an earlier commit, and this one."""

import json
import os
import zipfile
from pathlib import Path

import pytest
from tests.process.support import Answer, Queue, until

# Built from that commit by "pip wheel --no-deps ."; it needs what this version needs.
WHEEL = Path(__file__).parents[1] / "data" / "queuectl-e579404-py3-none-any.whl"


class Old:
    """The earlier version, beside this one and with the packages of this one."""

    def __init__(self, queue: Queue, directory: Path) -> None:
        with zipfile.ZipFile(WHEEL) as wheel:
            wheel.extractall(directory)
        self._queue = queue
        self.env = {"PYTHONPATH": str(directory)}

    def __call__(self, *words: str) -> Answer:
        """Run a command of the earlier version."""
        before = dict(self._queue.env)
        self._queue.env |= self.env
        try:
            return self._queue(*words)
        finally:
            self._queue.env = before


@pytest.fixture
def old(queue: Queue, tmp_path: Path) -> Old:
    """Return the earlier version."""
    return Old(queue, tmp_path / "old")


def test_old_workers_run_what_new_commands_enqueue(queue: Queue, old: Old) -> None:
    """They take each option as it is meant."""
    queue.pool("--count", "2", env=old.env).ready(2)
    (queue.here / "sub").mkdir()
    queue.enqueue("sleep 60", "slow", "--timeout", "0.2s", "--max-retries", "1")
    queue.enqueue("exit 9", "once", "--no-retry-on", "9")
    queue.enqueue("exit 9", "also-once", "--retry-on", "75")
    where = ("--cwd", "sub", "--env", "MESSAGE=hello", "--priority", "0")
    queue.enqueue('echo "$MESSAGE from ${PWD##*/}"', "first", *where)
    queue.enqueue("true", "delayed", "--delay", "0.3s")
    queue.enqueue("true", "past", "--run-at", "2020-01-01T00:00:00Z")
    queue.enqueue("true", "after", "--after", "first")
    queue.enqueue("true", "after-any", "--after-any", "slow")
    queue.ok("wait", "delayed", "past", "after", "after-any", "--timeout", "30s")
    for job_id, outcome in (("slow", "timed_out"), ("once", "failed"), ("also-once", "failed")):
        queue.until_in("dead", job_id)
        assert queue.history("dead", job_id) == [outcome]
    assert queue.log("first") == "hello from sub\n"


def test_new_commands_manage_old_workers(queue: Queue, old: Old) -> None:
    """They list them, cancel what they run, and stop them."""
    pool = queue.pool("--count", "2", env=old.env).ready(2)
    gate = queue.gate()
    queue.enqueue("sleep 60", "long")
    queue.enqueue(gate.wait, "gated")
    gate.reached()
    queue.until_in("processing", "long.1")
    until(lambda: {each["job"] for each in queue.records()} == {"long", "gated"}, "both run")
    shown = json.loads(queue.ok("worker", "list", "--json"))
    assert {each["job"] for each in shown} == {"long", "gated"}
    assert json.loads(queue.ok("status", "--json"))["workers"] == {"live": 2, "busy": 2}
    assert queue("cancel", "long").exit_code == 0
    assert queue.history("cancelled", "long") == ["cancelled"]
    gate.open()
    assert queue("worker", "stop", "--timeout", "20s").exit_code == 0
    assert pool.wait() == 0


def test_old_commands_manage_new_workers(queue: Queue, old: Old) -> None:
    """They enqueue, list, cancel and stop as they do with their own."""
    pool = queue.pool("--count", "2").ready(2)
    assert old("enqueue", "sleep 60", "--id", "long").exit_code == 0
    assert old("enqueue", "exit 3", "--id", "fails", "--max-retries", "1").exit_code == 0
    queue.until_in("dead", "fails")
    until(lambda: any(each["job"] == "long" for each in queue.records()), "it runs")
    assert "long" in old("worker", "list").stdout
    assert "fails" in old("dlq", "list").stdout
    assert old("status").exit_code == 0
    assert old("cancel", "long").exit_code == 0
    assert old("doctor").stdout == ""
    assert old("worker", "stop", "--timeout", "20s").exit_code == 0
    assert pool.wait() == 0


@pytest.mark.parametrize("old_first", [False, True])
def test_workers_of_two_versions_share_a_store(queue: Queue, old: Old, old_first: bool) -> None:
    """Each job runs once, whoever takes it, and what a killed one lost the others recover."""
    env = old.env if old_first else {}
    dying = queue.pool(env=env).ready()
    queue.enqueue("exec sleep 60", "lost", "--max-retries", "1")
    until(queue.commands, "the command runs")
    [command] = queue.commands()
    dying.kill()
    os.kill(command, 9)
    jobs = [{"id": f"job-{i}", "command": f"echo {i} >> ran"} for i in range(60)]
    queue.batch([*jobs, {"id": "fails", "command": "exit 1", "max_retries": 2}])
    pools = [queue.pool("--count", "2", "--drain", env=each) for each in (old.env, {})]
    assert [pool.wait(50) for pool in pools] == [0, 0]
    ran = (queue.here / "ran").read_text().split()
    assert sorted(map(int, ran)) == list(range(60))
    assert queue.history("dead", "lost") == ["lost"]
    queue.ok("doctor")


def test_old_worker_runs_a_job_whose_history_was_shortened(queue: Queue, old: Old) -> None:
    """It counts on, and keeps what it does not know."""
    queue.enqueue("exit 1", "often", "--max-retries", "100")
    queue.configure(backoff_base=1, backoff_max="0.001s")
    pool = queue.pool()
    queue.until_in("dead", "often", 60)
    assert pool.stop() == 0
    queue.ok("dlq", "retry", "often")
    queue.configure(backoff_base=1, backoff_max="1h")
    queue.pool("--drain", env=old.env).wait()
    (name,) = queue.ids("pending")
    document = queue.document("pending", name)
    assert document["history_omitted"] >= 50
    assert document["history"][-1]["number"] == 101

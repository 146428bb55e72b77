"""A document that cannot be read is moved to corrupt/, and who runs the workers hears of it."""

import os
from pathlib import Path

import pytest
from tests.process.support import Queue


def put(path: Path, text: str) -> None:
    """Write an old file, which nobody is still writing."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)
    os.utime(path, (0, 0))


@pytest.mark.parametrize(
    "path",
    [
        "pending/dropped.json",
        "pending/5-20260101T000000.000000Z-torn.json",
        "processing/ran.1.json",
        "blocked/parent/child.json",
    ],
)
def test_what_is_set_aside_is_said_with_its_reason(queue: Queue, path: str) -> None:
    """The job is in no list any more, so that even a quiet pool says it: cron sends it by mail."""
    queue.enqueue("true", "parent")
    put(queue.store / path, '{"command": 3}')
    answer = queue("worker", "start", "--drain", "--quiet")
    (line,) = answer.stderr.splitlines()
    end = f" moved {path} to corrupt/: 'command' is 3; it must be a string"
    assert line.endswith(end)
    assert (answer.exit_code, answer.stdout) == (0, "")
    assert queue("worker", "start", "--drain", "--quiet") == (0, "", "")

"""What lies in the store was made to do harm: the real program comes through, and says why."""

import json
import os
import resource
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.process.support import Answer, Queue
from tests.program import QUEUECTL

NAME = "5-20260101T000000.000000Z-{}.json"
# As root every file can be read; without these two capabilities it is as it is for anybody else.
AS_ANYBODY = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


def put(queue: Queue, where: str, document: dict[str, Any]) -> Path:
    """Put a document into the store by hand, long ago."""
    path = queue.store / where
    path.write_text(json.dumps({"command": "true", "cwd": "/"} | document))
    os.utime(path, (1e9, 1e9))
    return path


def error_of(answer: Answer, exit_code: int) -> str:
    """Return the one line in which a command has told what is wrong."""
    assert answer.exit_code == exit_code, answer
    [line] = answer.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


def in_little_memory(queue: Queue, *words: str, megabytes: int = 110) -> Answer:
    """Run a command that gets so much memory and no more."""
    most = megabytes * 1_000_000
    done = subprocess.run(
        [*QUEUECTL, *words],
        env=queue.env,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most)),
    )
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def made(queue: Queue) -> Queue:
    """Return a queue whose store is there, with one job that has run."""
    queue.enqueue("true", "fine")
    queue.drain()
    return queue


def test_timeout_of_months_is_waited_for(queue: Queue) -> None:
    """The kernel waits 24 days at most, and a timeout may be longer."""
    queue.configure(kill_grace="36525d")
    queue.enqueue("sleep 0.05", "long", "--timeout", "30d")
    queue.drain()
    assert queue.ids("completed") == ["long"]


def test_drain_does_not_wait_for_what_is_no_attempt(made: Queue) -> None:
    """What no worker can ever settle in processing/ keeps no drain from its end, nor a cancel."""
    processing = made.store / "processing"
    (processing / "directory.1.json").mkdir()
    os.mkfifo(processing / "fifo.1.json")
    (processing / "link.1.json").symlink_to(made.here)
    put(made, "processing/newer.1.json", {"schema": 2})
    before = sorted(os.listdir(processing))
    made.enqueue("true", "a")
    made.drain()
    assert made.ids("completed") == ["a", "fine"]
    for job_id in ("directory", "fifo", "link"):
        error_of(made("cancel", job_id), 66)
    assert "upgrade queuectl" in error_of(made("cancel", "newer"), 78)
    assert sorted(os.listdir(processing)) == before


def test_directory_in_workers_ends_no_worker(made: Queue) -> None:
    """A worker removes what others have left behind, and that was none of theirs."""
    (made.store / "workers" / "x.control").mkdir()
    (made.store / "workers" / "y.json").write_text("[" * 1024)
    made.enqueue("true", "a")
    assert "failed" not in made.drain()
    assert made.ids("completed") == ["a", "fine"]
    assert made("doctor", "--repair").exit_code == 0


def test_command_that_is_too_long_for_the_kernel(made: Queue, tmp_path: Path) -> None:
    """A megabyte of command is refused; where a hand puts it, the attempt says why."""
    (tmp_path / "batch").write_text(f"true\n: {'x' * 1_000_000}\n")
    line = error_of(made("enqueue", "--batch", str(tmp_path / "batch")), 65)
    assert "line 2: the command has 1000002 bytes; 131071 is the most" in line
    assert made.ids("pending") == []
    put(made, "pending/big.json", {"command": f": {'x' * 1_000_000}", "max_retries": 1})
    made.drain()
    assert made.history("dead", "big") == ["not_started"]
    assert made.log("big") == "queuectl: cannot be started: Argument list too long: /bin/sh\n"


def test_longest_command_runs(made: Queue, tmp_path: Path) -> None:
    """What is accepted is started."""
    (tmp_path / "batch").write_text(": " + "x" * (131_071 - 2))
    made.ok("enqueue", "--batch", str(tmp_path / "batch"))
    made.drain()
    assert len(made.ids("completed")) == 2


def test_document_of_a_hundred_megabytes_costs_no_memory(made: Queue) -> None:
    """Its size is enough to refuse it, in a worker and in every command that looks."""
    for where in ("pending/big.json", f"pending/{NAME.format('other')}", "completed/huge.json"):
        path = made.store / where
        with path.open("wb") as file:
            file.write(b'{"command": "')
            file.truncate(100_000_000)
        os.utime(path, (1e9, 1e9))
    assert "more than 67108864 bytes" in error_of(in_little_memory(made, "show", "huge"), 65)
    for words in (("list", "--json", "--sort", "created"), ("worker", "start", "--drain")):
        assert in_little_memory(made, *words).exit_code == 0
    assert in_little_memory(made, "doctor").exit_code == 1
    corrupt = sorted(os.listdir(made.store / "corrupt"))
    assert corrupt == [
        NAME.format("other"), NAME.format("other") + ".reason", "big.json", "big.json.reason"
    ]  # fmt: skip


def test_batch_without_an_end_of_a_line_is_refused(made: Queue) -> None:
    """A line is read no further than to where it is too long."""
    answer = in_little_memory(made, "enqueue", "--batch", "/dev/zero", megabytes=400)
    assert "line 1: more than 67108864 bytes" in error_of(answer, 65)


@pytest.mark.skipif(
    os.geteuid() == 0 and not shutil.which("setpriv"), reason="setpriv (util-linux) is not here"
)
def test_files_that_may_not_be_read(made: Queue) -> None:
    """They are left alone and told of, and hold up no worker."""
    for where in (f"pending/{NAME.format('a')}", "pending/b.json", "processing/c.1.json"):
        put(made, where, {}).chmod(0)
    put(made, "completed/d.json", {}).chmod(0)
    prefix = AS_ANYBODY if os.geteuid() == 0 else ()
    made.enqueue("true", "e")
    assert made("worker", "start", "--drain", prefix=prefix).exit_code == 0
    assert made.ids("completed") == ["d", "e", "fine"]
    assert "d.json" in error_of(made("show", "d", prefix=prefix), 65)
    assert made("doctor", prefix=prefix).stdout.count("mode 0000: ") == 4
    assert made("doctor", "--repair", prefix=prefix).exit_code == 0
    assert made("show", "d", prefix=prefix).exit_code == 0

"""What ``queuectl enqueue --batch`` adds, prints and refuses."""

import io
import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.cli.documents import only_job, pending, queuectl, snapshot
from tests.cli.placing import Placing

from queuectl.job import State


@pytest.fixture
def jobs_txt(tmp_path: Path) -> Path:
    """Return where a batch is written."""
    return tmp_path / "jobs.txt"


def test_a_batch_prints_its_ids_in_order(run: Run, jobs_txt: Path) -> None:
    """Lines are jobs, and run in their order."""
    jobs_txt.write_bytes(b'first\n\n{"command": "second", "id": "b"}\r\nthird')
    code, stdout, stderr = run("enqueue", "--batch", str(jobs_txt), "--priority", "3")
    assert (code, stderr) == (0, "")
    documents = pending(run.store_dir)
    assert [each["command"] for each in documents] == ["first", "second", "third"]
    assert {each["priority"] for each in documents} == {3}
    assert stdout == "".join(f"{each['id']}\n" for each in documents)


def test_a_batch_may_come_from_stdin(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dash is stdin, as for other programs."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\nb\xff\n")))
    assert run("enqueue", "--batch", "-").stdout.count("\n") == 2
    assert [each["command"] for each in pending(run.store_dir)] == ["a", "b\udcff"]


def test_a_large_batch_keeps_its_order(run: Run, jobs_txt: Path) -> None:
    """However many lines there are, pending/ lists them as they stood."""
    jobs_txt.write_text("".join(f"job {number}\n" for number in range(1000)))
    assert run("enqueue", "--batch", str(jobs_txt)).stdout.count("\n") == 1000
    commands = [each["command"] for each in pending(run.store_dir)]
    assert commands == [f"job {number}" for number in range(1000)]


def test_an_empty_batch_is_nothing_to_do(run: Run) -> None:
    """No line is no job, no output and no store."""
    assert run("enqueue", "--batch", "/dev/null") == (0, "", "")
    assert not run.store_dir.exists()


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (b'a\n\n{"command": 7}\n', 65, "line 3: 'command' is 7; it must be a string"),
        (b'a\n{"command": }\n', 65,
         "line 2: not a job document: bad JSON: Expecting value: line 1 column 13 (char 12)"),
        (b'{"id": "j", "command": "a"}\n{"id": "j", "command": "b"}\n', 65,
         "line 2: duplicate id 'j' (first on line 1)"),
        (b'a\n{"id": "old", "command": "b"}\n', 65,
         "line 2: job 'old' exists already (pending); choose another id, or use --if-exists skip"),
        (b"a\nb\0c\n", 65,
         "line 2: 'command' holds a NUL character, which no command can be given"),
        (b'a\n["b"]\n', 65, "line 2: an array of jobs holds objects, and not '\"b\"'"),
        (b'a\n{"command": "\xff"}\n', 65, "line 2: not a job document: not UTF-8 at byte 13"),
        (b'a\n{"id": "j", "command": "b", "priority": 2}\n', 2,
         "line 2: --priority conflicts with the job document of 'j'; specify it only once"),
    ],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
def test_a_bad_line_adds_no_job(  # noqa: PLR0917  (fixtures and cases come by position)
    run: Run, place: Placing, jobs_txt: Path, data: bytes, code: int, message: str
) -> None:
    """A batch is added whole or not at all, and the line is named."""
    place.job(State.PENDING, "old")
    jobs_txt.write_bytes(data)
    before = snapshot(run.store_dir)
    answer = run("enqueue", "--batch", str(jobs_txt), "--priority", "1")
    assert answer == (code, "", f"Error: {message}\n")
    assert snapshot(run.store_dir) == before


def test_a_batch_can_skip_what_exists(run: Run, place: Placing, jobs_txt: Path) -> None:
    """For cron: the whole list again adds what is new, and prints every id."""
    place.job(State.COMPLETED, "a")
    jobs_txt.write_text('{"id": "a", "command": "1"}\n{"id": "b", "command": "2"}\n')
    words = ("enqueue", "--batch", str(jobs_txt), "--if-exists", "skip")
    assert run(*words) == (0, "a\nb\n", "")
    assert only_job(run.store_dir)["id"] == "b"
    assert run(*words) == (0, "a\nb\n", "")
    assert only_job(run.store_dir)["id"] == "b"


def test_a_terminal_sees_a_progress_bar_and_a_pipe_does_not(
    store_dir: Path, jobs_txt: Path
) -> None:
    """The bar is on stderr, so that stdout holds ids alone."""
    jobs_txt.write_text("a\nb\n")
    leader, follower = pty.openpty()
    try:
        env = {**os.environ, "QUEUECTL_STORE": str(store_dir), "TERM": "xterm"}
        done = subprocess.run(
            [sys.executable, "-m", "queuectl", "enqueue", "--batch", str(jobs_txt)],
            check=True,
            env=env,
            stdout=subprocess.PIPE,
            stderr=follower,
        )
        os.close(follower)
        shown = b""
        with suppress(OSError):  # the end of what was written
            while part := os.read(leader, 65536):
                shown += part
    finally:
        os.close(leader)
    assert b"100%" in shown
    assert done.stdout.count(b"\n") == 2
    done = queuectl(
        "enqueue", "--batch", str(jobs_txt), store_dir=store_dir, stdout=subprocess.PIPE
    )
    assert (done.returncode, done.stderr) == (0, b"")

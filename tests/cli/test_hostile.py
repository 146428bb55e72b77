"""What is read by a command was made to do harm: it is answered in one line, or harmlessly."""

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Result, Run
from tests.cli.placing import Placing

from queuectl.job import State


def error_of(result: Result, exit_code: int) -> str:
    """Return the one line in which a command has told what is wrong."""
    assert result.exit_code == exit_code, result
    [line] = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


@pytest.mark.parametrize(
    ("data", "code", "told"),
    [
        (b"true\r\n\r\n  \r\ntrue\r\n", 0, ""),
        (b"\xef\xbb\xbftrue\n", 0, ""),
        (b"", 0, ""),
        (b"\xef\xbb\xbf", 0, ""),
        ("true\n".encode("utf-16"), 65, "line 1: 'command' holds a NUL character"),
        (b"true\ntr\0ue\n", 65, "line 2: 'command' holds a NUL character"),
        (b"true\0false\0", 65, "line 1: 'command' holds a NUL character"),
        (b'{"command": "\\ud800"}', 65, "line 1: 'command' holds a lone surrogate"),
        (b'{"command": "true", "env": {"A": "\\u0000"}}', 65, "'env': A holds a NUL character"),
        (b'{"command": "true", "cwd": "/\\u0000"}', 65, "'cwd' holds a NUL character"),
        (b'{"command": "true", "priority": true}', 65, "line 1: 'priority' is True"),
        (b'{"command": "true", "timeout": "9"}', 65, "line 1: 'timeout' is '9'"),
        (b'{"command": "true", "max_retries": 9223372036854775808}', 65, "'max_retries' is 9223"),
        (b'{"command": "true", "id": "\\u001b[2J"}', 65, "is not an id"),
        (b'{"command": "true", "x": ' + b"[" * 100_000, 65, "nested more than 100 deep"),
        (b"[" * 100_000, 65, "line 1: an array of jobs holds objects, and not"),
        (b'{"command": "true"', 65, "line 1: not a job document: bad JSON"),
        (b'{"command": "true\xff"}', 65, "line 1: not a job document: not UTF-8 at byte 17"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_batch_of_any_bytes(run: Run, tmp_path: Path, data: bytes, code: int, told: str) -> None:
    """Each line is a job, or all are refused, and the line is named."""
    path = tmp_path / "batch"
    path.write_bytes(data)
    answer = run("enqueue", "--batch", str(path))
    if code:
        assert told in error_of(answer, code)
        assert json.loads(run("list", "--json").stdout) == []
    else:
        ids = answer.stdout.split()
        assert len(ids) == data.count(b"true")
        assert [job["id"] for job in json.loads(run("list", "--json").stdout)] == ids


def test_key_of_a_document_does_not_drive_the_terminal(run: Run, place: Placing) -> None:
    """Keys that are not known are shown as harmlessly as values."""
    place.job(State.COMPLETED, "x", extra={"\x1b[2J\n": 1, "\ud800": "\ud800"})
    shown = run("show", "x").stdout
    assert "\\x1b[2J\\n" in shown
    assert "\\ud800" in shown
    assert "\x1b" not in shown
    assert json.loads(run("show", "x", "--json").stdout)["\x1b[2J\n"] == 1


def test_parent_of_a_newer_version_does_not_hide_its_child(run: Run, place: Placing) -> None:
    """What a job waits for may be more than this version can read; the job itself is not."""
    place.job(State.COMPLETED, "parent").write_text('{"schema": 2}')
    place.job(State.COMPLETED, "child", after=("parent",))
    assert "parent (unreadable)" in run("show", "child").stdout


@pytest.mark.parametrize("limit", [2**31, 2**63 - 1, 2**63 + 1])
def test_limit_beyond_all_measure_is_no_limit(run: Run, place: Placing, limit: int) -> None:
    """More than a list can hold is all of it."""
    place.job(State.DEAD, "fine")
    for words in (("list",), ("list", "--sort", "id"), ("list", "--json"), ("dlq", "list")):
        result = run(*words, "--limit", str(limit))
        assert (result.exit_code, result.stderr) == (0, "")
        assert "fine" in result.stdout


def test_names_that_are_no_ids_are_completed_for_nobody(
    run: Run, place: Placing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a shell would show or run is an id, or it is not offered."""
    for name in ("\x1b[2J.json", "a\nb.json", "$(touch x).json", "good.json"):
        (place.store_dir / "pending" / name).write_text('{"command": "true"}')
    monkeypatch.setenv("_QUEUECTL_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "queuectl show ")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert run().stdout.splitlines() == ["plain,good"]


def test_tally_that_is_no_number_holds_up_nobody(run: Run, place: Placing) -> None:
    """One that was not even equal to itself was read again for ever."""
    (place.store_dir / "tally.json").write_text('{"seconds": "nan"}')
    assert "queuectl_attempt_duration_seconds_sum 0.0" in run("metrics").stdout


def test_pattern_that_a_later_python_reads_otherwise_warns_nobody(run: Run) -> None:
    """What Python has to say about a pattern is not for who lists jobs."""
    assert run("list", "--command-matches", "[[a]").stderr == "no jobs match\n"

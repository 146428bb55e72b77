"""When ``--run-at`` lets a job run, and what it says of a time that is odd."""

import json
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tests.cli.conftest import Run

from queuectl.clock import parse_instant, utc_now

HINT = " Try 'queuectl enqueue --help'."


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the machine into a zone whose clock is set back in autumn and forward in spring."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def run_at(run: Run, job_id: str) -> datetime:
    """Return when a job is due."""
    return parse_instant(json.loads(run("show", job_id, "--json").stdout)["run_at"])


def test_a_time_of_day_is_the_next_one(run: Run) -> None:
    """Nothing is said of what is as everybody expects."""
    before = utc_now()
    assert run("enqueue", "--id", "a", "--run-at", "12:34", "true") == (0, "a\n", "")
    local = run_at(run, "a").astimezone()
    assert (local.hour, local.minute, local.second) == (12, 34, 0)
    assert before < local <= before + timedelta(hours=25)


def test_now_is_no_past(run: Run) -> None:
    """It is due, and not a word is said."""
    assert run("enqueue", "--id", "a", "--run-at", "now", "true") == (0, "a\n", "")


def test_a_time_that_comes_twice_is_said_to(run: Run) -> None:
    """The first one is taken."""
    note = "--run-at 2127-10-26T02:30: 02:30 on 2127-10-26 comes twice; this is the first\n"
    assert run("enqueue", "--id", "a", "--run-at", "2127-10-26T02:30", "true") == (0, "a\n", note)
    assert run_at(run, "a") == datetime.fromisoformat("2127-10-26T00:30Z")


def test_a_time_that_is_skipped_is_refused(run: Run) -> None:
    """It is a bad value, and no store is made."""
    message = (
        "Error: Invalid value for '--run-at': '2127-03-30 02:30' does not exist: the clock skips"
        f" 02:30 on 2127-03-30; choose another time, or give an offset from UTC.{HINT}\n"
    )
    assert run("enqueue", "--run-at", "2127-03-30 02:30", "true") == (2, "", message)
    assert not run.store_dir.exists()


def test_a_time_in_the_past_is_said_to_be(run: Run, tmp_path: Path) -> None:
    """A mistyped year is seen; who meant it has the job at once."""
    note = "--run-at 2020-01-01 02:30 is in the past, and so due now\n"
    assert run("enqueue", "--id", "a", "--run-at", "2020-01-01 02:30", "true") == (0, "a\n", note)
    batch = tmp_path / "batch"
    batch.write_text("true\ntrue\n")
    code, _, stderr = run("enqueue", "--run-at", "2020-01-01T00:00Z", "--batch", str(batch))
    note = "--run-at 2020-01-01T00:00Z is in the past, and so due now\n"
    assert (code, stderr) == (0, note)


def test_a_document_takes_an_instant_alone(run: Run) -> None:
    """Programs write documents, and what one means must not depend on when it is read."""
    code, _, stderr = run("enqueue", '{"command": "true", "run_at": "02:30"}')
    assert code == 65
    assert stderr.startswith("Error: 'run_at': '02:30' is not an instant; write ISO 8601, such as")

"""What ``queuectl status`` prints."""

import json
from datetime import timedelta

from tests.cli.conftest import Run
from tests.cli.placing import Placing
from tests.jobs import NOON

from queuectl.clock import format_instant, utc_now
from queuectl.job import State

EMPTY = """\
blocked             0
pending             0
processing          0
completed           0
dead                0
cancelled           0
workers             0  0 busy, 0 ended in the last minute
"""


def test_an_absent_store_is_an_empty_queue_and_stays_absent(run: Run) -> None:
    """Counting makes no store."""
    assert run("status") == (0, EMPTY, "")
    assert not run.store_dir.exists()


def test_a_person_sees_what_is_due_and_who_works(run: Run, place: Placing) -> None:
    """Jobs are counted by state, pending ones told apart by what is due."""
    now = utc_now()
    place.job(State.PENDING, "a", run_at=now - timedelta(hours=3, seconds=20))
    place.job(State.PENDING, "b", priority=0, run_at=now - timedelta(minutes=1))
    place.job(State.PENDING, "c", run_at=now + timedelta(days=2, seconds=30))
    place.job(State.PROCESSING, "d")
    place.job(State.COMPLETED, "e")
    place.dead("f")
    place.dead("g")
    (place.store_dir / "corrupt" / "h.json").write_text("{")
    (place.store_dir / "corrupt" / "h.json.reason").write_text("not JSON\n")
    place.worker("w-1", NOON)
    place.worker("w-2", NOON, job="d", attempt=1)
    assert run("status") == (
        0,
        (
            "blocked             0\n"
            "pending             3  2 due, oldest 3h ago, next in 2d\n"
            "processing          1\n"
            "completed           1\n"
            "dead                2\n"
            "cancelled           0\n"
            "unreadable          1  in corrupt/, with the reasons\n"
            "workers             2  1 busy, 0 ended in the last minute\n"
        ),
        "",
    )


def test_json_has_always_the_same_keys(run: Run, place: Placing) -> None:
    """What there is none of is 0 or null, never missing."""
    nothing = {
        "store": str(run.store_dir),
        "jobs": {state.value: 0 for state in State},
        "due": 0,
        "oldest_due_at": None,
        "next_due_at": None,
        "unreadable": 0,
        "workers": {"live": 0, "busy": 0},
        "ended_last_minute": 0,
        "jobs_per_second": 0.0,
    }
    code, stdout, stderr = run("status", "--json")
    assert (code, json.loads(stdout), stderr) == (0, nothing, "")
    due, later = utc_now() - timedelta(hours=1), utc_now() + timedelta(hours=1)
    place.job(State.PENDING, "a", run_at=due)
    place.job(State.PENDING, "b", run_at=later)
    place.dead("c")
    place.worker("w-1", NOON, job="d", attempt=1)
    document = json.loads(run("status", "--json").stdout)
    assert document == {
        "store": str(run.store_dir),
        "jobs": {state.value: 0 for state in State} | {"pending": 2, "dead": 1},
        "due": 1,
        "oldest_due_at": format_instant(due),
        "next_due_at": format_instant(later),
        "unreadable": 0,
        "workers": {"live": 1, "busy": 1},
        "ended_last_minute": 0,
        "jobs_per_second": 0.0,
    }
    assert list(document["jobs"]) == list(State)

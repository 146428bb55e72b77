"""What ``queuectl retry`` prints and does."""

import json

import pytest
from tests.cli.conftest import Run
from tests.cli.placing import Placing
from tests.cli.test_dlq import names
from tests.jobs import attempt

from queuectl.clock import parse_instant, utc_now
from queuectl.job import Outcome, State


def test_completed_and_cancelled_jobs_run_again(run: Run, place: Placing) -> None:
    """Due now, attempts 0, history kept; the ids are printed, each once."""
    history = (attempt("done"), attempt("done", 2, outcome=Outcome.SUCCEEDED, exit_code=0))
    place.job(State.COMPLETED, "done", attempts=1, history=history)
    place.job(State.CANCELLED, "stopped")
    place.job(State.COMPLETED, "other")
    before = utc_now()
    assert run("retry", "stopped", "done", "stopped") == (0, "stopped\ndone\n", "")
    assert names(place, State.PENDING) == ["done", "stopped"]
    assert names(place, State.COMPLETED) == ["other"]
    assert names(place, State.CANCELLED) == []
    document = json.loads(run("show", "done", "--json").stdout)
    assert (document["state"], document["attempts"]) == ("pending", 0)
    assert [each["outcome"] for each in document["history"]] == ["failed", "succeeded"]
    assert before <= parse_instant(document["run_at"]) <= utc_now()
    assert [each["id"] for each in json.loads(run("list", "--json").stdout)][:2] == [
        "stopped",
        "done",
    ]


@pytest.mark.parametrize("order", [("p", "c", "d"), ("d", "c", "p"), ("c", "d", "p")])
def test_jobs_that_wait_for_one_another_are_retried_in_their_order(
    run: Run, place: Placing, order: tuple[str, ...]
) -> None:
    """However they are named: else one would run before one that it waits for runs again."""
    place.job(State.COMPLETED, "p")
    place.job(State.COMPLETED, "c", after=("p",))
    place.job(State.CANCELLED, "d", after_any=("c",))
    assert run("retry", *order) == (0, "p\nc\nd\n", "")
    assert names(place, State.PENDING) == ["p"]


def test_jobs_that_a_hand_has_made_wait_for_each_other_are_retried(
    run: Run, place: Placing
) -> None:
    """In the order in which they are named."""
    place.job(State.COMPLETED, "a", after=("b",))
    place.job(State.COMPLETED, "b", after=("a",))
    assert run("retry", "b", "a") == (0, "b\na\n", "")


@pytest.mark.parametrize(
    ("wrong", "code", "message"),
    [
        ("bad", 65, "job bad is dead; use 'queuectl dlq retry bad'"),
        ("waiting", 65, "job waiting is pending and has not ended yet"),
        ("running", 65, "job running is processing and has not ended yet"),
        ("nope", 66, "no such job: nope"),
        (
            "don",
            66,
            "no such job: don; give the whole id: done",
        ),  # a prefix does not do: this changes the job
        ("../completed/done", 66, "no such job: ../completed/done"),
        ("a\0b", 66, "no such job: a\\x00b"),
        ("", 66, "no such job:"),
    ],
)
def test_nothing_is_changed_where_one_id_is_wrong(
    run: Run, place: Placing, wrong: str, code: int, message: str
) -> None:
    """All are checked before the first job is moved, and none becomes a path."""
    place.job(State.COMPLETED, "done")
    place.dead("bad")
    place.job(State.PENDING, "waiting")
    place.job(State.PROCESSING, "running")
    assert run("retry", "done", wrong) == (code, "", f"Error: {message}\n")
    assert names(place, State.COMPLETED) == ["done"]
    assert names(place, State.PENDING) == ["waiting"]


def test_an_absent_store_has_nothing_to_retry(run: Run) -> None:
    """Nor is one made."""
    assert run("retry", "nope") == (66, "", "Error: no such job: nope\n")
    assert run("retry").exit_code == 2
    assert not run.store_dir.exists()

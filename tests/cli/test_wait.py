"""What ``queuectl wait`` answers about jobs that have ended; tests/process waits for real."""

import json
from typing import Any

import pytest
from tests.cli.conftest import Run
from tests.cli.placing import Placing
from tests.jobs import NOON, attempt

from queuectl.job import Attempt, Outcome, State
from queuectl.store import waiting
from queuectl.store.lookup import Lookup


def last(job_id: str, outcome: Outcome, code: int) -> Attempt:
    """Return an attempt that ended so."""
    return attempt(job_id, outcome=outcome, exit_code=code)


def test_a_completed_job_is_waited_for_with_0(run: Run, place: Placing) -> None:
    """Nothing is printed: the exit code is the answer."""
    place.job(State.COMPLETED, "fine", history=(last("fine", Outcome.SUCCEEDED, 0),))
    assert run("wait", "fine") == (0, "", "")


@pytest.mark.parametrize(
    ("changes", "exit_code", "told"),
    [
        ({"exit_code": 3}, 3, "failed (exit code 3)"),
        ({"exit_code": 75}, 75, "failed (exit code 75)"),
        ({"outcome": Outcome.NOT_FOUND, "exit_code": 127}, 127, "not found (exit code 127)"),
        ({"outcome": Outcome.NOT_STARTED, "exit_code": None}, 126, "not started"),
        (
            {"outcome": Outcome.SIGNALLED, "exit_code": None, "signal": 11},
            139,
            "killed (SIGSEGV)",
        ),
        (
            {"outcome": Outcome.TIMED_OUT, "exit_code": None, "signal": 15},
            124,
            "timed out (SIGTERM)",
        ),
        ({"outcome": Outcome.TIMED_OUT, "exit_code": 0}, 124, "timed out (exit code 0)"),
        ({"outcome": Outcome.LOST, "exit_code": None}, 1, "lost"),
    ],
)
def test_the_exit_code_is_how_the_last_attempt_ended(
    run: Run, place: Placing, changes: dict[str, Any], exit_code: int, told: str
) -> None:
    """As a shell tells it; a line says that the code is the job's and not queuectl's own."""
    place.dead("bad", history=(attempt("bad"), attempt("bad", 2, **changes)))
    assert run("wait", "bad") == (exit_code, "", f"bad is dead: {told}\n")


def test_a_cancelled_job_is_a_failure_whatever_its_attempts_were(run: Run, place: Placing) -> None:
    """It did not complete, even where its command had come to 0 when it was ended."""
    place.job(State.CANCELLED, "never-ran")
    place.job(State.CANCELLED, "ran", history=(last("ran", Outcome.CANCELLED, 0),))
    assert run("wait", "never-ran") == (1, "", "never-ran is cancelled\n")
    assert run("wait", "ran") == (1, "", "ran is cancelled\n")


def test_a_dead_job_that_a_hand_put_there_is_a_failure(run: Run, place: Placing) -> None:
    """It has no attempt that could tell."""
    place.dead("bad", runs=0)
    assert run("wait", "bad") == (1, "", "bad is dead\n")


def test_of_several_the_first_argument_that_failed_decides(run: Run, place: Placing) -> None:
    """Neither the first to end nor the highest code."""
    place.job(State.COMPLETED, "fine")
    place.dead("five", history=(last("five", Outcome.FAILED, 5),))
    place.dead("nine", history=(last("nine", Outcome.FAILED, 9),))
    assert run("wait", "fine", "nine", "five").exit_code == 9
    assert run("wait", "five", "fine", "nine").exit_code == 5
    assert run("wait", "fine", "five", "five").exit_code == 5


def test_any_is_answered_by_the_first_that_ended(run: Run, place: Placing) -> None:
    """One that waits still does not matter, nor does the order of the arguments."""
    waiting = place.job(State.PENDING, "waiting")
    place.dead("late", history=(last("late", Outcome.FAILED, 5),))
    early = place.dead("early", history=(last("early", Outcome.FAILED, 9),))
    document = json.loads(early.read_text())
    early.write_text(json.dumps(document | {"updated_at": "2026-01-01T00:00:00.000000Z"}))
    assert run("wait", "--any", "waiting", "late", "early").exit_code == 9
    assert waiting.exists()


def test_a_timeout_says_who_has_not_ended(run: Run, place: Placing) -> None:
    """It is 75 even where another one failed: the wait was for all."""
    place.dead("bad")
    for number in range(12):
        place.job(State.PENDING, f"w-{number:02}")
    ids = [f"w-{number:02}" for number in range(12)]
    assert run("wait", "bad", "w-00", "--timeout", "0.01s", "--quiet") == (
        75,
        "",
        "Error: not ended yet: w-00; wait longer, or see 'queuectl status'\n",
    )
    assert run("wait", *ids, "--timeout", "0.01s", "--quiet") == (
        75,
        "",
        (
            f"Error: not ended yet: {', '.join(ids[:10])} and 2 more; wait longer, or see"
            " 'queuectl status'\n"
        ),
    )
    assert run("wait", "--any", "w-00", "w-01", "--timeout", "0.01s").exit_code == 75


NO_WORKER = "waiting, but no worker is running: see 'queuectl worker start'\n"
NOT_ENDED = "Error: not ended yet: waiting; wait longer, or see 'queuectl status'\n"


def test_that_no_worker_runs_is_told_once(run: Run, place: Placing) -> None:
    """It would wait for ever, and who has asked may not know; --quiet does."""
    place.job(State.PENDING, "waiting")
    place.job(State.COMPLETED, "fine")
    words = ("wait", "fine", "waiting", "--timeout", "0.01s")
    assert run(*words) == (75, "", NO_WORKER + NOT_ENDED)
    assert run(*words, "--quiet") == (75, "", NOT_ENDED)
    place.worker("w-abcd", NOON)
    assert run(*words) == (75, "", NOT_ENDED)


def test_a_wait_that_is_over_needs_no_worker(run: Run, place: Placing) -> None:
    """Of any, one that has ended is enough."""
    place.job(State.PENDING, "waiting")
    place.job(State.COMPLETED, "fine")
    assert run("wait", "fine") == (0, "", "")
    assert run("wait", "waiting", "fine", "--any") == (0, "", "")
    assert run("wait", "waiting", "--any", "--timeout", "0.01s").stderr == NO_WORKER + NOT_ENDED


def test_a_prefix_is_enough_where_it_is_unique(run: Run, place: Placing) -> None:
    """As for show and logs."""
    place.dead("bad-1", history=(last("bad-1", Outcome.FAILED, 4),))
    place.job(State.COMPLETED, "fine-1")
    place.job(State.COMPLETED, "fine-2")
    assert run("wait", "bad").exit_code == 4
    assert run("wait", "fine") == (65, "", "Error: 'fine' is ambiguous: fine-1, fine-2\n")


def test_an_unknown_job_is_not_waited_for(run: Run, place: Placing) -> None:
    """Nor is the other one then."""
    place.job(State.PENDING, "waiting")
    assert run("wait", "waiting", "nope") == (66, "", "Error: no such job: nope\n")


def test_an_absent_store_has_no_job_to_wait_for(run: Run) -> None:
    """Looking makes no store."""
    assert run("wait", "nope") == (66, "", "Error: no such job: nope\n")
    assert not run.store_dir.exists()


def test_a_job_that_is_deleted_while_it_is_waited_for_is_an_error(
    run: Run, place: Placing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hand that deletes it from pending/ tells nobody: it is looked for now and then."""
    path = place.job(State.PENDING, "waiting")
    monkeypatch.setattr(waiting, "_LOOK_SECONDS", 0.01)
    find = Lookup.find

    def find_and_delete(self: Lookup, job_ids: object) -> object:
        found = find(self, job_ids)  # type: ignore[arg-type]
        path.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Lookup, "find", find_and_delete)
    assert run("wait", "waiting", "--quiet") == (
        66,
        "",
        "Error: no such job: waiting; it was deleted while it was waited for\n",
    )


def test_a_document_that_cannot_be_read_is_an_error(run: Run, place: Placing) -> None:
    """How the job ended is not known then."""
    path = place.dead("bad")
    path.write_text("{")
    code, stdout, stderr = run("wait", "bad")
    assert (code, stdout) == (65, "")
    assert stderr.startswith(f"Error: {path}: not a job document: bad JSON")


@pytest.mark.parametrize("words", [(), ("a", "--timeout", "0"), ("a", "--timeout", "soon")])
def test_what_makes_no_sense_is_refused(run: Run, place: Placing, words: tuple[str, ...]) -> None:
    """At least one id, and a duration above 0."""
    place.job(State.COMPLETED, "a")
    assert run("wait", *words).exit_code == 2

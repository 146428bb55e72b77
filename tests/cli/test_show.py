"""What ``queuectl show`` prints."""

import json
from datetime import timedelta

from tests.cli.conftest import Run
from tests.cli.placing import Placing
from tests.jobs import attempt

from queuectl.clock import utc_now
from queuectl.job import Outcome, State


def without_ages(text: str) -> list[str]:
    """Return the lines of a text, cut before what is in parentheses after an instant."""
    return [line.partition("Z (")[0] for line in text.splitlines()]


def test_a_person_sees_the_fields_then_the_attempts(run: Run, place: Placing) -> None:
    """Every field that is set is shown, and each attempt with how it ended."""
    place.dead(
        "job-1",
        command="echo '\x1b[31m'\nexit 3",
        timeout_seconds=5400.0,
        env={"A": "1", "B": "2\n"},
        after=("job-0", "gone"),
        after_any=("broken",),
        extra={"note": {"ä": 1}},
        history=(
            attempt("job-1"),
            attempt(
                "job-1", 2, outcome=Outcome.SIGNALLED, signal=9, exit_code=None, worker="w-\x07"
            ),
            attempt("job-1", 3, outcome=Outcome.TIMED_OUT, signal=15, exit_code=None),
            attempt("job-1", 4, outcome=Outcome.LOST, exit_code=None, duration_seconds=None),
            attempt("job-1", 5, outcome=Outcome.SIGNALLED, signal=40, exit_code=None),
            attempt("job-1", 6, outcome=Outcome.SUCCEEDED, exit_code=0),
        ),
    )
    place.job(State.COMPLETED, "job-0")
    place.dead("broken").write_text("{")
    place.log("job-1", 6, b"")
    code, stdout, stderr = run("show", "job-1")
    assert (code, stderr) == (0, "")
    assert without_ages(stdout) == [
        "id            job-1",
        "state         dead",
        "command       echo '\\x1b[31m'\\nexit 3",
        "priority      5",
        "attempts      3/3",
        "timeout       1h30m",
        "cwd           /srv",
        "env           A=1",
        "env           B=2\\n",
        "after         job-0 (completed)",
        "after         gone (no such job)",
        "after any     broken (unreadable)",
        "created       2026-01-02T12:00:00.250000",
        "updated       2026-01-02T12:00:00.250000",
        f"last log      {place.log_path('job-1', 6)}",
        'note          {"ä": 1}',
        "",
        "ATTEMPT  OUTCOME               STARTED               TOOK  WORKER",
        "1        failed (exit code 3)  2026-01-02T12:01:00Z  1.5s  w-abcd",
        "2        killed (SIGKILL)      2026-01-02T12:02:00Z  1.5s  w-\\x07",
        "3        timed out (SIGTERM)   2026-01-02T12:03:00Z  1.5s  w-abcd",
        "4        lost                  2026-01-02T12:04:00Z        w-abcd",
        "5        killed (signal 40)    2026-01-02T12:05:00Z  1.5s  w-abcd",
        "6        succeeded             2026-01-02T12:06:00Z  1.5s  w-abcd",
    ]


def test_attempts_that_are_not_kept_are_counted(run: Run, place: Placing) -> None:
    """A person sees where some are left out, and how many; the document says it, too."""
    place.dead(
        "job-1",
        attempts=5_000,
        max_retries=5_000,
        history=(attempt("job-1"), attempt("job-1", 2), attempt("job-1", 5_000)),
        history_omitted=4_997,
    )
    assert run("show", "job-1").stdout.splitlines()[-5:] == [
        "ATTEMPT  OUTCOME               STARTED               TOOK  WORKER",
        "1        failed (exit code 3)  2026-01-02T12:01:00Z  1.5s  w-abcd",
        "2        failed (exit code 3)  2026-01-02T12:02:00Z  1.5s  w-abcd",
        "...      4,997 omitted",
        "5000     failed (exit code 3)  2026-01-05T23:20:00Z  1.5s  w-abcd",
    ]
    assert json.loads(run("show", "job-1", "--json").stdout)["history_omitted"] == 4_997


def test_a_log_that_was_deleted_is_said_to_be(run: Run, place: Placing) -> None:
    """Its path is told nevertheless: that is where it was."""
    place.dead("job-1")
    path = place.log("job-1", 3, b"text\n")
    assert f"last log      {path}\n" in run("show", "job-1").stdout
    path.unlink()
    assert f"last log      {path} (deleted)\n" in run("show", "job-1").stdout


def test_a_job_that_has_not_run_has_no_table(run: Run, place: Placing) -> None:
    """A pending job tells when it is due, and neither attempts nor a log."""
    due = utc_now() + timedelta(hours=2, seconds=30)
    place.job(State.PENDING, "later", run_at=due)
    code, stdout, stderr = run("show", "later")
    assert (code, stderr) == (0, "")
    last = stdout.splitlines()[-1]
    assert last.startswith("run at        ")
    assert last.endswith("Z (in 2h)")


def test_json_is_the_document_where_it_is(run: Run, place: Placing) -> None:
    """The state is that of the directory, and the keys come in their stable order."""
    path = place.dead("job-1", runs=1)
    path.rename(place.store_dir / "cancelled" / "job-1.json")
    code, stdout, stderr = run("show", "job-1", "--json")
    assert (code, stderr) == (0, "")
    document = json.loads(stdout)
    assert list(document) == [
        "schema", "id", "command", "state", "priority", "attempts", "max_retries", "timeout", "cwd",
        "env", "after", "after_any", "created_at", "updated_at", "run_at", "history",
    ]  # fmt: skip
    assert document["state"] == "cancelled"
    assert document["history"] == [
        {
            "number": 1,
            "worker": "w-abcd",
            "started_at": "2026-01-02T12:01:00.250000Z",
            "finished_at": "2026-01-02T12:01:01.750000Z",
            "duration": 1.5,
            "exit_code": 3,
            "signal": None,
            "outcome": "failed",
            "log": "job-1.1.log",
        }
    ]


def test_a_unique_prefix_is_enough_and_an_exact_id_wins(run: Run, place: Placing) -> None:
    """As with git; an id that others start with can still be named."""
    place.job(State.PENDING, "back")
    place.job(State.COMPLETED, "backup")
    assert json.loads(run("show", "backu", "--json").stdout)["id"] == "backup"
    assert json.loads(run("show", "back", "--json").stdout)["id"] == "back"
    assert run("show", "bac") == (65, "", "Error: 'bac' is ambiguous: back, backup\n")


def test_an_unknown_id_ends_with_66(run: Run, place: Placing) -> None:
    """The message names it."""
    assert run("show", "nope") == (66, "", "Error: no such job: nope\n")


def test_an_absent_store_has_no_job_and_stays_absent(run: Run) -> None:
    """Looking for a job makes no store."""
    assert run("show", "nope") == (66, "", "Error: no such job: nope\n")
    assert not run.store_dir.exists()


def test_an_unreadable_document_ends_with_65(run: Run, place: Placing) -> None:
    """The message names the file and what is wrong with it."""
    path = place.dead("job-1")
    path.write_text('{"id": "job-1"}')
    assert run("show", "job-1") == (65, "", f"Error: {path}: 'command' is missing\n")

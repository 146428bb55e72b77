"""What ``queuectl cancel`` prints and does where nothing runs; tests/process cancels what runs."""

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.cli.placing import Placing
from tests.cli.test_dlq import names

from queuectl.clock import later, utc_now
from queuectl.job import State
from queuectl.store.lookup import Lookup


def test_waiting_jobs_are_cancelled_and_their_ids_printed(run: Run, place: Placing) -> None:
    """Those that are due and those that are delayed, in the order of the arguments, each once."""
    place.job(State.PENDING, "due")
    place.job(State.PENDING, "delayed", run_at=later(utc_now(), 3600))
    place.job(State.PENDING, "other")
    assert run("cancel", "due", "delayed", "due") == (0, "due\ndelayed\n", "")
    assert names(place, State.CANCELLED) == ["delayed", "due"]
    assert names(place, State.PENDING) == ["other"]
    document = json.loads((place.store_dir / "cancelled" / "due.json").read_text())
    assert (document["state"], document["attempts"], document["history"]) == ("cancelled", 0, [])
    assert document["updated_at"] > document["created_at"]
    assert list((place.store_dir / "tmp").iterdir()) == []


def test_a_cancelled_job_stays_so(run: Run, place: Placing) -> None:
    """It is no error to ask for what is so already, and nothing is rewritten."""
    path = place.job(State.CANCELLED, "stopped")
    before = path.stat()
    assert run("cancel", "stopped") == (0, "stopped\n", "")
    assert path.stat() == before


@pytest.mark.parametrize("state", [State.COMPLETED, State.DEAD])
def test_what_has_ended_cannot_be_cancelled(run: Run, place: Placing, state: State) -> None:
    """The others are cancelled all the same, and the exit code says that one was not."""
    place.job(state, "over")
    place.job(State.PENDING, "first")
    place.job(State.PENDING, "last")
    assert run("cancel", "first", "over", "last") == (
        65,
        "first\nlast\n",
        f"Error: job over is {state} and cannot be cancelled\n",
    )
    assert names(place, state) == ["over"]


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("nope", ""),
        ("firs", "; give the whole id: first"),
        ("a", "; give the whole id: a1 or a2 or a3"),
        ("../pending/first", ""),
        (".", ""),
        ("a/b", ""),
    ],
)
def test_nothing_is_cancelled_where_one_does_not_exist(
    run: Run, place: Placing, wrong: str, hint: str
) -> None:
    """All are looked for first; a prefix is no id, since this changes the job, and is completed."""
    for job_id in ("first", "a1", "a2", "a3"):
        place.job(State.PENDING, job_id)
    assert run("cancel", "first", wrong) == (66, "", f"Error: no such job: {wrong}{hint}\n")
    assert names(place, State.PENDING) == ["a1", "a2", "a3", "first"]


def test_a_job_that_a_hand_dropped_is_cancelled_by_its_files_stem(run: Run, place: Placing) -> None:
    """It is in the queue, though no worker has adopted it yet."""
    (place.store_dir / "pending" / "dropped.json").write_text('{"command": "true"}')
    assert run("cancel", "dropped") == (0, "dropped\n", "")
    document = json.loads((place.store_dir / "cancelled" / "dropped.json").read_text())
    assert (document["id"], document["state"], document["command"]) == (
        "dropped",
        "cancelled",
        "true",
    )


def test_a_document_that_cannot_be_read_stays_where_it_is(run: Run, place: Placing) -> None:
    """Nothing is known of the job; a person has to look."""
    path = place.job(State.PENDING, "broken")
    path.write_text("{")
    code, stdout, stderr = run("cancel", "broken")
    assert (code, stdout) == (65, "")
    assert stderr.startswith(f"Error: {path}: not a job document")
    assert path.exists()


def test_a_symlink_in_the_place_of_a_document_is_an_error(
    run: Run, place: Placing, tmp_path: Path
) -> None:
    """It is no job, and it must not be waited for as if somebody held its lock."""
    path = place.job(State.PENDING, "linked")
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    assert run("cancel", "linked") == (65, "", f"Error: {path} is no regular file of yours\n")


def test_a_job_that_is_deleted_meanwhile_is_told(
    run: Run, place: Placing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACE: a hand deletes it between the look and the move."""
    path = place.job(State.PENDING, "gone")
    find = Lookup.find

    def find_and_delete(self: Lookup, job_ids: object) -> object:
        found = find(self, job_ids)  # type: ignore[arg-type]
        path.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Lookup, "find", find_and_delete)
    assert run("cancel", "gone") == (
        66,
        "",
        "Error: job gone was deleted before it could be cancelled\n",
    )


def test_an_absent_store_has_nothing_to_cancel(run: Run) -> None:
    """Nor is one made."""
    assert run("cancel", "nope") == (66, "", "Error: no such job: nope\n")
    assert run("cancel").exit_code == 2
    assert not run.store_dir.exists()

"""What ``queuectl purge`` prints and does."""

import json

import pytest
from tests.cli.conftest import Run
from tests.cli.placing import Placing
from tests.jobs import attempt

from queuectl.job import State


def ids(place: Placing, state: State) -> list[str]:
    """Return the ids that a directory of finished jobs holds."""
    return sorted(path.stem for path in (place.store_dir / state).iterdir())


@pytest.fixture
def finished(place: Placing) -> Placing:
    """Return a store with a job of a minute, an hour and a day in each finished state."""
    for state in (State.COMPLETED, State.DEAD, State.CANCELLED):
        for name, ago in (("minute", 60.0), ("hour", 3600.0), ("day", 86400.0)):
            job_id = f"{state}-{name}"
            place.job(state, job_id, ago=ago, history=(attempt(job_id),))
            place.log(job_id, 1, b"x")
    return place


def test_an_absent_store_has_nothing_to_purge_and_stays_absent(run: Run) -> None:
    """Neither purging nor looking makes a store."""
    assert run("purge") == (0, "0 jobs purged\n", "")
    assert run("purge", "--dry-run") == (0, "", "0 jobs would be purged\n")
    assert run("purge", "--json") == (0, "[]\n", "")
    assert not run.store_dir.exists()


def test_completed_and_cancelled_jobs_of_any_age_go_by_default(run: Run, finished: Placing) -> None:
    """Dead ones are kept for a person to look at, and so are their logs."""
    assert run("purge") == (0, "6 jobs purged\n", "")
    assert ids(finished, State.COMPLETED) == ids(finished, State.CANCELLED) == []
    assert ids(finished, State.DEAD) == ["dead-day", "dead-hour", "dead-minute"]
    logs = sorted(path.name for path in (finished.store_dir / "logs").iterdir())
    assert logs == ["dead-day.1.log", "dead-hour.1.log", "dead-minute.1.log"]


def test_the_states_and_the_age_can_be_chosen(run: Run, finished: Placing) -> None:
    """--state can be repeated, in any case; the age is that of the file."""
    words = ("--state", "dead", "--state", "COMPLETED", "--older-than", "30m")
    assert run("purge", *words) == (0, "4 jobs purged\n", "")
    assert ids(finished, State.DEAD) == ["dead-minute"]
    assert ids(finished, State.COMPLETED) == ["completed-minute"]
    assert len(ids(finished, State.CANCELLED)) == 3
    assert run("purge", "--state", "dead", "--state", "dead") == (0, "1 job purged\n", "")


def test_a_dry_run_prints_the_ids_oldest_first(run: Run, finished: Placing) -> None:
    """On stdout there is nothing else, so that a script can take them; nothing is deleted."""
    words = ("--dry-run", "--older-than", "30m", "--state", "completed")
    assert run("purge", *words) == (
        0,
        "completed-day\ncompleted-hour\n",
        "2 jobs would be purged\n",
    )
    assert len(ids(finished, State.COMPLETED)) == 3
    assert len(list((finished.store_dir / "logs").iterdir())) == 9


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_json_tells_each_job(run: Run, place: Placing, dry_run: tuple[str, ...]) -> None:
    """The same array for what went and for what would go."""
    place.job(State.CANCELLED, "a", ago=60)
    (document,) = json.loads(run("purge", "--json", *dry_run).stdout)
    assert document["ended_at"][-1] == "Z"
    assert (document["id"], document["state"]) == ("a", "cancelled")
    assert ids(place, State.CANCELLED) == (["a"] if dry_run else [])


def test_dlq_purge_has_the_same_options(run: Run, finished: Placing) -> None:
    """It is the purge of dead jobs alone."""
    assert run("dlq", "purge", "--dry-run", "--older-than", "2h") == (
        0,
        "dead-day\n",
        "1 job would be purged\n",
    )
    documents = json.loads(run("dlq", "purge", "--json").stdout)
    assert [each["id"] for each in documents] == ["dead-day", "dead-hour", "dead-minute"]
    assert ids(finished, State.DEAD) == []
    assert len(ids(finished, State.COMPLETED)) == 3


@pytest.mark.parametrize("words", [("purge",), ("dlq", "purge")], ids=" ".join)
def test_how_many_are_kept_for_a_blocked_job_is_told(
    run: Run, place: Placing, words: tuple[str, ...]
) -> None:
    """On stderr, also beside a dry run and beside JSON, whose output is what goes."""
    state = State.DEAD if "dlq" in words else State.COMPLETED
    place.job(state, "parent", ago=60)
    place.job(state, "other", ago=30)
    run("enqueue", "true", "--id", "runs")
    run("enqueue", "true", "--id", "child", "--after", "runs", "--after", "parent")
    told = "1 job kept: blocked jobs wait for it; see 'queuectl list --state blocked'\n"
    assert run(*words, "--dry-run") == (0, "other\n", f"1 job would be purged\n{told}")
    code, stdout, stderr = run(*words, "--json", "--dry-run")
    assert (code, [each["id"] for each in json.loads(stdout)], stderr) == (0, ["other"], told)
    assert run(*words) == (0, "1 job purged\n", told)
    place.job(state, "runs-2", ago=30)
    run("enqueue", "true", "--id", "child-2", "--after", "runs", "--after-any", "runs-2")
    told = told.replace("1 job", "2 jobs").replace("for it", "for them")
    assert run(*words) == (0, "0 jobs purged\n", told)
    assert ids(place, state) == ["parent", "runs-2"]


def test_what_cannot_be_read_is_left_and_named(run: Run, place: Placing) -> None:
    """The others go, and the exit code tells that not all did."""
    place.job(State.COMPLETED, "broken").write_text("{")
    place.job(State.COMPLETED, "fine")
    assert run("purge") == (
        65,
        "1 job purged\n",
        "Error: cannot be read and were left as they are: broken; see 'queuectl doctor'\n",
    )
    assert ids(place, State.COMPLETED) == ["broken"]


@pytest.mark.parametrize("state", ["pending", "processing", "blocked", "deat"])
def test_only_what_has_ended_can_be_purged(run: Run, place: Placing, state: str) -> None:
    """A job that may still run is never deleted by a purge."""
    place.job(State.PENDING, "a")
    code, stdout, stderr = run("purge", "--state", state)
    assert (code, stdout) == (2, "")
    assert f"'{state}' is not one of 'completed', 'dead', 'cancelled'" in stderr


def test_a_bad_duration_deletes_nothing(run: Run, finished: Placing) -> None:
    """Nothing is deleted on a guess."""
    code, stdout, _ = run("purge", "--older-than", "1y")
    assert (code, stdout) == (2, "")
    assert len(ids(finished, State.COMPLETED)) == 3


def test_logs_of_jobs_that_were_removed_by_hand_go_too(run: Run, place: Placing) -> None:
    """How many is told on stderr, and not by dlq purge."""
    place.age(place.log("gone", 1, b"x"), 2 * 86400)
    place.age(place.log("gone", 2, b"x"), 2 * 86400)
    assert run("dlq", "purge") == (0, "0 jobs purged\n", "")
    told = "2 logs of missing jobs would be deleted\n"
    assert run("purge", "--dry-run") == (0, "", "0 jobs would be purged\n" + told)
    assert run("purge", "--older-than", "3d") == (0, "0 jobs purged\n", "")
    assert run("purge", "--json") == (0, "[]\n", "2 logs of missing jobs deleted\n")
    assert list((place.store_dir / "logs").iterdir()) == []

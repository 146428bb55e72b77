"""What ``queuectl metrics`` tells Prometheus."""

import sys
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.cli.conftest import Run
from tests.cli.placing import Placing
from tests.jobs import NOON, attempt

from queuectl.clock import utc_now
from queuectl.job import Outcome, State
from queuectl.store.directory import DirectoryStore


def samples(text: str) -> dict[str, float]:
    """Return the value of each sample by its name and the values of its labels."""
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_an_absent_store_is_an_empty_queue_and_stays_absent(run: Run) -> None:
    """Everything is 0, and nothing is missing."""
    code, stdout, stderr = run("metrics")
    assert (code, stderr) == (0, "")
    found = samples(stdout)
    assert set(found.values()) == {0.0}
    assert {f"queuectl_jobs {state}" for state in State} < set(found)
    assert {f"queuectl_attempts_total {outcome}" for outcome in Outcome} < set(found)
    assert not run.store_dir.exists()


def test_jobs_workers_and_ages_are_told(run: Run, place: Placing) -> None:
    """They are those of status."""
    place.job(State.PENDING, "a", run_at=utc_now() - timedelta(hours=1))
    place.job(State.PENDING, "b", run_at=utc_now() + timedelta(hours=1))
    place.job(State.PROCESSING, "c")
    place.dead("d")
    (place.store_dir / "corrupt" / "e.json").write_text("{")
    place.worker("w-1", NOON)
    place.worker("w-2", NOON, job="c", attempt=1)
    found = samples(run("metrics").stdout)
    assert found["queuectl_jobs pending"] == 2
    assert found["queuectl_jobs processing"] == found["queuectl_jobs dead"] == 1
    assert found["queuectl_due_jobs"] == found["queuectl_unreadable_jobs"] == 1
    assert 3600 <= found["queuectl_oldest_due_age_seconds"] < 3660
    assert (found["queuectl_workers"], found["queuectl_workers_busy"]) == (2, 1)


def test_attempts_are_counted_by_live_workers_and_those_that_are_gone(
    run: Run, place: Placing
) -> None:
    """The histogram is cumulative, and a lost attempt has an outcome but no length."""
    lost = attempt("a", outcome=Outcome.LOST, duration_seconds=None)
    gone = DirectoryStore(str(place.store_dir))
    gone.queue.register("w-gone", NOON)
    gone.core.registry.count([attempt("a"), lost])
    gone.queue.unregister()
    live = DirectoryStore(str(place.store_dir))
    live.queue.register("w-live", NOON)
    live.core.registry.count([attempt("a", outcome=Outcome.SUCCEEDED, duration_seconds=20_000.0)])
    found = samples(run("metrics").stdout)
    live.close()
    gone.close()
    assert found["queuectl_attempts_total failed"] == 1
    assert found["queuectl_attempts_total lost"] == 1
    assert found["queuectl_attempts_total succeeded"] == 1
    length = "queuectl_attempt_duration_seconds"
    assert found[f"{length}_bucket 1.0"] == 0
    assert found[f"{length}_bucket 5.0"] == found[f"{length}_bucket 14400.0"] == 1
    assert found[f"{length}_bucket +Inf"] == found[f"{length}_count"] == 2
    assert found[f"{length}_sum"] == 20_001.5


def test_output_replaces_the_file_as_a_whole(run: Run, place: Placing, tmp_path: Path) -> None:
    """The collector may read at any moment: it sees the old file or the new one, no other."""
    output = tmp_path / "queuectl.prom"
    output.write_text("old\n")
    with output.open() as reader:
        assert run("metrics", "--output", str(output)) == (0, "", "")
        assert reader.read() == "old\n"  # what was open is the old file, whole
    assert output.read_text() == run("metrics").stdout
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ""] == ["queuectl.prom"]


def test_a_directory_that_is_not_there_ends_with_74(run: Run, tmp_path: Path) -> None:
    """And one line."""
    code, stdout, stderr = run("metrics", "--output", str(tmp_path / "none" / "q.prom"))
    assert (code, stdout) == (74, "")
    assert stderr.startswith("Error: No such file or directory: ")
    assert stderr.count("\n") == 1


def test_a_missing_extra_ends_with_78(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one line says how to install it."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert run("metrics") == (
        78,
        "",
        "Error: metrics need the package prometheus_client: pip install 'queuectl[metrics]'\n",
    )

"""What ``--json`` prints goes back through ``enqueue``, and a producer's own keys are kept."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run
from tests.cli.placing import Placing
from tests.jobs import attempt

from queuectl.job import State
from queuectl.submit import RECORDED_KEYS

OWN = {"x_ticket": "A-7", "x_deep": {"list": [1.5, None, {"ü": "\ud800"}]}}


def pipe(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Let the next command find a text on stdin."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def jobs(text: str) -> dict[str, dict[str, Any]]:
    """Return the listed jobs by id, without what is not a user's to choose."""
    return {
        each["id"]: {key: value for key, value in each.items() if key not in RECORDED_KEYS}
        for each in json.loads(text)
    }


IGNORED = "ignored in new jobs: state, attempts, created_at, updated_at, history"


def test_what_list_prints_makes_the_same_jobs_elsewhere(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs with every option go to another store, whose settings are others, and come out equal."""
    words = ["--id", "a", "--priority", "0", "--max-retries", "9", "--timeout", "1h30m"]
    words += ["--cwd", str(tmp_path), "--env", "X=y z\n", "--retry-on", "1,64-78"]
    words += ["--no-retry-on", "70", "--run-at", "2126-01-02T03:04:05Z", "echo 'ü' }]"]
    assert run("enqueue", *words)[0] == 0
    assert run("enqueue", "--id", "b", "--after", "a", "--after-any", "a", "-n").exit_code == 2
    assert run("enqueue", "--id", "b", "--after", "a", "--after-any", "a", "--", "-n")[0] == 0
    assert run("enqueue", json.dumps({"id": "c", "command": "x\n", **OWN}))[0] == 0
    assert run("enqueue", "--delay", "1h", "made up")[0] == 0
    printed = run("list", "--json").stdout
    other = str(tmp_path / "other")
    for key, value in (("max-retries", "7"), ("timeout", "2m"), ("retry-on", "9")):
        run("--store", other, "config", "set", key, value)
    pipe(monkeypatch, printed)
    code, stdout, stderr = run("--store", other, "enqueue", "--batch", "-")
    assert (code, stderr) == (0, f"{IGNORED}\n")
    assert stdout.split() == list(jobs(printed))
    again = run("--store", other, "list", "--json").stdout
    assert jobs(again) == jobs(printed)
    states = {each["id"]: each["state"] for each in json.loads(printed)}
    assert states == {each["id"]: each["state"] for each in json.loads(again)}


@pytest.mark.parametrize("batch", [True, False])
def test_what_show_prints_is_a_job_as_well(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, batch: bool
) -> None:
    """Its many lines are one object, for a batch and for a command from stdin."""
    run("enqueue", "--id", "a", "true")
    printed = run("show", "a", "--json").stdout
    pipe(monkeypatch, printed)
    words = ["--batch", "-"] if batch else ["-"]
    message = f"{IGNORED}\n"
    other = str(tmp_path / "other")
    assert run("--store", other, "enqueue", *words) == (0, "a\n", message)
    shown = run("--store", other, "show", "a", "--json").stdout
    assert jobs(f"[{shown}]") == jobs(f"[{printed}]")


def test_jobs_that_had_ended_are_said_to_run_again(
    run: Run, place: Placing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who wanted to move what waits sees that more than that was enqueued."""
    place.job(State.DEAD, "a", attempts=1, history=(attempt("a"),), history_omitted=0)
    place.job(State.COMPLETED, "b")
    place.job(State.PENDING, "c")
    pipe(monkeypatch, run("dlq", "list", "--json").stdout)
    other = str(tmp_path / "other")
    answer = run("--store", other, "enqueue", "--batch", "-")
    assert answer == (0, "a\n", f"{IGNORED}; 1 had ended and will run again\n")
    pipe(monkeypatch, run("list", "--json").stdout)
    answer = run("--store", other, "enqueue", "--batch", "-", "--if-exists", "skip")
    message = f"{IGNORED}; 2 had ended and will run again\n"
    assert answer.stderr == message
    words = ("list", "--json", "--sort", "id", "--limit", "1")
    (document,) = json.loads(run("--store", other, *words).stdout)
    assert (document["attempts"], document["history"]) == (0, [])


def test_parents_that_were_waited_for_and_are_gone_are_forgotten(
    run: Run, place: Placing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A job that was free to run is so again; what is in the batch is waited for once more."""
    place.job(State.COMPLETED, "parent")
    place.job(State.PENDING, "free", after=("gone", "parent"), after_any=("lost",))
    pipe(monkeypatch, run("list", "--json").stdout)
    other = str(tmp_path / "other")
    assert run("--store", other, "enqueue", "--batch", "-").exit_code == 0
    shown = json.loads(run("--store", other, "show", "free", "--json").stdout)
    assert (shown["after"], shown["after_any"], shown["state"]) == (["parent"], [], "blocked")


def test_a_blocked_job_is_not_freed_by_the_move(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What it waits for must be there, or nothing is enqueued."""
    run("enqueue", "--id", "p", "true")
    run("enqueue", "--id", "c", "--after", "p", "true")
    pipe(monkeypatch, run("list", "--json", "--state", "blocked").stdout)
    code, stdout, stderr = run("--store", str(tmp_path / "other"), "enqueue", "--batch", "-")
    assert (code, stdout) == (66, "")
    assert "Error: line 2: no such job to wait for: p; " in stderr


def test_a_document_of_a_newer_version_is_refused(run: Run) -> None:
    """What is not known is not guessed at."""
    code, stdout, stderr = run("enqueue", '{"schema": 2, "command": "x"}')
    assert (code, stdout) == (78, "")
    assert "upgrade queuectl" in stderr
    assert not run.store_dir.exists()


def test_own_keys_are_shown(run: Run) -> None:
    """A producer finds what it has added wherever the job is shown, as JSON and for people."""
    run("enqueue", json.dumps({"id": "a", "command": "true", "max_retries": 1, **OWN}))
    (listed,) = json.loads(run("list", "--json").stdout)
    shown = json.loads(run("show", "a", "--json").stdout)
    for document in (listed, shown):
        assert {key: document[key] for key in OWN} == OWN
    assert 'x_ticket      "A-7"\n' in run("show", "a").stdout


def test_own_keys_stay_when_the_job_moves(run: Run) -> None:
    """They outlive each change of state, and a move by hand."""
    run("enqueue", json.dumps({"id": "a", "command": "true", "max_retries": 1, **OWN}))

    def own() -> dict[str, Any]:
        document = json.loads(run("show", "a", "--json").stdout)
        return {key: document.get(key) for key in OWN}

    run("cancel", "a")
    run("retry", "a")
    (pending,) = (run.store_dir / "pending").iterdir()
    pending.rename(run.store_dir / "dead" / "a.json")
    assert own() == OWN
    run("dlq", "retry", "a")
    assert own() == OWN
    (pending,) = (run.store_dir / "pending").iterdir()
    pending.rename(run.store_dir / "pending" / "a.json")
    assert own() == OWN


@pytest.mark.parametrize("depth", [97, 98])
def test_own_keys_may_be_nested_as_any_document(run: Run, depth: int) -> None:
    """What is taken can be read back, in a list as well."""
    value = "[" * depth + "]" * depth
    code, _, _ = run("enqueue", f'{{"id": "a", "command": "x", "x_a": {value}}}')
    assert code == 0
    assert json.loads(run("list", "--json").stdout)[0]["x_a"] == json.loads(value)

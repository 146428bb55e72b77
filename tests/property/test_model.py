"""A store and a plain dictionary are driven side by side, and must agree after every step."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    run_state_machine_as_test,
)
from tests.property.actors import Crash
from tests.property.by_hand import DirectoryMachine
from tests.property.known import ENDS
from tests.property.machine import ALONE, EXAMPLES, FIGURES, LARGE, POOLED, STEPS
from tests.property.people import StoreMachine
from tests.stores import SHARED_KINDS

from queuectl.job import Outcome, State

MACHINES: dict[str, type[StoreMachine]] = {"directory": DirectoryMachine}


# A failure is made smaller for five minutes at most, and that is worth to be seen.
@pytest.mark.timeout(0 if LARGE else 900)
@pytest.mark.parametrize("kind", SHARED_KINDS)
def test_store_and_model_agree_after_every_step(kind: str, tmp_path: Path) -> None:
    """Whatever people, workers, crashes, clocks and hands do, each job is in its one place."""
    figures = dict.fromkeys(("examples", "steps", "crashes", "put right", "most jobs at once"), 0)

    class Machine(MACHINES.get(kind, StoreMachine)):  # type: ignore[misc]
        pass

    Machine.kind, Machine.directory, Machine.figures = kind, tmp_path, figures
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    if FIGURES:
        with open(FIGURES, "a") as file:
            file.write(json.dumps(figures) + "\n")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[DirectoryMachine]:
    """Return a machine that is told by hand what to do."""

    class Machine(DirectoryMachine):
        kind, directory = "directory", tmp_path
        figures: ClassVar = dict.fromkeys(("examples", "steps", "crashes", "most jobs at once"), 0)

    made = Machine()
    yield made
    made.teardown()


@pytest.mark.parametrize("stem", ["cyd", "dropped"])
@pytest.mark.parametrize("when", ["before the worker", "while it waits"])
def test_whichever_of_two_dropped_files_gets_the_number_that_both_want(
    machine: DirectoryMachine, stem: str, when: str
) -> None:
    """One has got cyd-2 and was not renamed when its adopter died; the other comes to want it."""
    spec = {"priority": 5, "delay": 60, "max_retries": 0, "after": [], "after_any": []}
    machine.add_chosen(["cyd"], [spec], False, None)
    rest = {"again": None, "priority": None, "in_place": False}
    machine.drop_by_hand(stem="bob", wanted="cyd", **rest)
    step = 0
    while machine.model.jobs["+bob"].wanted == "cyd":
        step += 1
        machine.claim(ALONE, Crash(step, False))
        machine.agree()
    assert machine.model.jobs["+bob"].wanted == "cyd-2"
    if when == "while it waits":
        machine.actor(ALONE)  # it is told of the file that comes now, and meets it first
    machine.drop_by_hand(stem=stem, wanted="cyd", **rest)
    for _ in range(2):
        machine.claim(ALONE, None)
        machine.agree()
    found = {known.command: known.state for known in machine.model.jobs.values()}
    assert found == {
        "run 1": State.PENDING, "run 2": State.PROCESSING, "run 3": State.PROCESSING,
    }  # fmt: skip


@pytest.mark.parametrize("worker", [ALONE, POOLED[0]])
def test_job_stays_under_a_parent_that_dies_again_while_another_one_vanishes(
    machine: DirectoryMachine, worker: str
) -> None:
    """A worker knows that all stay there, and another one does not; both do the same."""
    spec = {"priority": 5, "delay": 0, "max_retries": 1, "after": [], "after_any": []}
    machine.add_chosen(["ada", "bob"], [{**spec, "priority": 9}, spec], False, None)
    machine.add_chosen(["cyd"], [{**spec, "after": [0, 1]}], False, None)
    machine.work(ALONE, [Outcome.FAILED, Outcome.SUCCEEDED], 0, None)
    machine.look_after(ALONE, "release_blocked", None)
    for job_id in ("bob", "ada"):
        ended = [known.id for known in machine.model.in_state(*ENDS)]
        machine.retry(ended.index(job_id), True, None)
    machine.tear_by_hand([known.id for known in machine._whole(State.PENDING)].index("ada"))
    machine.work(worker, [Outcome.FAILED], 0, None)
    machine.claim(worker, None)
    machine.agree()
    assert machine.model.jobs["cyd"].parent == "bob"
    assert not machine.model.exists("ada")

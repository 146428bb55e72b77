"""A crash before and after every step leaves each job in one place, whole and with its attempts."""

import os
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from tests.crash.scenarios import SCENARIOS, Found, Scenario, Scene, Snapshot, snapshot
from tests.crash.steps import crash_at
from tests.jobs import NOON, decide, drain

from queuectl.job import State
from queuectl.store import open_store


def prepared(location: Path, scenario: Scenario) -> None:
    """Make a store for a scenario."""
    scene = Scene(open_store(str(location), create=True))
    scenario.prepare(scene)
    scene.store.close()


def expected_after_recovery(found: Snapshot, scenario: Scenario) -> Snapshot:
    """Return where recovery must bring what was found."""
    expected = {}
    for command, job in found.items():
        if job.where != State.PROCESSING:
            expected[command] = job
            continue
        after = scenario.after[command]
        if job.outcomes and job.outcomes == after.outcomes:  # ahead: it is rolled forward
            expected[command] = after
            continue
        # Cut off: the attempt is lost and counts. The scenarios' jobs have one attempt or three.
        dies = after.where == State.DEAD
        where = State.DEAD if dies else State.PENDING
        expected[command] = Found(where, (*job.outcomes, "lost"), job.attempts + 1)
    return expected


def check_recovery(location: Path, scenario: Scenario) -> None:
    """Check that a new worker finds everything in order, with nobody's help."""
    found = snapshot(location)
    scenario.allows(found)
    store = open_store(str(location), create=True)
    try:
        store.pool.tidy()
        assert store.workers.live() == []
        report = store.pool.recover(decide)
        assert report.unowned == 0
        recovered = snapshot(location)
        assert recovered == expected_after_recovery(found, scenario)
        assert store.pool.recover(decide).recovered == []
        waiting = {command: job for command, job in recovered.items() if job.where == "pending"}
        drain(store)
        drained = snapshot(location)
        for command, job in waiting.items():
            if command != "unreadable":
                expected = Found("completed", (*job.outcomes, "succeeded"), job.attempts)
                assert drained[command] == expected
            else:
                assert drained[command].where == "corrupt"
        assert os.listdir(location / "processing") == []
    finally:
        store.close()


@pytest.mark.parametrize("torn", [False, True], ids=["between writes", "in a write"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_crash_at_every_step(tmp_path: Path, scenario: Scenario, torn: bool) -> None:
    """Wherever the program is killed, the next one finds every job in order."""
    for step in count(1):
        if crash_once(tmp_path / str(step), scenario, step, torn=torn):
            assert step > 1, "nothing was done"
            return


def crash_once(location: Path, scenario: Scenario, step: int, *, torn: bool) -> bool:
    """Crash at a step and check what is found then; tell whether it came to the end before."""
    prepared(location, scenario)
    scenes: list[Scene] = []

    def begin() -> None:
        scenes.append(Scene(open_store(str(location), create=True)))
        scenario.begin(scenes[0])

    completed = crash_at(step, lambda: scenario.act(scenes[0]), begin, torn=torn)
    if completed:  # and killed after its last step
        assert snapshot(location) == scenario.after
    check_recovery(location, scenario)
    return completed


def test_crash_while_the_store_is_made(tmp_path: Path) -> None:
    """A store that was half made is completed by the next one who opens it."""
    for step in count(1):
        location = tmp_path / str(step) / "deep" / "store"

        def make(location: Path = location) -> None:
            open_store(str(location), create=True)

        completed = crash_at(step, make, lambda: None, torn=False)
        store = open_store(str(location), create=True)
        scenario = SCENARIOS[0]
        scenario.act(Scene(store))
        assert snapshot(location) == scenario.after
        assert drain(store) == ["a"]
        store.close()
        modes = {path: path.stat().st_mode & 0o777 for path in [location, *location.iterdir()]}
        assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
        assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
        if completed:
            assert step > 10
            return


@pytest.mark.parametrize("torn", [False, True])
def test_crash_while_settings_change(tmp_path: Path, torn: bool) -> None:
    """The settings are the old ones or the new ones, whole."""
    old, new = {"priority": "1"}, {"priority": "2", "timeout": "1h"}
    for step in count(1):
        location = str(tmp_path / str(step))
        store = open_store(location, create=True)
        store.config.change(lambda _: dict(old))

        def change(location: str = location) -> None:
            open_store(location, create=True).config.change(lambda _: dict(new))

        completed = crash_at(step, change, lambda: None, torn=torn)
        assert store.config.read() in ([new] if completed else [old, new])
        store.config.change(lambda config: {**config, "priority": "3"})
        assert store.settings().priority == 3
        store.close()
        if completed:
            return


@pytest.mark.parametrize("torn", [False, True])
def test_crash_while_a_worker_comes_and_goes(tmp_path: Path, torn: bool) -> None:
    """Whenever a worker is killed, its record is stale at once, and is tidied away."""

    def live(location: str) -> None:
        store = open_store(location, create=True)
        store.queue.register("w-1", NOON)
        drain(store)
        store.pool.tidy()
        store.queue.unregister()
        store.close()

    for step in count(1):
        location = str(tmp_path / str(step))
        store = open_store(location, create=True)
        SCENARIOS[2].act(Scene(store))
        completed = crash_at(step, partial(live, location), lambda: None, torn=torn)
        assert store.workers.live() == []
        store.pool.recover(decide)  # until then the record tells who ran what was cut off
        store.pool.tidy()
        assert os.listdir(os.path.join(location, "workers")) == []
        store.pool.recover(decide)
        drain(store)
        assert {job.where for job in snapshot(Path(location)).values()} == {"completed"}
        store.close()
        if completed:
            assert step > 10
            return

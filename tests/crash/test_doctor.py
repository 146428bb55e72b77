"""What a crash leaves is repaired by the doctor, and a crash of the doctor by the next one."""

from itertools import count
from pathlib import Path

import pytest
from tests.crash.scenarios import SCENARIOS, Scenario, Scene, snapshot
from tests.crash.steps import crash_at
from tests.crash.test_crash import prepared
from tests.directory import damages

from queuectl.job import State
from queuectl.store import open_store
from queuectl.store.doctor import examine


def crashed(location: Path, scenario: Scenario, step: int) -> bool:
    """Crash at a step of a scenario; tell whether it came to its end."""
    prepared(location, scenario)
    scene: Scene

    def begin() -> None:
        nonlocal scene
        scene = Scene(open_store(str(location), create=True))
        scenario.begin(scene)

    return crash_at(step, lambda: scenario.act(scene), begin, torn=False)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_crash_is_repaired(tmp_path: Path, scenario: Scenario) -> None:
    """Nothing is broken or in two places; what is left to do is done, and the store is clean."""
    for step in count(1):
        location = tmp_path / str(step)
        completed = crashed(location, scenario, step)
        before = snapshot(location)
        findings = list(examine(str(location), repair=True))
        assert [each for each in findings if not each.repaired] == []
        assert not {"unreadable", "a job in two places"} & {each.what for each in findings}
        assert list(examine(str(location), repair=False)) == []
        after = snapshot(location)
        assert after.keys() == before.keys()
        assert State.PROCESSING not in {job.where for job in after.values()}
        if completed:
            return


@pytest.mark.parametrize(
    "damage",
    [
        damages.unreadable_in_blocked,
        damages.another_id,
        damages.another_state,
        damages.orphan,
        damages.no_attempt,
        damages.two_pending_names,
        damages.ghost,
        damages.same_file_twice,
        damages.gone_parent,
        damages.log_of_no_job,
        damages.bad_format,
        damages.bad_config,
    ],
)
def test_a_repair_that_is_cut_off_loses_nothing(tmp_path: Path, damage: damages.Damage) -> None:
    """The next one repairs the rest."""
    for step in count(1):
        location = tmp_path / str(step)
        store = open_store(str(location), create=True)
        damage(store, location)
        store.close()
        kept = damages.jobs_in(location)

        def repair(location: Path = location) -> None:
            assert all(each.repaired for each in examine(str(location), repair=True))

        completed = crash_at(step, repair, lambda: None, torn=False)
        assert kept <= damages.jobs_in(location)
        assert all(each.repaired for each in examine(str(location), repair=True))
        assert list(examine(str(location), repair=False)) == []
        assert kept <= damages.jobs_in(location)
        if completed:
            assert step > 1
            return

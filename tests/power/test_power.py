"""After a power failure at any moment each job that was promised is there, whole and once."""

import functools
import logging
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.power.checks import check
from tests.power.disk import Disk, Site, Tree, quick
from tests.power.scenarios import (
    MANY,
    SCENARIOS,
    Scene,
    add_many,
    add_many_that_wait,
    adopt,
    adopt_many,
    cancel_what_waits,
    cancel_what_was_lost,
    fail_for_good,
    leave,
    make_parents,
    open_what_another_has_made,
    open_what_lacks_a_directory,
    purge_and_choose_again,
    release,
    release_after_any_end,
    retry_the_cancelled,
    retry_the_dead,
    retry_under_a_parent,
    retry_what_has_run,
    set_settings,
    settle_together,
    write_a_file_again,
)

from queuectl.errors import QueuectlError
from queuectl.store import files

_LOG = logging.getLogger(__name__)
_ALL = bool(os.environ.get("QUEUECTL_TEST_LARGE"))
_MOST = 40


# Each sync of the program, by module, function and what is synced, with the scenarios one of which
# fails without it.
_NEEDED: dict[tuple[str, str, str], tuple[Callable[[Scene], None], ...]] = {
    ("adding.py", "write", "a file"): (cancel_what_was_lost,),
    ("adding.py", "show", "pending"): (cancel_what_was_lost,),
    ("dependencies.py", "_release_some", "pending"): (retry_under_a_parent,),
    ("dependencies.py", "put", "blocked"): (release,),
    ("dependencies.py", "_release_all", "cancelled"): (release_after_any_end,),
    ("dependencies.py", "_release_all", "completed"): (release,),
    ("dependencies.py", "_release_all", "dead"): (release_after_any_end,),
    ("retrying.py", "_retry_dependent", "a file"): (retry_under_a_parent,),
    ("dependencies.py", "sync", "all"): (add_many_that_wait,),
    ("dependencies.py", "sync", "another directory"): (cancel_what_waits,),
    ("dependencies.py", "sync", "blocked"): (cancel_what_waits,),
    ("cancelling.py", "_cancel", "cancelled"): (cancel_what_was_lost,),
    ("cancelling.py", "_move_to_cancelled", "a file"): (retry_the_cancelled,),
    ("cancelling.py", "_move_to_cancelled", "cancelled"): (retry_the_cancelled,),
    ("cancelling.py", "_move_to_cancelled", "pending"): (cancel_what_waits,),
    ("adopting.py", "_write", "a file"): (adopt,),
    ("adopting.py", "_write", "all"): (adopt_many,),
    ("adopting.py", "_put_in_place", "pending"): (adopt,),
    ("claiming.py", "_claim_locked", "pending"): (fail_for_good,),
    ("recovery.py", "settle", "a file"): (cancel_what_was_lost,),
    ("recovery.py", "settle", "processing"): (cancel_what_was_lost,),
    ("chosen_ids.py", "_add_under_lock", "cancelled"): (purge_and_choose_again,),
    ("chosen_ids.py", "_add_under_lock", "completed"): (purge_and_choose_again,),
    ("chosen_ids.py", "_add_under_lock", "dead"): (purge_and_choose_again,),
    ("retrying.py", "retry", "a file"): (retry_the_cancelled,),
    ("retrying.py", "retry", "cancelled"): (retry_what_has_run,),
    ("retrying.py", "retry", "completed"): (retry_what_has_run,),
    ("retrying.py", "retry", "dead"): (retry_the_dead,),
    ("retrying.py", "retry", "pending"): (retry_the_cancelled,),
    ("files.py", "make_directory", "another directory"): (make_parents,),
    ("files.py", "sync", "a file"): (adopt,),
    ("files.py", "sync", "all"): (settle_together,),
    ("files.py", "sync", "processing"): (adopt,),
    ("files.py", "sync", "tmp"): (write_a_file_again,),
    ("files.py", "sync_all", "a file"): (add_many,),
    ("files.py", "sync_all", "all"): (add_many,),
    ("layout.py", "_open", "a file"): (set_settings,),
    ("layout.py", "_open", "another directory"): (
        open_what_another_has_made, open_what_lacks_a_directory,
    ),
    ("settings_file.py", "change", "a file"): (set_settings,),
    ("settings_file.py", "change", "another directory"): (set_settings,),
    ("totals.py", "add", "a file"): (leave,),
}  # fmt: skip


@functools.cache
def recording(scenario: Callable[[Scene], None], *, can_sync_all: bool = True) -> Disk:
    """Return what a scenario does, from the making of the store on."""
    with tempfile.TemporaryDirectory() as directory:
        disk = Disk(Path(directory) / "disk")
        with disk.recorded(can_sync_all=can_sync_all), pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "MANY", MANY)
            scene = Scene(disk, Path(directory) / "disk" / "store")
            scenario(scene)
        scene.store.close()
    return disk


# --- what is found afterwards ---


def tries(disk: Disk, most: int) -> list[tuple[Tree, Any]]:
    """Return the states to check: all where they are asked for, else some, always the same."""
    states = list(disk.states())
    if _ALL or len(states) <= most:
        return states
    return random.Random(20261125).sample(states, most)


def recordings(scenario: Callable[[Scene], None]) -> list[Disk]:
    """Return what a scenario does where one call syncs all, and where there is no such call."""
    disk = recording(scenario)
    if any(site[-1] == "all" for site in disk.sites()):
        return [disk, recording(scenario, can_sync_all=False)]
    return [disk]


def fails_without(site: Site, scenario: Callable[[Scene], None], base: Path) -> bool:
    """Tell whether a check fails where a sync is left out."""
    for disk in recordings(scenario):
        if site in disk.sites():
            good = {(tree, repr(promised)) for tree, promised in disk.states()}
            for tree, promised in disk.states(without=site):
                if (tree, repr(promised)) in good:
                    continue
                try:
                    check(tree, promised, base)
                except (AssertionError, QueuectlError):
                    return True
    return False


def sites() -> dict[tuple[str, str, str], set[Site]]:
    """Return each sync of the program that a scenario comes to."""
    found: dict[tuple[str, str, str], set[Site]] = {}
    for disk in (disk for scenario in SCENARIOS for disk in recordings(scenario)):
        for site in disk.sites():
            if site[0]:
                found.setdefault((site[0], *site[2:]), set()).add(site)
    return found


# --- the tests ---


@pytest.mark.timeout(3600 if _ALL else 180)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_power_failure_at_every_moment(tmp_path: Path, scenario: Callable[[Scene], None]) -> None:
    """Whatever the disk has kept, a new worker finds every job that was promised."""
    tried = 0
    with quick():
        for disk in recordings(scenario):
            for tree, promised in tries(disk, _MOST):
                check(tree, promised, tmp_path / "disk")
                tried += 1
    _LOG.info("%s: %d states judged", scenario.__name__, tried)
    assert tried > 20


def test_each_sync_has_its_scenario() -> None:
    """No sync is left that nobody has shown to be needed."""
    assert sites().keys() == _NEEDED.keys()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("place", _NEEDED, ids=" ".join)
def test_each_sync_is_needed(tmp_path: Path, place: tuple[str, str, str]) -> None:
    """Without any one of the syncs that there are, a power failure breaks a promise."""
    with quick():
        for site in sites()[place]:
            scenarios = _NEEDED[place]
            assert any(fails_without(site, each, tmp_path / "disk") for each in scenarios), site

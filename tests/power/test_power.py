"""After a power failure at any moment each job that was promised is there, whole and once."""

import functools
import logging
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.jobs import (
    LATER,
    NOON,
    claim_next,
    claimed,
    decide,
    decode_job,
    ended,
    make_job,
    make_jobs,
)
from tests.power.disk import Disk, Site, Tree, lay_down, quick

from queuectl.document import parse_object
from queuectl.errors import QueuectlError
from queuectl.job import Defaults, Job, Outcome, State
from queuectl.store import adding, adopting, dependencies, open_store
from queuectl.store.base import Claim, Store
from queuectl.store.names import is_stranger, parse_blocked, parse_processing, pending_id

_DEFAULTS = Defaults(max_retries=3, timeout_seconds=None, priority=5, cwd="/srv", now=NOON)
_LOG = logging.getLogger(__name__)
_ALL = bool(os.environ.get("QUEUECTL_TEST_LARGE"))
_MOST = 40
_MANY = 4  # so many at once are enough here for one sync of all
_ANYWHERE = frozenset(State)
_ENDED = frozenset({State.COMPLETED, State.DEAD, State.CANCELLED})


class Promised(NamedTuple):
    """Be what must be found: where each job may be after recovery, what ran, and the settings.

    ``place`` is where the store lies on the disk.
    """

    jobs: tuple[tuple[str, frozenset[State]], ...] = ()
    ran: frozenset[tuple[str, int]] = frozenset()
    config: tuple[str, ...] = ("{}",)
    place: str = "store"


class Scene:
    """Hold a store on a disk that is recorded, and keep the book of promises."""

    def __init__(self, disk: Disk, location: Path) -> None:
        self.disk = disk
        self.location = str(location)
        self._promised = Promised()

    @functools.cached_property
    def store(self) -> Store:
        """Return the store, made when it is first asked for."""
        return open_store(self.location, create=True)

    def move(self, place: str) -> None:
        """Take a store elsewhere on the disk; none is made yet."""
        self.location = self.location.removesuffix(self._promised.place) + place
        self._note(self._promised._replace(place=place))

    def reopen(self) -> None:
        """Open the store anew, as the next process does."""
        self.store.close()
        del self.store

    def promise(self, *ids: str, states: Collection[State] = _ANYWHERE) -> None:
        """Promise that jobs are found in one of these states after recovery."""
        jobs = dict(self._promised.jobs) | dict.fromkeys(ids, frozenset(states))
        self._note(self._promised._replace(jobs=tuple(jobs.items())))

    def promise_no_more(self) -> None:
        """Promise no job any more."""
        self._note(self._promised._replace(jobs=()))

    def _note(self, promised: Promised) -> None:
        self._promised = promised
        self.disk.point(promised)

    def add(self, *jobs: Job, chosen: bool = False) -> None:
        """Add jobs: from then on they are promised."""
        self.store.add(jobs, chosen=[job.id for job in jobs] if chosen else ())
        self.promise(*(job.id for job in jobs))

    def claim(self) -> Claim:
        """Claim the next job, which may run from then on, or sooner."""
        claim = claimed(self.store)
        attempt = (claim.job.id, claim.attempt)
        self._note(self._promised._replace(ran=self._promised.ran | {attempt}))
        return claim

    def run(self, *outcomes: Outcome) -> None:
        """Claim jobs and settle them together."""
        self.store.settle([ended(self.claim(), outcome) for outcome in outcomes])

    def set_config(self, text: str) -> None:
        """Change a setting: while that goes on it is the old or the new, then the new."""
        old = self._promised.config
        self._note(self._promised._replace(config=(*old, repr({"timeout": text}))))
        self.store.change_config(lambda _: {"timeout": text})
        self._note(self._promised._replace(config=(repr({"timeout": text}),)))

    def die(self, *claims: Claim) -> None:
        """Free claims as the kernel does when their process is gone."""
        for claim in claims:
            os.close(claim.pass_fds[0][0])


def add_in_every_way(scene: Scene) -> None:
    """Add one, a batch, and a chosen id."""
    scene.add(make_job("a"))
    scene.add(*make_jobs("b", "c"))
    scene.add(make_job("chosen"), chosen=True)


def add_many(scene: Scene) -> None:
    """Add so many at once that one sync makes them durable."""
    scene.add(*make_jobs(*(f"j{number}" for number in range(_MANY))))


def settle_one_after_another(scene: Scene) -> None:
    """Settle more rounds than files are spare, so that each is written again."""
    scene.add(*make_jobs("a", "b", "c", "d"))
    for outcome in (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.SUCCEEDED, Outcome.FAILED):
        scene.run(outcome)


def write_a_file_again(scene: Scene) -> None:
    """Settle a third job into the file that the first one has left."""
    scene.add(*make_jobs("a", "b", "c"))
    for _ in range(3):
        scene.run(Outcome.SUCCEEDED)


def settle_together(scene: Scene) -> None:
    """Settle three at a time, two rounds, by one sync for all."""
    scene.add(*make_jobs("a", "b", "c", "d", "e", "f"))
    for _ in range(2):
        scene.run(Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED)


def settle_two(scene: Scene) -> None:
    """Settle two at a time, each synced for itself, two rounds."""
    scene.add(*make_jobs("a", "b", "c", "d"))
    for _ in range(2):
        scene.run(Outcome.SUCCEEDED, Outcome.FAILED)


def fail_for_good(scene: Scene) -> None:
    """Run a job until it is dead: each time it comes back and is claimed anew."""
    scene.add(make_job("a", max_retries=2))
    for _ in range(2):
        scene.run(Outcome.FAILED)


def retry_the_dead(scene: Scene) -> None:
    """Send a dead job back, and run it."""
    scene.add(make_job("a", max_retries=1))
    scene.run(Outcome.FAILED)
    scene.store.retry("a", [State.DEAD], NOON)
    scene.promise("a", states={State.PENDING})
    scene.promise("a")
    scene.run(Outcome.SUCCEEDED)


def retry_the_cancelled(scene: Scene) -> None:
    """Send a job back that has never run, and run it."""
    scene.add(make_job("a"))
    assert dict(scene.store.cancel(["a"])) == {"a": State.CANCELLED}
    scene.promise("a", states={State.CANCELLED})
    scene.promise("a")
    scene.store.retry("a", [State.CANCELLED], NOON)
    scene.promise("a", states={State.PENDING})
    scene.promise("a")
    scene.run(Outcome.SUCCEEDED)


def retry_what_has_run(scene: Scene) -> None:
    """Send a job back that has completed, and one that was cancelled while it ran; run them."""
    scene.add(*make_jobs("a", "b"))
    scene.run(Outcome.SUCCEEDED, Outcome.CANCELLED)
    scene.store.retry("a", [State.COMPLETED], NOON)
    scene.store.retry("b", [State.CANCELLED], NOON)
    scene.promise("a", "b", states={State.PENDING})
    scene.promise("a", "b")
    scene.run(Outcome.SUCCEEDED, Outcome.SUCCEEDED)


def give_back(scene: Scene) -> None:
    """Give a claim back, claim it again and settle it."""
    scene.add(*make_jobs("a", "b"))
    scene.store.give_back(scene.claim())
    scene.run(Outcome.SUCCEEDED, Outcome.FAILED)


def cancel_what_waits(scene: Scene) -> None:
    """Cancel a new job, one that waits for its next attempt, and one that waits for another."""
    scene.add(*make_jobs("a", "b"))
    scene.add(make_job("child", after=("b",)))
    scene.run(Outcome.FAILED)
    for job_id in ("a", "b", "child"):
        assert dict(scene.store.cancel([job_id]))[job_id] == State.CANCELLED
        scene.promise(job_id, states={State.CANCELLED})


def cancel_what_was_lost(scene: Scene) -> None:
    """Cancel a job whose worker is gone."""
    scene.add(make_job("a"))
    scene.die(scene.claim())
    assert dict(scene.store.cancel(["a"])) == {"a": State.CANCELLED}
    scene.promise("a", states={State.CANCELLED})


def drop(scene: Scene, *names: str) -> None:
    """Let a hand that syncs what it does put files into pending/, and promise their jobs."""
    scene.reopen()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    for name in names:
        there = os.path.join(scene.location, "tmp", "by-hand")
        fd = os.open(there, flags, 0o600)
        os.pwrite(fd, f'{{"command": "run {name}"}}'.encode(), 0)
        scene.disk.sync_by_hand(fd)
        os.close(fd)
        os.rename(there, os.path.join(scene.location, "pending", f"{name}.json"))
    directory = os.open(os.path.join(scene.location, "pending"), os.O_RDONLY)
    scene.disk.sync_by_hand(directory)
    os.close(directory)
    scene.promise(*names)


def adopt(scene: Scene) -> None:
    """Adopt what was dropped into pending/, and run it."""
    drop(scene, "a")
    scene.run(Outcome.FAILED)


def adopt_together(scene: Scene) -> None:
    """Adopt three that were dropped, and run one of them."""
    drop(scene, "a1", "a2", "a3")
    scene.run(Outcome.FAILED)


def adopt_many(scene: Scene) -> None:
    """Adopt so many that were dropped that one sync makes them durable, and run one of them."""
    drop(scene, *(f"a{number}" for number in range(_MANY)))
    scene.run(Outcome.FAILED)


def set_settings(scene: Scene) -> None:
    """Change a setting twice."""
    scene.set_config("1h")
    scene.set_config("2h")


def release(scene: Scene) -> None:
    """Let go on what waits for one or for two, and run it."""
    scene.add(*make_jobs("p", "q"))
    scene.add(make_job("c", after=("p",)))
    scene.add(make_job("d", after=("p", "q")))
    for _ in range(4):
        scene.run(Outcome.SUCCEEDED)


def release_after_any_end(scene: Scene) -> None:
    """Let go on what waits for one that is cancelled, and for one that is dead."""
    # One that is lost, and not known to have failed with this code, runs again.
    scene.add(make_job("p"), make_job("q", no_retry_on="3"))
    scene.add(make_job("c", after_any=("p",)), make_job("d", after_any=("q",)))
    scene.run(Outcome.CANCELLED, Outcome.FAILED)
    scene.run(Outcome.SUCCEEDED, Outcome.SUCCEEDED)


def add_many_that_wait(scene: Scene) -> None:
    """Add so many that wait for others that one sync makes them durable."""
    parents = [f"p{number}" for number in range(_MANY)]
    scene.add(*make_jobs(*parents))
    scene.add(*(make_job(f"c-{parent}", after=(parent,)) for parent in parents))


def retry_under_a_parent(scene: Scene) -> None:
    """Send a cancelled job back to wait for another."""
    scene.add(make_job("p"))
    scene.add(make_job("c", after=("p",)))
    assert dict(scene.store.cancel(["c"])) == {"c": State.CANCELLED}
    scene.store.retry("c", [State.CANCELLED], NOON)
    scene.promise("c", states={State.BLOCKED})
    scene.promise("c")
    scene.run(Outcome.SUCCEEDED)
    scene.run(Outcome.SUCCEEDED)


def recover(scene: Scene) -> None:
    """Recover lost attempts, to run again and dead, and run what comes back."""
    scene.add(make_job("a"), make_job("b", max_retries=1))
    scene.die(scene.claim(), scene.claim())
    assert len(scene.store.recover(decide).recovered) == 2
    scene.run(Outcome.SUCCEEDED)


def purge_and_choose_again(scene: Scene) -> None:
    """Delete a job that has ended, and add one under the same id; for each end that there is."""
    for state, outcome in (
        (State.COMPLETED, Outcome.SUCCEEDED),
        (State.DEAD, Outcome.FAILED),
        (State.CANCELLED, Outcome.CANCELLED),
    ):
        scene.add(make_job("a", max_retries=1), chosen=True)
        scene.run(outcome)
        scene.promise_no_more()
        assert scene.store.purge("a", state)
        scene.add(make_job("a", max_retries=1), chosen=True)
        scene.promise("a", states={State.PENDING})
        scene.promise_no_more()
        scene.run(Outcome.SUCCEEDED)
        assert scene.store.purge("a", State.COMPLETED)


def open_what_another_has_made(scene: Scene) -> None:
    """Add a job to a store whose directory somebody made a moment ago."""
    os.mkdir(scene.location, 0o700)
    scene.add(make_job("a"))


def open_what_lacks_a_directory(scene: Scene) -> None:
    """Add a job to a store that an older version, or a hand, has left without a directory."""
    scene.add(make_job("p"))
    os.rmdir(os.path.join(scene.location, "blocked"))
    scene.reopen()
    scene.add(make_job("c", after=("p",)))


def make_parents(scene: Scene) -> None:
    """Make a store, and the directories that it lies in."""
    scene.move("deep/store")
    scene.add(make_job("a"))


def leave(scene: Scene) -> None:
    """Let two workers leave, each with something that it has counted."""
    scene.add(*make_jobs("a", "b"))
    for name in ("w-1", "w-2"):
        scene.store.register(name, NOON)
        scene.run(Outcome.SUCCEEDED)
        scene.store.unregister()


SCENARIOS = [
    add_in_every_way, add_many, settle_one_after_another, write_a_file_again, settle_together,
    settle_two, fail_for_good, retry_the_dead, retry_the_cancelled, retry_what_has_run, give_back,
    cancel_what_waits, cancel_what_was_lost, adopt, adopt_together, adopt_many, set_settings,
    release, release_after_any_end, add_many_that_wait, retry_under_a_parent, recover,
    purge_and_choose_again, open_what_another_has_made, open_what_lacks_a_directory, make_parents,
    leave,
]  # fmt: skip
# Each sync of the program, by module, function and what is synced, with the scenarios one of which
# fails without it.
_NEEDED: dict[tuple[str, str, str], tuple[Callable[[Scene], None], ...]] = {
    ("adding.py", "publish", "a file"): (cancel_what_was_lost,),
    ("adding.py", "publish", "pending"): (cancel_what_was_lost,),
    ("dependencies.py", "_release_some", "pending"): (retry_under_a_parent,),
    ("dependencies.py", "put", "blocked"): (release,),
    ("dependencies.py", "_release_all", "cancelled"): (release_after_any_end,),
    ("dependencies.py", "_release_all", "completed"): (release,),
    ("dependencies.py", "_release_all", "dead"): (release_after_any_end,),
    ("dependencies.py", "retry", "a file"): (retry_under_a_parent,),
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
    ("submitting.py", "_add_under_lock", "cancelled"): (purge_and_choose_again,),
    ("submitting.py", "_add_under_lock", "completed"): (purge_and_choose_again,),
    ("submitting.py", "_add_under_lock", "dead"): (purge_and_choose_again,),
    ("submitting.py", "retry", "a file"): (retry_the_cancelled,),
    ("submitting.py", "retry", "cancelled"): (retry_what_has_run,),
    ("submitting.py", "retry", "completed"): (retry_what_has_run,),
    ("submitting.py", "retry", "dead"): (retry_the_dead,),
    ("submitting.py", "retry", "pending"): (retry_the_cancelled,),
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
            for module in (adding, adopting, dependencies):
                patch.setattr(module, "_MANY", _MANY)
            scene = Scene(disk, Path(directory) / "disk" / "store")
            scenario(scene)
        scene.store.close()
    return disk


# --- what is found afterwards ---


def check(tree: Tree, promised: Promised | None, base: Path) -> None:
    """Check that a tree holds what was promised, as soon as a worker has started on it."""
    promised = promised or Promised()
    base.mkdir()
    try:
        lay_down(tree, base)
        check_store(base / promised.place, promised)
    finally:
        shutil.rmtree(base)


def check_store(location: Path, promised: Promised) -> None:
    """Check a store after a power failure: before, after recovery, and when all has run."""
    if location.exists():
        for job_id, _, job in documents(location):  # each is whole
            assert job.command == f"run {job_id}", "it has another job's words"
    store = open_store(str(location), create=True)
    try:
        store.recover(decide)
        store.release_blocked()
        check_recovered(location, promised)
        assert repr(store.read_config()) in promised.config
        check_drained(store, promised)
    finally:
        store.close()


def check_recovered(location: Path, promised: Promised) -> None:
    """Check that each job is in one place, as promised, with no attempt that did not run."""
    found: dict[str, State] = {}
    waited: list[Job] = []
    for job_id, state, job in documents(location):
        if (job.after or job.after_any) and state not in (State.BLOCKED, State.CANCELLED):
            waited.append(job)
        assert job_id not in found, f"{job_id} is in {found[job_id]} and {state}"
        assert state is not State.PROCESSING, f"{job_id} is not recovered"
        found[job_id] = state
        numbers = [attempt.number for attempt in job.history]
        assert numbers == list(range(1, len(numbers) + 1))
        # An attempt that was claimed a moment ago is lost; the end of one is told after it ran.
        told = {each.number for each in job.history if each.outcome is not Outcome.LOST}
        assert {(job_id, number) for number in told} <= promised.ran
        assert job.history or state not in (State.COMPLETED, State.DEAD), f"{job_id} has not run"
    for job in waited:
        assert all(found[each] is State.COMPLETED for each in job.after), f"{job.id} was let go"
        assert all(found[each] in _ENDED for each in job.after_any), f"{job.id} was let go"
    for job_id, states in promised.jobs:
        assert found.get(job_id) in states, f"{job_id} is {found.get(job_id)}"
    assert os.listdir(location / "corrupt") == []
    if (location / "tally.json").exists():
        parse_object((location / "tally.json").read_bytes())


def check_drained(store: Store, promised: Promised) -> None:
    """Check that all that waits can run, each once, and nothing is left over."""
    ran = []
    while (claim := claim_next(store, LATER)) is not None:
        ran.append(claim.job.id)
        store.settle([ended(claim)])
    assert len(ran) == len(set(ran))
    left = list(documents(Path(store.location)))
    assert len({job_id for job_id, _, _ in left}) == len(left)
    where = {job_id: state for job_id, state, _ in left}
    for job_id, state, job in left:
        # A job waits for ever where one that it waits for has not succeeded.
        stays = any(where.get(each) is not State.COMPLETED for each in job.after)
        assert state in _ENDED or (state is State.BLOCKED and stays), f"{job_id} is {state}"
    assert {job_id for job_id, _ in promised.jobs} <= {job_id for job_id, _, _ in left}


def documents(location: Path) -> Iterator[tuple[str, State, Job]]:
    """Yield each job by its name, and the words in it; fail where they are torn."""
    for state in State:
        if not (location / state).exists():
            continue
        for path in (location / state).rglob("*.json"):
            name = str(path.relative_to(location / state))
            parsed = parse_processing(name) if state is State.PROCESSING else None
            job_id = parsed[0] if parsed else path.stem
            if state is State.PENDING and not is_stranger(name):
                job_id = pending_id(name)
            elif state is State.BLOCKED:
                job_id = parse_blocked(name)[1]
            yield job_id, state, decode_job(path.read_bytes(), job_id, _DEFAULTS)


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

"""A crash or an error at any step leaves a job that waits in one place, and lets it go on later."""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.crash.steps import anything, crash_at, open_descriptors, refused, takes_space
from tests.jobs import NOON, claimed, decide, drain, ended, make_job, settle

from queuectl.errors import QueuectlError
from queuectl.job import Outcome, State
from queuectl.store import open_store
from queuectl.store.names import is_pending_name, parse_processing, pending_id
from queuectl.store.protocol import Store
from queuectl.store.worker_protocol import Claim

Places = dict[str, str]


def places(location: Path) -> Places:
    """Return where each job is, for a blocked one with its parent; fail where one is twice."""
    found: Places = {}

    def note(job_id: str, where: str) -> None:
        assert job_id not in found, f"{job_id} is in {found[job_id]} and {where}"
        found[job_id] = where

    for state in State:
        for path in (location / state).iterdir():
            parsed = parse_processing(path.name)
            if state is State.BLOCKED:
                assert path.stat().st_mode & 0o777 in (0o700, 0o700 & ~os.umask(0o077))
                for child in path.iterdir():
                    note(child.stem, f"blocked/{path.name}")
            elif state is State.PENDING:
                assert is_pending_name(path.name)
                note(pending_id(path.name), state)
            elif state is State.PROCESSING:
                assert parsed is not None
                note(parsed[0], state)
            else:
                note(path.stem, state)
    return found


class Scene:
    """Hold a store and a claim that is settled."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.claim: Claim | None = None


class Scenario(NamedTuple):
    """Be one thing that is done with jobs that wait, and how the jobs lie when it is done."""

    name: str
    prepare: Callable[[Store], None]
    begin: Callable[[Scene], None]
    act: Callable[[Scene], None]
    before: Places
    after: Places


def nothing(_: object) -> None:
    """Do nothing."""


def add_family(store: Store) -> None:
    """Add a parent, another, and children that wait in each way."""
    store.add(
        [
            make_job("p", max_retries=1),
            make_job("q", run_at=NOON.replace(year=2027)),
            make_job("c", after=("p",)),
            make_job("d", after=("p", "q")),
            make_job("e", after_any=("p",)),
        ]
    )


def add_child(scene: Scene) -> None:
    """Add one more, with a chosen id."""
    scene.store.add([make_job("new", after=("p",))], chosen=["new"])


def add_batch(scene: Scene) -> None:
    """Add a chain."""
    scene.store.add([make_job("p"), make_job("c", after=("p",)), make_job("d", after=("c",))])


def claim(scene: Scene) -> None:
    """Claim the first parent."""
    scene.claim = claimed(scene.store)


def end_first(outcome: Outcome) -> Callable[[Scene], None]:
    """Return what ends the first parent."""

    def act(scene: Scene) -> None:
        assert scene.claim is not None
        settle(scene.store, [ended(scene.claim, outcome)])

    return act


def end_unnoticed(store: Store) -> None:
    """Leave a parent that has completed and children that were not let go on."""
    add_family(store)
    location = Path(store.location)
    (parent,) = (location / "pending").glob("*-p.json")
    parent.rename(location / "completed/p.json")


def sweep(scene: Scene) -> None:
    """Do what idle workers do."""
    scene.store.pool.release_blocked()


def cancel_child(store: Store) -> None:
    """Leave a child that was cancelled before its parent ran."""
    store.add([make_job("p"), make_job("c", after=("p",))])
    list(store.cancel(["c"]))


def retry_child(scene: Scene) -> None:
    """Send the child back."""
    scene.store.retry("c", [State.CANCELLED], NOON)


_FAMILY = {"q": "pending", "c": "blocked/p", "d": "blocked/p", "e": "blocked/p"}
_RELEASED = {"q": "pending", "c": "pending", "d": "blocked/q", "e": "pending", "p": "completed"}
SCENARIOS = [
    Scenario("add a batch", nothing, nothing, add_batch, {}, {
        "p": "pending", "c": "blocked/p", "d": "blocked/c",
    }),
    Scenario("add to others", add_family, nothing, add_child, {"p": "pending", **_FAMILY}, {
        "p": "pending", **_FAMILY, "new": "blocked/p",
    }),
    Scenario("complete", add_family, claim, end_first(Outcome.SUCCEEDED), {
        "p": "processing", **_FAMILY,
    }, _RELEASED),
    Scenario("die", add_family, claim, end_first(Outcome.FAILED), {"p": "processing", **_FAMILY}, {
        **_FAMILY, "p": "dead", "e": "pending",
    }),
    Scenario("sweep", end_unnoticed, nothing, sweep, {"p": "completed", **_FAMILY}, _RELEASED),
    Scenario("retry a child", cancel_child, nothing, retry_child, {
        "p": "pending", "c": "cancelled",
    }, {"p": "pending", "c": "blocked/p"}),
]  # fmt: skip
each_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)


def check_between(found: Places, scenario: Scenario) -> None:
    """Fail where a job is gone, or where it was neither before nor is it after."""
    for job_id in {*scenario.before, *scenario.after, *found}:
        allowed = {scenario.before.get(job_id), scenario.after.get(job_id)}
        assert found.get(job_id) in allowed, job_id


def check_that_all_go_on(store: Store, scenario: Scenario) -> None:
    """Let a worker look after what was left, and run everything to its end."""
    location = Path(store.location)
    store.pool.recover(decide)
    store.pool.release_blocked()
    if places(location).get("p") == State.DEAD:
        assert places(location) == {
            **_FAMILY, "p": "dead", "e": "pending",
            **({"new": "blocked/p"} if "new" in places(location) else {}),
        }  # fmt: skip
        store.retry("p", [State.DEAD], NOON)
    ends = {job_id: "cancelled" for job_id, at in places(location).items() if at == "cancelled"}
    expected = dict.fromkeys(places(location), "completed") | ends
    drain(store, NOON.replace(year=2028))
    assert places(location) == expected
    assert not store.pool.release_blocked()
    assert list((location / "blocked").iterdir()) == []


@each_scenario
def test_crash_at_every_step(tmp_path: Path, scenario: Scenario) -> None:
    """Wherever the program is killed, each job is in one place, and goes on when it may."""
    for step in count(1):
        location = tmp_path / str(step)
        store = open_store(str(location), create=True)
        scenario.prepare(store)
        store.close()
        scenes: list[Scene] = []

        def begin(location: Path = location, scenes: list[Scene] = scenes) -> None:
            scenes.append(Scene(open_store(str(location), create=True)))
            scenario.begin(scenes[0])

        def act(scenes: list[Scene] = scenes) -> None:
            scenario.act(scenes[0])

        completed = crash_at(step, act, begin, torn=False)
        found = places(location)
        check_between(found, scenario)
        if completed:
            assert found == scenario.after
        store = open_store(str(location), create=True)
        check_that_all_go_on(store, scenario)
        store.close()
        if completed:
            assert step > 3, "nothing was done"
            return


@each_scenario
@pytest.mark.parametrize(
    ("kind", "lasting"), [("disk full", True), ("I/O error", False)], ids=["lasting", "once"]
)
def test_error_at_every_call(
    tmp_path: Path, scenario: Scenario, kind: str, *, lasting: bool
) -> None:
    """What the system refuses is told or done later; no job is lost, and nothing leaks."""
    number, which = {
        "disk full": (errno.ENOSPC, takes_space), "I/O error": (errno.EIO, anything),
    }[kind]  # fmt: skip
    for step in count(1):
        base = open_descriptors()
        location = tmp_path / str(step)
        store = open_store(str(location), create=True)
        scenario.prepare(store)
        store.close()
        scene = Scene(open_store(str(location), create=True))
        scenario.begin(scene)
        with refused(step, which, number, lasting=lasting) as names, suppress(QueuectlError):
            scenario.act(scene)
        check_between(places(location), scenario)
        if scene.claim is not None:
            scenario.act(scene)  # a claim that is held still is settled at the second go
        scene.store.close()
        assert open_descriptors() == base, f"leaked at an error of {names}"
        store = open_store(str(location), create=True)
        check_that_all_go_on(store, scenario)
        store.close()
        if not names:
            return

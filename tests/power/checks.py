"""Look whether a store holds what was promised, before and after recovery and a drain."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.jobs import (
    LATER,
    NOON,
    claim_next,
    decide,
    decode_job,
    ended,
    settle,
)
from tests.power.disk import Tree, lay_down
from tests.power.scenarios import Promised

from queuectl.config import Defaults, Settings
from queuectl.job import Job, Outcome, State
from queuectl.store import open_store
from queuectl.store.names import is_stranger, parse_blocked, parse_processing, pending_id
from queuectl.store.protocol import Store
from queuectl.strict_json import parse_object

_DEFAULTS = Defaults(Settings(), "/srv", NOON)


_ENDED = frozenset({State.COMPLETED, State.DEAD, State.CANCELLED})


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
        store.pool.recover(decide)
        store.pool.release_blocked()
        check_recovered(location, promised)
        assert repr(store.config.read()) in promised.config
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
        settle(store, [ended(claim)])
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

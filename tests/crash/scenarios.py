"""List what a store does with jobs, and where a job may be when that is cut off."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.jobs import (
    NOON,
    claim_next,
    claimed,
    decide,
    decode_job,
    ended,
    fail_for_good,
    make_job,
    make_jobs,
    settle,
)

from queuectl.config import Defaults, Settings
from queuectl.document import encode_job
from queuectl.errors import BadDocument, StoreError
from queuectl.job import Job, Outcome, State
from queuectl.store.names import is_pending_name, parse_processing, processing_name
from queuectl.store.protocol import Store
from queuectl.store.worker_protocol import Claim

_DEFAULTS = Defaults(Settings(), "/srv", NOON)
UNREADABLE = "unreadable"


class Found(NamedTuple):
    """Tell where a job was found, how its attempts ended, and how many of them count."""

    where: str
    outcomes: tuple[str, ...] = ()
    attempts: int = 0


Snapshot = dict[str, Found]
PENDING = Found("pending")
RUNNING = Found("processing")
DONE = Found("completed", ("succeeded",))


def snapshot(path: Path) -> Snapshot:
    """Return where each job is, by its command; fail where one is in two places or torn."""
    found: Snapshot = {}
    for file in sorted([*path.glob("*/*.json"), *path.glob("blocked/*/*.json")]):
        where, name = str(file.parent.relative_to(path)), file.name
        if where in ("workers", "tmp"):
            continue
        data = file.read_bytes()
        try:
            job = decode_job(data, "stem", _DEFAULTS)
        except BadDocument:
            assert UNREADABLE not in found, f"it is in {found.get(UNREADABLE)} and {where}"
            found[UNREADABLE] = Found(where)
            continue
        assert job.command not in found, f"{name} is in {found.get(job.command)} and {where}"
        numbers = [attempt.number for attempt in job.history]
        assert numbers == list(range(1, len(numbers) + 1))
        found[job.command] = Found(
            where, tuple(attempt.outcome for attempt in job.history), job.attempts
        )
        _check_name(where, name, job)
    return found


def _check_name(where: str, name: str, job: Job) -> None:
    if where == State.PENDING and is_pending_name(name):
        assert name.endswith(f"Z-{job.id}.json")
    elif where == State.PROCESSING:
        parsed = parse_processing(name)
        assert parsed is not None
        # The attempt that runs, or one that is recorded and not moved on yet.
        assert parsed[1] in (job.next_attempt, job.next_attempt - 1)
    elif where not in (State.PENDING, "corrupt"):
        assert name == f"{job.id}.json"


@dataclass
class Scene:
    """Hold a store and the claims that a scenario works on."""

    store: Store
    claims: list[Claim] = field(default_factory=list)
    settlements: list[tuple[Claim, Job]] = field(default_factory=list)

    @property
    def path(self) -> Path:
        """Return the store's directory."""
        return Path(self.store.location)


def nothing(scene: Scene) -> None:
    """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Be one thing that a store does: ``prepare`` and ``begin`` lead to it, ``act`` does it.

    Jobs are named by their commands. ``before`` is how they are found before, ``after`` when it is
    done, ``between`` what is possible besides when it is cut off.
    """

    name: str
    act: Callable[[Scene], None]
    prepare: Callable[[Scene], None] = nothing
    begin: Callable[[Scene], None] = nothing
    before: Snapshot
    after: Snapshot
    between: dict[str, set[Found]] = field(default_factory=dict)

    def allows(self, found: Snapshot) -> None:
        """Fail where a job is where it may not be, or is gone."""
        for command in {*self.before, *self.after, *found}:
            allowed = {self.before.get(command), self.after.get(command)}
            allowed |= self.between.get(command, set())
            assert found.get(command) in allowed, command


def die_with_claims(scene: Scene) -> None:
    """Free the claims as the kernel does when their process is gone."""
    for claim in scene.claims:
        os.close(claim.pass_fds[0][0])
    scene.claims.clear()


def add(*jobs: Job, chosen: bool = False, skip_existing: bool = False) -> Callable[[Scene], None]:
    """Return what adds jobs."""

    def act(scene: Scene) -> None:
        ids = [job.id for job in jobs] if chosen else ()
        scene.store.add(jobs, chosen=ids, skip_existing=skip_existing)

    return act


def claim(scene: Scene) -> None:
    """Claim the next job."""
    scene.claims.append(claimed(scene.store))


def settle_all(scene: Scene) -> None:
    """Settle as was prepared."""
    settle(scene.store, scene.settlements)


def run(*outcomes: Outcome) -> Callable[[Scene], None]:
    """Return what claims jobs whose runs then ended so."""

    def act(scene: Scene) -> None:
        for outcome in outcomes:
            scene.claims.append(claimed(scene.store))
            scene.settlements.append(ended(scene.claims[-1], outcome))

    return act


def run_after_another(scene: Scene) -> None:
    """Settle two jobs, so that files are there to be used again, then run a third."""
    for _ in range(2):
        settle(scene.store, [ended(claimed(scene.store))])
    run(Outcome.FAILED)(scene)


def lose(scene: Scene) -> None:
    """Claim a job and die with it."""
    claim(scene)
    die_with_claims(scene)


def add_and_lose(job: Job) -> Callable[[Scene], None]:
    """Return what leaves a job that was cut off."""

    def act(scene: Scene) -> None:
        scene.store.add([job])
        lose(scene)

    return act


def recover(scene: Scene) -> None:
    """Recover what nobody holds."""
    report = scene.store.pool.recover(decide)
    if report.problems:
        raise StoreError(report.problems[0])


def ahead(outcome: Outcome, **changes: int) -> Callable[[Scene], None]:
    """Return what leaves a document that is ahead of its directory."""

    def act(scene: Scene) -> None:
        scene.store.add([make_job("a", **changes)])
        claim(scene)
        _, job = ended(scene.claims[0], outcome)
        (scene.path / "processing" / processing_name("a", 1)).write_bytes(encode_job(job))
        die_with_claims(scene)

    return act


def dead(scene: Scene) -> None:
    """Put a job into the dead letter queue."""
    scene.store.add([make_job("a")])
    fail_for_good(scene.store)


def drop(text: str, *, old: bool = False) -> Callable[[Scene], None]:
    """Return what drops a file into pending/, as a hand does."""

    def act(scene: Scene) -> None:
        path = scene.path / "pending" / "a.json"
        path.write_text(text)
        if old:
            os.utime(path, (time.time() - 60, time.time() - 60))

    return act


def complete_and_drop(scene: Scene) -> None:
    """Complete a job, and drop a file with the same id."""
    scene.store.add([make_job("a")])
    settle(scene.store, [ended(claimed(scene.store))])
    drop('{"command": "dropped", "id": "a"}')(scene)


def give_back(scene: Scene) -> None:
    """Give the claim back."""
    scene.store.queue.give_back(scene.claims[0])


def retry(scene: Scene) -> None:
    """Send the dead job back."""
    scene.store.retry("a", [State.DEAD], NOON)


def retry_ended(scene: Scene) -> None:
    """Send the completed or cancelled job back."""
    scene.store.retry("a", [State.COMPLETED, State.CANCELLED], NOON)


def cancel(scene: Scene) -> None:
    """Cancel the job."""
    assert dict(scene.store.cancel(["a"])) == {"a": State.CANCELLED}


def complete(scene: Scene) -> None:
    """Complete a job."""
    scene.store.add([_A])
    settle(scene.store, [ended(claimed(scene.store))])


def fail_once(scene: Scene) -> None:
    """Let a job wait for its second attempt."""
    scene.store.add([_A])
    settle(scene.store, [ended(claimed(scene.store), Outcome.FAILED)])


def add_and_cancel(scene: Scene) -> None:
    """Cancel a job that waits."""
    scene.store.add([_A])
    cancel(scene)


def purge(scene: Scene) -> None:
    """Delete the dead job."""
    scene.store.purging.purge("a", State.DEAD)


def look(scene: Scene) -> None:
    """Claim where nothing can be claimed."""
    assert claim_next(scene.store, NOON) is None


_A = make_job("a")
_ONCE = _A._replace(max_retries=1)
_THREE = make_jobs("a", "b", "c")
_MANY = make_jobs(*(f"j{number:02}" for number in range(18)))
_FAILED = ("failed",)

SCENARIOS = [
    Scenario(name="add", act=add(_A), before={}, after={"run a": PENDING}),
    Scenario(name="add a chosen id", act=add(_A, chosen=True), before={}, after={"run a": PENDING}),
    Scenario(
        name="add three",
        act=add(*_THREE),
        before={},
        after=dict.fromkeys(("run a", "run b", "run c"), PENDING),
    ),
    Scenario(
        name="add many of which one is there",
        prepare=add(_MANY[3]),
        act=add(*_MANY, chosen=True, skip_existing=True),
        before={"run j03": PENDING},
        after={job.command: PENDING for job in _MANY},
    ),
    Scenario(
        name="claim",
        prepare=add(_A),
        act=claim,
        before={"run a": PENDING},
        after={"run a": RUNNING},
    ),
    Scenario(
        name="claim as a worker with a record",
        prepare=add(_A),
        begin=lambda scene: scene.store.queue.register("w-1", NOON),
        act=claim,
        before={"run a": PENDING},
        after={"run a": RUNNING},
    ),
    Scenario(
        name="adopt and claim",
        prepare=drop('{"command": "dropped"}'),
        act=claim,
        before={"dropped": PENDING},
        after={"dropped": RUNNING},
    ),
    Scenario(
        name="adopt under another id and claim",
        prepare=complete_and_drop,
        act=claim,
        before={"run a": DONE, "dropped": PENDING},
        after={"run a": DONE, "dropped": RUNNING},
    ),
    Scenario(
        name="set a torn file aside",
        prepare=drop('{"command": "dro', old=True),
        act=look,
        before={UNREADABLE: PENDING},
        after={UNREADABLE: Found("corrupt")},
    ),
    *(
        Scenario(
            name=f"settle: {outcome}, then {after.where}",
            prepare=add(job),
            begin=run(outcome),
            act=settle_all,
            before={"run a": RUNNING},
            after={"run a": after},
            between={"run a": {after._replace(where="processing")}},
        )
        for job, outcome, after in (
            (_A, Outcome.SUCCEEDED, DONE),
            (_A, Outcome.FAILED, Found("pending", _FAILED, 1)),
            (_A, Outcome.TIMED_OUT, Found("pending", ("timed_out",), 1)),
            (_ONCE, Outcome.FAILED, Found("dead", _FAILED, 1)),
            (_A, Outcome.CANCELLED, Found("cancelled", ("cancelled",))),
        )
    ),
    Scenario(
        name="settle several",
        prepare=add(*_THREE),
        begin=run(Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED),
        act=settle_all,
        before=dict.fromkeys(("run a", "run b", "run c"), RUNNING),
        after={
            "run a": DONE,
            "run b": Found("pending", _FAILED, 1),
            "run c": Found("cancelled", ("cancelled",)),
        },
        between={
            "run a": {Found("processing", ("succeeded",))},
            "run b": {Found("processing", _FAILED, 1)},
            "run c": {Found("processing", ("cancelled",))},
        },
    ),
    Scenario(
        name="settle into a file that was used before",
        prepare=add(*_THREE),
        begin=run_after_another,
        act=settle_all,
        before={"run a": DONE, "run b": DONE, "run c": RUNNING},
        after={"run a": DONE, "run b": DONE, "run c": Found("pending", _FAILED, 1)},
        between={"run c": {Found("processing", _FAILED, 1)}},
    ),
    Scenario(
        name="give back",
        prepare=add(_A),
        begin=claim,
        act=give_back,
        before={"run a": RUNNING},
        after={"run a": PENDING},
    ),
    Scenario(
        name="recover a lost attempt",
        prepare=add_and_lose(_A),
        act=recover,
        before={"run a": RUNNING},
        after={"run a": Found("pending", ("lost",), 1)},
        between={"run a": {Found("processing", ("lost",), 1)}},
    ),
    Scenario(
        name="recover the last attempt",
        prepare=add_and_lose(_ONCE),
        act=recover,
        before={"run a": RUNNING},
        after={"run a": Found("dead", ("lost",), 1)},
        between={"run a": {Found("processing", ("lost",), 1)}},
    ),
    *(
        Scenario(
            name=f"roll forward to {after.where}",
            prepare=prepare,
            act=recover,
            before={"run a": after._replace(where="processing")},
            after={"run a": after},
        )
        for prepare, after in (
            (ahead(Outcome.SUCCEEDED), DONE),
            (ahead(Outcome.FAILED), Found("pending", _FAILED, 1)),
            (ahead(Outcome.FAILED, max_retries=1), Found("dead", _FAILED, 1)),
            (ahead(Outcome.CANCELLED), Found("cancelled", ("cancelled",))),
        )
    ),
    Scenario(
        name="retry a dead job",
        prepare=dead,
        act=retry,
        before={"run a": Found("dead", _FAILED * 3, 3)},
        after={"run a": Found("pending", _FAILED * 3, 0)},
        between={"run a": {Found("dead", _FAILED * 3, 0)}},
    ),
    Scenario(
        name="retry a completed job",
        prepare=complete,
        act=retry_ended,
        before={"run a": DONE},
        after={"run a": Found("pending", ("succeeded",))},
    ),
    Scenario(
        name="retry a cancelled job",
        prepare=add_and_cancel,
        act=retry_ended,
        before={"run a": Found("cancelled")},
        after={"run a": PENDING},
    ),
    Scenario(
        name="cancel a job that waits",
        prepare=add(_A),
        act=cancel,
        before={"run a": PENDING},
        after={"run a": Found("cancelled")},
    ),
    Scenario(
        name="cancel a job that waits for its next attempt",
        prepare=fail_once,
        act=cancel,
        before={"run a": Found("pending", _FAILED, 1)},
        after={"run a": Found("cancelled", _FAILED, 1)},
    ),
    Scenario(
        name="cancel a job whose worker and command are gone",
        prepare=add_and_lose(_A),
        act=cancel,
        before={"run a": RUNNING},
        after={"run a": Found("cancelled", ("lost",))},
        between={"run a": {Found("processing", ("lost",))}},
    ),
    Scenario(
        name="cancel a job that was recorded as cancelled",
        prepare=ahead(Outcome.CANCELLED),
        act=cancel,
        before={"run a": Found("processing", ("cancelled",))},
        after={"run a": Found("cancelled", ("cancelled",))},
    ),
    Scenario(
        name="purge",
        prepare=dead,
        act=purge,
        before={"run a": Found("dead", _FAILED * 3, 3)},
        after={},
    ),
]

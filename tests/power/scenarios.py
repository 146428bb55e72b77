"""What programs do with a store on a recorded disk, and what that promises of each job."""

import functools
import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from tests.jobs import (
    NOON,
    claimed,
    decide,
    ended,
    make_job,
    make_jobs,
    settle,
)
from tests.power.disk import Disk

from queuectl.job import Job, Outcome, State
from queuectl.store import open_store
from queuectl.store.protocol import Store
from queuectl.store.worker_protocol import Claim

MANY = 4  # so many at once are enough here for one sync of all


_ANYWHERE = frozenset(State)


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
        settle(self.store, [ended(self.claim(), outcome) for outcome in outcomes])

    def set_config(self, text: str) -> None:
        """Change a setting: while that goes on it is the old or the new, then the new."""
        old = self._promised.config
        self._note(self._promised._replace(config=(*old, repr({"timeout": text}))))
        self.store.config.change(lambda _: {"timeout": text})
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
    scene.add(*make_jobs(*(f"j{number}" for number in range(MANY))))


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
    scene.store.queue.give_back(scene.claim())
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
    drop(scene, *(f"a{number}" for number in range(MANY)))
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
    parents = [f"p{number}" for number in range(MANY)]
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
    assert len(scene.store.pool.recover(decide).recovered) == 2
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
        assert scene.store.purging.purge("a", state)
        scene.add(make_job("a", max_retries=1), chosen=True)
        scene.promise("a", states={State.PENDING})
        scene.promise_no_more()
        scene.run(Outcome.SUCCEEDED)
        assert scene.store.purging.purge("a", State.COMPLETED)


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
        scene.store.queue.register(name, NOON)
        scene.run(Outcome.SUCCEEDED)
        scene.store.queue.unregister()


SCENARIOS = [
    add_in_every_way, add_many, settle_one_after_another, write_a_file_again, settle_together,
    settle_two, fail_for_good, retry_the_dead, retry_the_cancelled, retry_what_has_run, give_back,
    cancel_what_waits, cancel_what_was_lost, adopt, adopt_together, adopt_many, set_settings,
    release, release_after_any_end, add_many_that_wait, retry_under_a_parent, recover,
    purge_and_choose_again, open_what_another_has_made, open_what_lacks_a_directory, make_parents,
    leave,
]  # fmt: skip

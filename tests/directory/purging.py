"""Finished jobs with logs, and what purges them, as the tests of a purge need them."""

import os
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.directory.conftest import Place
from tests.jobs import NOON, drain, make_jobs

from queuectl.config import Settings
from queuectl.job import Job, State
from queuectl.purge import IdlePurge, Purge
from queuectl.store.documents import Documents
from queuectl.store.logs import LogDir
from queuectl.store.protocol import Store

DAY = 86400.0


def log(place: Place, job_id: str, attempt: int = 1, *, days_old: float = 0) -> None:
    """Write the log of an attempt."""
    path = LogDir(f"{place.location}/logs").path(job_id, attempt)
    # By its path: a LogDir keeps the directory open, and some tests write hundreds.
    os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
    grow_old(path, days_old)


def grow_old(path: str | os.PathLike[str], days: float) -> None:
    """Make a file look as if it was changed so long ago."""
    at = time.time() - days * DAY
    os.utime(path, (at, at))


def logged(place: Place) -> list[str]:
    """Return the names of the logs."""
    return sorted(os.listdir(LogDir(f"{place.location}/logs").directory))


def ids(store: Store, state: State) -> list[str]:
    """Return the ids of the jobs in a state."""
    return sorted(entry.id for entry in store.entries(state, NOON))


def complete(store: Store, place: Place, *job_ids: str, days_old: float = 0) -> None:
    """Let jobs be completed so long ago, each with a log."""
    store.add(make_jobs(*job_ids), chosen=job_ids)
    drain(store)
    for job_id in job_ids:
        log(place, job_id, days_old=days_old)
        grow_old(place.path / "completed" / f"{job_id}.json", days_old)


def purged(store: Store, place: Place, states: Collection[State], **options: Any) -> list[str]:
    """Purge and return the ids that were purged."""
    until = options.pop("until", None)
    return [
        entry.id
        for entry in Purge(store, LogDir(f"{place.location}/logs"), until, **options).jobs(states)
    ]


def blocked_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that each read of a blocked job's document adds its id to."""
    reads: list[str] = []
    read = Documents.read

    def note(self: Documents, state: State, name: str, job_id: str) -> Job | None:
        if state is State.BLOCKED:
            reads.append(job_id)
        return read(self, state, name, job_id)

    monkeypatch.setattr(Documents, "read", note)
    return reads


NEVER_WANTED = bool  # bool() is False


def go_on(idle: IdlePurge, is_wanted: Callable[[], bool] = NEVER_WANTED, **settings: float) -> bool:
    """Let a worker purge by these settings; return whether it was called away."""
    return idle.go_on(Settings(**settings), datetime.now(UTC), is_wanted)  # type: ignore[arg-type]

"""Before and while a command waits for jobs: refuse a wait without an end, and warn of a long one.

A job's own command would wait for itself in vain. ``wait`` and ``logs --follow`` say once what they
wait for if it never comes, or not soon.
"""

import os
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from time import monotonic
from typing import NamedTuple

import click

from queuectl.cli.output import format_in
from queuectl.clock import format_instant
from queuectl.errors import BadDataError, ConfigError, StoreBusy, WrongState
from queuectl.job import State
from queuectl.store.protocol import Store
from queuectl.store.values import Entry

_LOOK_SECONDS = 5.0
_LOOK_SHARE = 20  # a look through a long queue takes at most one part in 20 of the time
_SOON_SECONDS = 60.0  # no warning of a job that is due by then
_MAX_LINES = 10
_NO_WORKER = "waiting, but no worker is running: see 'queuectl worker start'"
# The command by which an ended parent runs again.
_RETRIES = {State.DEAD: "dlq retry", State.CANCELLED: "retry"}


def refuse_inside(store: Store, why: str) -> None:
    """Refuse a command that a running job of the store has started. Raises: WrongState."""
    own = _own_job(store)
    if own is not None:
        raise WrongState(f"job {own} runs this command, {why}")


def refuse_to_wait_for_itself(store: Store, job_ids: Collection[str], *, for_all: bool) -> None:
    """Refuse a job that waits for itself, or for one that waits for it. Raises: WrongState."""
    own = _own_job(store)
    if own is None:
        return
    wait_for_own = [each for each in job_ids if _leads_to(store, each, own)]
    if wait_for_own if for_all else len(wait_for_own) == len(job_ids):
        first = wait_for_own[0]
        what = "itself" if first == own else f"{first}, which waits for it"
        raise WrongState(f"job {own} runs this command, and cannot wait for {what}")


def _own_job(store: Store) -> str | None:
    """Return the job whose command started this process, None if it has ended."""
    job_id, location = os.environ.get("QUEUECTL_JOB_ID"), os.environ.get("QUEUECTL_STORE")
    if not job_id or not location or not _is_same(location, store.location):
        return None
    entry = store.find([job_id]).get(job_id)
    if entry is None or entry.state is not State.PROCESSING:
        return None
    return job_id if str(entry.attempt) == os.environ.get("QUEUECTL_ATTEMPT") else None


def _is_same(location: str, other: str) -> bool:
    try:
        return location == other or os.path.samefile(location, other)
    except OSError:
        return False


def _leads_to(store: Store, job_id: str, wanted: str) -> bool:
    """Return whether a job is another, or is blocked until that one has ended."""
    left, seen = [job_id], {job_id}
    while left:
        if (each := left.pop()) == wanted:
            return True
        entry = store.find([each]).get(each)
        job = store.read(entry) if entry is not None and entry.state is State.BLOCKED else None
        new = set(job.parents) - seen if job is not None else set()
        seen |= new
        left += new
    return False


class _Reason(NamedTuple):
    """Why a job does not run, when it will (if that is known), and the command that helps."""

    text: str
    due: datetime | None = None
    helps: str = ""


class Notices:
    """The warnings about the jobs that a command waits for, each printed once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._printed: dict[str, _Reason] = {}
        self._without_worker = 1  # looks in succession, as if there had been one before
        self._warned_of_workers = False
        self._look_at = 0.0

    def look_for(self, job_id: str) -> None:
        """Find a job and warn of it; called often, it does so every few seconds."""
        began = monotonic()
        if began >= self._look_at:
            with suppress(StoreBusy):
                self.look(self._store.find([job_id]).values())
            self._look_at = monotonic() + max(_LOOK_SECONDS, _LOOK_SHARE * (monotonic() - began))

    def look(self, entries: Collection[Entry]) -> None:
        """Warn of jobs that have not ended, unless that has been printed."""
        self._look_for_workers()
        now = self._store.now()
        lines = []
        for entry in entries:
            reason = _reason(self._store, entry, now, {entry.id})
            if reason is not None and self._printed.get(entry.id) != reason:
                self._printed[entry.id] = reason
                lines.append(_line(entry.id, reason, now))
        for line in lines[:_MAX_LINES]:
            click.echo(line, err=True)
        if len(lines) > _MAX_LINES:
            click.echo(f"and {len(lines) - _MAX_LINES} more: see 'queuectl list'", err=True)

    def _look_for_workers(self) -> None:
        self._without_worker = 0 if self._store.workers.live() else self._without_worker + 1
        # Not after one look in between: a worker that was killed is replaced a second later.
        if self._without_worker >= 2 and not self._warned_of_workers:
            self._warned_of_workers = True
            click.echo(_NO_WORKER, err=True)


def _line(job_id: str, reason: _Reason, now: datetime) -> str:
    line = f"job {job_id} is {reason.text}"
    if reason.due is not None:
        return f"{line} ({format_in(reason.due - now)})"
    return f"{line}: {reason.helps}'queuectl cancel {job_id}'"


def _reason(store: Store, entry: Entry, now: datetime, seen: set[str]) -> _Reason | None:
    """Return why a job, or else one of its parents, does not run; None if all do, or will soon."""
    if entry.state is State.PENDING and entry.run_at is not None:
        if (entry.run_at - now).total_seconds() <= _SOON_SECONDS:
            return None
        return _Reason(f"due at {format_instant(entry.run_at)[:19]}Z", due=entry.run_at)
    if entry.state is not State.BLOCKED:
        return None
    try:
        job = store.read(entry)
        if job is None:
            return None  # it has moved on
        parents = store.find(job.parents)
    except (BadDataError, ConfigError, StoreBusy):
        return None  # whoever releases it reports that, or the next look does
    for parent in job.after:
        state = parents[parent].state if parent in parents else None
        if state is None or state in _RETRIES:
            helps = f"'queuectl {_RETRIES[state]} {parent}' or " if state is not None else ""
            return _Reason(f"blocked by {parent}, which is {state or 'gone'}", helps=helps)
    for parent in job.parents:
        if parent in parents and parent not in seen:  # a file moved by hand may close a circle
            seen.add(parent)
            reason = _reason(store, parents[parent], now, seen)
            if reason is not None:
                return reason._replace(text=f"blocked by {parent}, which is {reason.text}")
    return None

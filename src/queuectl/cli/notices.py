"""Say once what is waited for, where that never comes or not for long.

For the commands that would sleep without a word: ``wait`` and ``logs --follow``.
"""

from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from time import monotonic
from typing import NamedTuple

import click

from queuectl.cli.output import format_in
from queuectl.clock import format_instant, utc_now
from queuectl.errors import BadDataError, ConfigError, StoreBusy
from queuectl.job import State
from queuectl.store.base import Entry, Store

_LOOK_SECONDS = 5.0
_LOOK_SHARE = 20  # looking through a long queue takes at most one part in so many of the time
_SOON_SECONDS = 60.0  # what is due by then is worth no word
_MOST_LINES = 10
_NO_WORKER = "waiting, but no worker is running: see 'queuectl worker start'"
# What lets a parent run again that has ended otherwise than its children need.
_RETRIES = {State.DEAD: "dlq retry", State.CANCELLED: "retry"}


class _Reason(NamedTuple):
    """Why a job does not run: what it is, or its parent, and what helps."""

    text: str
    due: datetime | None = None
    helps: str = ""


class Notices:
    """What was said of the jobs that are waited for, so that nothing is said twice."""

    def __init__(self, store: Store) -> None:
        """Take the store that the jobs are in; nothing is said before the first look."""
        self._store = store
        self._said: dict[str, _Reason] = {}
        self._looks = self._without_worker = 0
        self._said_no_worker = False
        self._look_at = 0.0

    def look_for(self, job_id: str) -> None:
        """Look where a job is, and say what keeps it; called often, it does so now and then."""
        began = monotonic()
        if began >= self._look_at:
            with suppress(StoreBusy):
                self.look(self._store.find([job_id]).values())
            self._look_at = monotonic() + max(_LOOK_SECONDS, _LOOK_SHARE * (monotonic() - began))

    def look(self, entries: Collection[Entry]) -> None:
        """Say of jobs that have not ended what keeps them from it, as far as that is news."""
        self._look_for_workers()
        now = utc_now()
        lines = []
        for entry in entries:
            reason = _reason(self._store, entry, now, {entry.id})
            if reason is not None and self._said.get(entry.id) != reason:
                self._said[entry.id] = reason
                lines.append(_line(entry.id, reason, now))
        for line in lines[:_MOST_LINES]:
            click.echo(line, err=True)
        if len(lines) > _MOST_LINES:
            click.echo(f"and {len(lines) - _MOST_LINES} more: see 'queuectl list'", err=True)

    def _look_for_workers(self) -> None:
        self._looks += 1
        self._without_worker = 0 if self._store.workers() else self._without_worker + 1
        # Later it takes two looks: a worker that was killed is replaced a second later.
        if self._without_worker >= min(self._looks, 2) and not self._said_no_worker:
            self._said_no_worker = True
            click.echo(_NO_WORKER, err=True)


def _line(job_id: str, reason: _Reason, now: datetime) -> str:
    line = f"job {job_id} is {reason.text}"
    if reason.due is not None:
        return f"{line} ({format_in((reason.due - now).total_seconds())})"
    return f"{line}: {reason.helps}'queuectl cancel {job_id}'"


def _reason(store: Store, entry: Entry, now: datetime, seen: set[str]) -> _Reason | None:
    """Return why a job does not run, None where it does, or will soon.

    A job that is blocked has the reason of the first of its parents that has one.
    """
    if entry.state is State.PENDING and entry.run_at is not None:
        if (entry.run_at - now).total_seconds() <= _SOON_SECONDS:
            return None
        return _Reason(f"due at {format_instant(entry.run_at)[:19]}Z", due=entry.run_at)
    if entry.state is not State.BLOCKED:
        return None
    try:
        job = store.read(entry)
        parents = store.find(job.parents) if job is not None else {}
    except (BadDataError, ConfigError, StoreBusy):
        return None  # whoever releases it will tell, or the next look
    if job is None:
        return None  # it has moved on
    for parent in job.after:
        state = parents[parent].state if parent in parents else None
        if state is None or state in _RETRIES:
            helps = f"'queuectl {_RETRIES[state]} {parent}' or " if state is not None else ""
            return _Reason(f"blocked by {parent}, which is {state or 'gone'}", helps=helps)
    for parent in job.parents:
        if parent in parents and parent not in seen:  # a hand may have made a circle
            seen.add(parent)
            reason = _reason(store, parents[parent], now, seen)
            if reason is not None:
                text = f"blocked by {parent}, which is {reason.text}"
                return reason._replace(text=text)
    return None

"""Cancel jobs: move waiting ones, and ask the workers to end the ones in progress."""

import os
import time
from collections.abc import Iterator, Sequence

from queuectl.clock import utc_now
from queuectl.document import encode_job
from queuectl.errors import JobNotFound
from queuectl.job import FINISHED, Attempt, Job, Outcome, State
from queuectl.store.adopting import Adopter
from queuectl.store.channel import channel_name, send
from queuectl.store.core import Core
from queuectl.store.dependencies import Dependencies
from queuectl.store.files import store_errors
from queuectl.store.names import filed_name, is_pending_name, parse_blocked
from queuectl.store.recovery import CommandStillRuns, Recovery
from queuectl.store.values import Entry, Slow, WorkerRecord
from queuectl.store.waiting import TOGETHER_SECONDS
from queuectl.store.watch import POLL_SECONDS, Watch

_SLOW_SECONDS = 5.0  # who waits so long for the end of an attempt says why
_HELD_SECONDS = 0.01  # who holds a waiting job's lock moves it in less


class Canceller:
    """The way of jobs into cancelled/."""

    def __init__(
        self, core: Core, dependencies: Dependencies, recovery: Recovery, adopter: Adopter
    ) -> None:
        self._core = core
        self._dir = core.directory
        self._dependencies = dependencies
        self._recovery = recovery
        self._adopter = adopter

    def cancel(
        self, job_ids: Sequence[str], slow: Slow | None = None
    ) -> Iterator[tuple[str, State | None]]:
        """Cancel jobs, each whatever happens to the others; see Store.cancel."""
        entries = self._core.lookup.find(job_ids)
        for job_id in job_ids:
            if job_id not in entries:
                raise JobNotFound(f"no such job: {job_id}")
        running = [each for each in job_ids if entries[each].state is State.PROCESSING]
        asked: set[tuple[str, str]] = set()
        # Those that wait come first: a worker that is freed would take the next of them.
        for job_id in job_ids:
            if entries[job_id].state is not State.PROCESSING:
                yield job_id, self._cancel(entries[job_id], asked, slow)
        # All are asked before the first is waited for, so that they have their grace together.
        for job_id in running:
            self._ask(entries[job_id], asked)
        for job_id in running:
            yield job_id, self._cancel(entries[job_id], asked, slow)

    def _cancel(self, entry: Entry, asked: set[tuple[str, str]], slow: Slow | None) -> State | None:
        """Cancel a job wherever it moves meanwhile; return the state that it ends in."""
        found: Entry | None = entry
        # RACE: the job may end, be claimed or come back at any moment; each time it is looked for
        # again, until it is cancelled or was faster; see tests/contract/test_cancel.py.
        with store_errors(f"{self._dir.location}: job {entry.id} cannot be cancelled"):
            while found is not None:
                if found.state is State.PROCESSING:
                    self._end_running(found, asked, slow)
                elif found.state not in FINISHED:
                    self._cancel_waiting(found)
                ended = self._core.index.end_of(entry.id)
                if ended is not None:
                    self._dir.make_durable(ended)  # before it is acknowledged
                    self._dependencies.release_children([entry.id])
                    return ended
                found = self._core.lookup.find([entry.id]).get(entry.id)
        return None

    # --- jobs that wait ---

    def _cancel_waiting(self, entry: Entry) -> None:
        if entry.state is not State.PENDING or is_pending_name(entry.token):
            self._move_to_cancelled(entry)
            return
        # Somebody has dropped it there, and another job may have its name for an id, and in
        # cancelled/ the place that it would take.
        with self._core.lock.held():
            if self._core.lookup.locate(entry.id, except_pending=entry.token) is None:
                self._move_to_cancelled(entry)
                return
            # What is no document raises.
            self._core.documents.read(entry.state, entry.token, entry.id)
            self._adopter.adopt([entry.token], utc_now())
        if self._dir.exists(State.PENDING, entry.token):
            time.sleep(_HELD_SECONDS)

    def _move_to_cancelled(self, entry: Entry) -> None:
        """Cancel a job that waits: lock, move, then rewrite."""
        with self._core.documents.locked(entry.state, entry.token) as fd:
            # Read whether it is locked or not: what is no document raises.
            job = self._core.documents.read(entry.state, entry.token, entry.id)
            if fd is None or job is None:
                time.sleep(_HELD_SECONDS)
                return
            name = filed_name(entry.id)
            job = job._replace(state=State.CANCELLED, updated_at=utc_now())
            # Written before the move, so that a full disk refuses all of it.
            with self._dir.written(encode_job(job)) as (temporary, recorded_fd):
                # Durable where it waits before it moves on; see Retrier.retry.
                if entry.state is State.BLOCKED:
                    self._dependencies.sync({parse_blocked(entry.token)[0]})
                else:
                    self._dir.make_durable(entry.state)
                self._core.documents.move(entry.state, entry.token, State.CANCELLED, name)
                # A record in cancelled/ beside the document where it was would be a second one.
                self._dir.make_durable(State.CANCELLED)
                path = f"{self._dir.location}/{State.CANCELLED}/{name}"
                with store_errors(f"{path} cannot be written"):
                    os.rename(
                        temporary,
                        name,
                        src_dir_fd=self._dir.fd("tmp"),
                        dst_dir_fd=self._dir.fd(State.CANCELLED),
                    )
            os.close(recorded_fd)

    # --- jobs in progress ---

    def _end_running(self, entry: Entry, asked: set[tuple[str, str]], slow: Slow | None) -> None:
        """Ask for the end of an attempt; return when its document has left processing/."""
        watch, began = Watch(), time.monotonic()
        try:
            # RACE: watch before the look, so that an end in between is noticed.
            watch.add_departures(os.path.join(self._dir.location, State.PROCESSING))
            while self._is_running(entry):
                if (
                    not self._ask(entry, asked)
                    and not self._settle_unowned(entry, ended=False)
                    and self._recovery.orphans.end(entry.token)
                ):
                    self._settle_unowned(entry, ended=True)
                if slow is not None and time.monotonic() - began >= _SLOW_SECONDS:
                    slow(entry.id, self._runner_of(entry))
                    slow = None
                self._sleep_while_running(entry, watch)
        finally:
            watch.close()
        # If it was given back, the same worker may run the same attempt once more.
        asked.difference_update([each for each in asked if each[1] == entry.token])

    def _is_running(self, entry: Entry) -> bool:
        return self._core.documents.is_document(State.PROCESSING, entry.token)

    def _sleep_while_running(self, entry: Entry, watch: Watch) -> None:
        until = time.monotonic() + POLL_SECONDS
        while self._is_running(entry) and (left := until - time.monotonic()) > 0:
            watch.wait(left)
            time.sleep(TOGETHER_SECONDS)

    def _ask(self, entry: Entry, asked: set[tuple[str, str]]) -> bool:
        """Ask the worker that runs a job to end it, once; False if none says that it runs it.

        None does, too, in the moment between its claim and its record, and when the command has
        ended and is about to be settled with others.
        """
        record = self._runner_of(entry)
        if record is None:
            return False
        request, name = (record.name, entry.token), channel_name(record.name)
        if request not in asked:
            with store_errors(f"{self._dir.location}/workers/{name} cannot be written"):
                what = f"{entry.id}.{entry.attempt}"
                if send(self._dir.fd("workers"), record.name, what):
                    asked.add(request)
        return True

    def _runner_of(self, entry: Entry) -> WorkerRecord | None:
        return self._core.records.runner_of(entry.id, entry.attempt)

    def _settle_unowned(self, entry: Entry, *, ended: bool) -> bool:
        """Settle a job that nobody holds as cancelled; its attempt was ``ended`` here, or lost."""

        def decide(job: Job, attempt: Attempt) -> Job:
            if ended:
                attempt = attempt._replace(outcome=Outcome.CANCELLED)
            return job.with_attempt(attempt, state=State.CANCELLED, updated_at=attempt.finished_at)

        with self._core.documents.locked(State.PROCESSING, entry.token) as fd:
            if fd is None:
                return False
            # What is no document raises.
            self._core.documents.read(State.PROCESSING, entry.token, entry.id)
            try:
                self._recovery.settle(entry.token, fd, decide)
            except CommandStillRuns:
                return False
        self._core.records.tidy_records()
        return True

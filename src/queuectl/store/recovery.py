"""Settle the claims whose worker and command are gone (rule 8)."""

import os

from queuectl.clock import from_timestamp, utc_now
from queuectl.document import NewerSchema
from queuectl.errors import BadDataError, ConfigError, StoreError
from queuectl.job import FINISHED, Outcome, State
from queuectl.store import files
from queuectl.store.core import Core
from queuectl.store.dependencies import Dependencies
from queuectl.store.files import store_errors
from queuectl.store.names import parse_processing
from queuectl.store.orphans import Orphans
from queuectl.store.settling import Settler
from queuectl.store.values import Decide, Recovered, RecoveryReport


class CommandStillRuns(Exception):
    """Nobody holds a job's lock, and its command is running nevertheless."""


class Recovery:
    """What becomes of the documents in processing/ that nobody holds."""

    def __init__(self, core: Core, dependencies: Dependencies, settler: Settler) -> None:
        self._core = core
        self._dir = core.directory
        self._dependencies = dependencies
        self._settler = settler
        self.orphans = Orphans(core)

    def recover(self, decide: Decide, *, only_lost: bool = False) -> RecoveryReport:
        """Settle all that nobody holds; see Pool.recover."""
        recovered: list[Recovered] = []
        held: set[tuple[str, int]] = set()
        problems: list[str] = []
        for name in list(self._dir.names(State.PROCESSING)):
            parsed = parse_processing(name)
            if parsed is None:
                continue
            path = f"{self._dir.location}/{State.PROCESSING}/{name}"
            try:
                with (
                    store_errors(f"{path} cannot be recovered"),
                    self._core.documents.locked(State.PROCESSING, name) as fd,
                ):
                    if fd is None:
                        if self._core.documents.is_document(State.PROCESSING, name):
                            held.add(parsed)
                    elif (found := self.settle(name, fd, decide)) is not None:
                        recovered.append(found)
            except CommandStillRuns:
                held.add(parsed)
            except (ConfigError, StoreError) as error:
                problems.append(str(error))
        self._dependencies.release_children(
            [each.job.id for each in recovered if each.job.state in FINISHED]
        )
        if any(each.lost for each in recovered):
            try:
                self._core.records.tidy_records()  # that said who had run what was lost
            except StoreError as error:
                problems.append(str(error))
        unowned = held if held and not only_lost else set()
        if unowned:
            unowned = held - {(each.job, each.attempt) for each in self._core.records.live()}
        return RecoveryReport(
            recovered=recovered,
            running=len(held),
            unowned=len(unowned) + len(problems),
            overdue=() if only_lost else self.orphans.end_overdue(unowned),
            problems=problems,
        )

    def settle(self, name: str, fd: int, decide: Decide) -> Recovered | None:
        """Settle a locked document of processing/; None if it cannot be read.

        Raises: CommandStillRuns, StoreError.
        """
        parsed = parse_processing(name)
        assert parsed is not None, name
        job_id, number = parsed
        now = utc_now()
        try:
            job = self._core.documents.read_to_run(fd, job_id, now)
        except NewerSchema:
            return None
        except BadDataError as error:
            self._core.documents.set_aside(State.PROCESSING, name, str(error))
            return None
        if job.id != job_id:
            job = job._replace(id=job_id)
        if job.next_attempt > number:
            self._settler.roll_forward(name, job)
            self._core.registry.count([job.history[-1]])
            return Recovered(job=job, attempt=number, lost=False)
        if self.orphans.session_leaders(job_id, number):
            raise CommandStillRuns
        runner = self._core.records.runner_of(job_id, number, or_gone=True)
        attempt = job.ended_attempt(
            number,
            Outcome.LOST,
            worker=runner.name if runner else "",
            started_at=from_timestamp(os.fstat(fd).st_mtime),
            finished_at=now,
        )
        job = decide(job, attempt)
        # Durable where it is before it moves on; see Retrier.retry.
        self._dir.make_durable(State.PROCESSING)
        with files.closing(self._core.documents.record(State.PROCESSING, name, job)):
            self._settler.roll_forward(name, job)
        self._core.registry.count([job.history[-1]])
        return Recovered(job=job, attempt=number, lost=True)

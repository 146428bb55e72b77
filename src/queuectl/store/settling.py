"""Settle claims: record, sync, move (rule 5); or give them back."""

import os
from collections.abc import Sequence
from datetime import datetime

from queuectl.clock import utc_now
from queuectl.document import encode_job
from queuectl.errors import StoreError
from queuectl.job import FINISHED, Job, State
from queuectl.store import files
from queuectl.store.core import Core
from queuectl.store.dependencies import Dependencies
from queuectl.store.held_claim import HeldClaim
from queuectl.store.names import filed_name, name_in_pending, pending_name
from queuectl.store.spare_files import SpareFiles
from queuectl.store.worker_protocol import Claim


class Settler:
    """The way of jobs out of processing/, for one process."""

    def __init__(self, core: Core, dependencies: Dependencies) -> None:
        self._dir = core.directory
        self._documents = core.documents
        self._lock = core.lock
        self._registry = core.registry
        self._dependencies = dependencies
        self._spares: SpareFiles | None = None
        self._syncer = files.Syncer()

    def close(self) -> None:
        """Leave the spare files to others."""
        if self._spares is not None:
            self._spares.leave()
            self._spares = None

    def begin_settle(self, settlements: Sequence[tuple[Claim, Job]]) -> "Settlement":
        """Write the new documents of claimed jobs; see Queue.begin_settle."""
        if self._spares is None:
            self._spares = SpareFiles(self._dir.fd("tmp"), self._dir.fd(State.PROCESSING))
        return Settlement(self, self._spares, settlements)

    def write_error(self, error: OSError) -> StoreError:
        """Return the error for a document that cannot be written."""
        return files.as_store_error(error, f"{self._dir.location}/processing cannot be written")

    def sync(self, file_fds: Sequence[int]) -> None:
        """Make written documents durable, and where the claims have come from. Raises: OSError."""
        # The claims' renames must be durable before the next ones: else a power failure could
        # undo the first and keep the second, and leave the job in two places. What came into
        # pending/ was made durable by who put it there, or is by who claims it.
        self._syncer.sync(file_fds, [self._dir.fd(State.PROCESSING), self._dir.fd("tmp")])

    def has(self, claim: HeldClaim) -> bool:
        """Return whether a claimed job is where it ran, and nobody has taken it away."""
        return self._dir.exists(State.PROCESSING, claim.name)

    def settled(self, jobs: Sequence[Job]) -> None:
        """Count what was settled, and release what waited for it."""
        self._registry.count([job.history[-1] for job in jobs])
        self._dependencies.release_children([job.id for job in jobs if job.state in FINISHED])

    def roll_forward(self, name: str, job: Job) -> None:
        """Move a document that is ahead of its directory to the state that it names."""
        if job.state is State.PENDING:
            with self._lock.held():
                self._documents.move(State.PROCESSING, name, State.PENDING, name_in_pending(job))
        else:
            self._documents.move(State.PROCESSING, name, job.state, filed_name(job.id))

    def give_back(self, claim: Claim, due: datetime | None = None) -> None:
        """Put a claimed job back as it was by one rename; see Queue.give_back."""
        assert isinstance(claim, HeldClaim)
        name = claim.came_from
        if due is not None:
            name = pending_name(claim.job.priority, due, claim.job.id)
        with self._lock.held():
            try:
                self._documents.move(State.PROCESSING, claim.name, State.PENDING, name)
            except StoreError:
                if self.has(claim):
                    raise
        claim.free()
        self._registry.note(claim.worker, None, utc_now())


class Settlement:
    """Claims that are being settled: written, then synced, then moved."""

    def __init__(
        self, settler: Settler, spares: SpareFiles, settlements: Sequence[tuple[Claim, Job]]
    ) -> None:
        """Write the new documents, as many as there is room for.

        Raises: StoreError if there is room for none.
        """
        self._settler = settler
        self._spares = spares
        self._error: OSError | None = None
        self._is_synced = False
        self.gone: list[Claim] = []
        self._held: list[tuple[HeldClaim, Job]] = []
        self._written: list[tuple[HeldClaim, str, int]] = []
        self._claims = [claim for claim, _ in settlements if isinstance(claim, HeldClaim)]
        try:
            for claim, job in settlements:
                assert isinstance(claim, HeldClaim)
                if claim.fd < 0:
                    continue  # settled already, before an error that came later
                if claim.recorded_fd >= 0 or self._write(claim, job):
                    self._held.append((claim, job))
        except OSError as error:
            if not self._held:
                raise settler.write_error(error) from error
            self._leave_some()

    @property
    def left(self) -> list[Claim]:
        """Return the claims that are still held; see worker_protocol.Settlement.left."""
        return [each for each in self._claims if each.fd >= 0]

    def _leave_some(self) -> None:
        """Leave half of what was written for the next time: to finish the rest takes room, too."""
        others = len(self._held) > len(self._written)
        kept = max(len(self._written) // 2, 0 if others else 1)
        dropped = self._written[kept:]
        del self._written[kept:]
        claims = [claim for claim, _, _ in dropped]
        self._held = [each for each in self._held if each[0] not in claims]
        for _, name, fd in dropped:
            os.close(fd)
            self._spares.drop(name)

    def _write(self, claim: HeldClaim, job: Job) -> bool:
        """Write a new document; return False, the claim freed, if the whole store is gone."""
        try:
            self._written.append((claim, *self._spares.write(encode_job(job))))
        except FileNotFoundError:
            if self._settler.has(claim):
                raise
            self._free(claim)
            return False
        return True

    def sync(self) -> None:
        """Make what was written durable, by system calls alone; finish raises what went wrong."""
        try:
            self._settler.sync([fd for _, _, fd in self._written])
            self._is_synced = True
        except OSError as error:
            self._error = error

    def finish(self) -> None:
        """Put the new documents in place and move them, and free the claims.

        What goes wrong with one holds up none of the others, and is raised when they are settled.
        """
        errors: list[StoreError] = []
        try:
            if self._error is not None:
                raise self._settler.write_error(self._error) from self._error
            assert self._is_synced, "not synced"
            self._spares.synced()
            for each in list(self._written):
                if self._put(*each, errors):
                    self._written.remove(each)
        finally:
            self._clean_up()
        settled: list[Job] = []
        try:
            for claim, job in self._held:
                if claim.recorded_fd >= 0 and self._move_on(claim, job, errors):
                    settled.append(job)
        finally:
            self._settler.settled(settled)
        if errors:
            raise errors[0]

    def _put(self, claim: HeldClaim, name: str, fd: int, errors: list[StoreError]) -> bool:
        """Put a new document in place; return False if that cannot be, with the error added."""
        try:
            self._spares.put_in_place(name, claim.name)
        except OSError as error:
            if not isinstance(error, FileNotFoundError) or self._settler.has(claim):
                errors.append(self._settler.write_error(error))
                errors[-1].__cause__ = error
                return False
            self._spares.drop(name)
        claim.recorded_fd = fd
        return True

    def _move_on(self, claim: HeldClaim, job: Job, errors: list[StoreError]) -> bool:
        """Move a recorded job to its state, and free the claim.

        Returns False if it was taken away, or if that cannot be, with the error added.
        """
        try:
            self._settler.roll_forward(claim.name, job)
        except StoreError as error:
            if self._settler.has(claim):
                errors.append(error)
            else:
                self._free(claim)
            return False
        claim.free()
        return True

    def _free(self, claim: HeldClaim) -> None:
        self.gone.append(claim)
        claim.free()

    def _clean_up(self) -> None:
        for _, name, fd in self._written:
            os.close(fd)
            self._spares.drop(name)
        self._written.clear()

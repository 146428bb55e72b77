"""Claim jobs that are due (rule 3): lock, then one rename from pending/ to processing/."""

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from datetime import datetime

from queuectl.errors import QueuectlError, StoreError
from queuectl.job import State
from queuectl.store import files
from queuectl.store.adopting import Adopter
from queuectl.store.core import Core
from queuectl.store.documents import as_placed
from queuectl.store.files import store_errors
from queuectl.store.held_claim import HeldClaim
from queuectl.store.names import due_text, pending_id, processing_name
from queuectl.store.pending_documents import PendingDocuments
from queuectl.store.scan import PendingScan
from queuectl.store.setback import SetBack
from queuectl.store.worker_protocol import Claim

_SET_BACK_SECONDS = 10.0  # below that, waiting it out costs less


class Claimer:
    """The way of jobs into processing/, for the workers of one process."""

    def __init__(self, core: Core, scan: PendingScan, adopter: Adopter) -> None:
        self._dir = core.directory
        self._lock = core.lock
        self._registry = core.registry
        self._scan = scan
        self._waiting = PendingDocuments(core, scan)
        self._adopter = adopter
        self._set_back = SetBack(core)
        self._clock_seen: tuple[str | None, float] | None = None

    def claim(self, now: datetime, workers: Sequence[str]) -> list[Claim]:
        """Take the first due jobs, one for each worker; see Queue.claim."""
        scan = self._scan
        due_by = due_text(now)
        claims: list[Claim] = []
        try:
            with store_errors(f"{self._dir.location}/pending cannot be read"):
                scan.take_in_arrivals(due_by)
                while (most := len(workers) - len(claims)) > 0:
                    names = scan.take(due_by, most)
                    if strangers := scan.take_strangers():
                        self._adopter.adopt(strangers, now)
                        for name in names:
                            scan.arrived(name, due_by)  # an adopted one may be first
                    elif not names and not self._clock_was_set_back(now):
                        break
                    else:
                        self._claim_names(names, now, workers, claims)
        except QueuectlError:
            # What was taken from the scan and not claimed is found by another one.
            scan.invalidate()
            if not claims:
                raise
        return claims

    def _claim_names(
        self, names: Sequence[str], now: datetime, workers: Sequence[str], claims: list[Claim]
    ) -> None:
        """Add to the claims what of the names can be claimed, each for the next worker."""
        for name in names:
            # Other processes have taken many of them, and a stat shows that sooner than an open.
            if not self._dir.exists(State.PENDING, name):
                continue
            claim = self._claim_document(name, now, workers[len(claims)])
            if claim is not None:
                claims.append(claim)

    def _clock_was_set_back(self, now: datetime) -> bool:
        """Return whether jobs are due, though none was, since the clock was set back."""
        scan = self._scan
        soonest = scan.soonest()
        while soonest is not None and not self._dir.exists(State.PENDING, soonest):
            scan.forget(soonest)  # it is gone, and would hide the evidence of others
            soonest = scan.soonest()
        if scan.has_lost_the_soonest():
            scan.invalidate()
            return True
        # What the wall clock is ahead of one that is never set.
        ahead = now.timestamp() - time.monotonic()
        seen, self._clock_seen = self._clock_seen, (soonest, ahead)
        was_set_back = seen is not None and ahead < seen[1] - _SET_BACK_SECONDS
        if was_set_back:
            scan.forget_put_off()
        elif soonest is None or (seen is not None and seen[0] == soonest):
            return False
        # What is known to wait may all be gone, and what waits not be known.
        if was_set_back or (soonest is not None and self._set_back.is_proved_by(soonest, now)):
            self._set_back.put_right(now)
            scan.invalidate()
            return True
        return False

    # --- one document ---

    def _claim_document(self, name: str, now: datetime, worker: str) -> Claim | None:
        try:
            locked = self._waiting.lock(name, now)
            if locked is None:
                return None
            fd, status = locked
            claim = None
            try:
                claim = self._claim_locked(name, fd, status, now, worker)
            finally:
                if claim is None:
                    os.close(fd)
        except OSError as error:
            what = f"{self._dir.location}/pending/{name} cannot be claimed"
            raise files.as_store_error(error, what) from error
        if claim is not None:
            self._registry.note(worker, (claim.job.id, claim.attempt), now)
        return claim

    def _claim_locked(
        self, name: str, fd: int, status: os.stat_result, now: datetime, worker: str
    ) -> HeldClaim | None:
        job_id = pending_id(name)
        job = self._waiting.read(fd, name, job_id, now)
        if job is None:
            return None
        job = as_placed(job, State.PENDING, name, job_id)
        running = processing_name(job_id, job.next_attempt)
        if job.history or job.after or job.after_any:
            # It has come from elsewhere, durable here before it moves on; see Retrier.retry.
            files.sync_directory(self._dir.fd(State.PENDING))
        try:
            if not self._move(fd, status, name, running):
                return None
        except FileExistsError:
            # A second document of a job in progress, which somebody has put here.
            self._waiting.look_again_soon(name, now)
            return None
        return HeldClaim(
            worker=worker,
            job=job,
            attempt=job.next_attempt,
            started_at=now,
            fd=fd,
            name=running,
            came_from=name,
        )

    def _move(self, fd: int, status: os.stat_result, name: str, running: str) -> bool:
        """Move a locked document from pending/ to processing/; False if somebody was faster.

        Raises: FileExistsError if one of that name is in progress; OSError.
        """
        pending_fd, processing_fd = self._dir.fd(State.PENDING), self._dir.fd(State.PROCESSING)
        try:
            files.move_new(pending_fd, name, processing_fd, running)
        except FileNotFoundError:
            # RACE: somebody, who takes no lock, has moved or removed it; see
            # test_hand_that_moves_a_document_while_it_is_claimed.
            return False
        is_taken = False
        try:
            # RACE: somebody may have put another file there between check and rename; see
            # test_hand_that_replaces_a_document_while_it_is_claimed.
            if files.names_inode(processing_fd, running, status):
                os.utime(fd)
                is_taken = True
        finally:
            if not is_taken:  # it has not run, so it is not a lost attempt
                with ExitStack() as held:
                    with suppress(StoreError):  # better without the lock (rule 7) than not at all
                        held.enter_context(self._lock.held())
                    os.rename(running, name, src_dir_fd=processing_fd, dst_dir_fd=pending_fd)
        return is_taken

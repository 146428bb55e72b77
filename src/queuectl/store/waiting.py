"""Wait for the ends of jobs: asleep in the kernel, and without looking at other jobs."""

import math
import os
import time
from collections.abc import Collection, Iterator
from operator import attrgetter

from queuectl.errors import JobNotFound, StoreBusy
from queuectl.job import FINISHED, Job
from queuectl.store.core import Core
from queuectl.store.names import filed_name, parse_filed
from queuectl.store.values import Entry, Looked
from queuectl.store.watch import POLL_SECONDS, Watch

_LOOK_SECONDS = 5.0  # a job that somebody deletes while it waits is missed after that long
# If thousands of other jobs end, those of that short a time are taken in one go.
TOGETHER_SECONDS = 0.005
_LOOK_SHARE = 20  # looking through a long queue takes at most one part in that many of the time


class Waiter:
    """Waiting for the ends of jobs of one store."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def ends(
        self, job_ids: Collection[str], timeout_seconds: float | None, looked: Looked | None = None
    ) -> Iterator[Job]:
        """Yield jobs as they end; see Store.ends."""
        look_at = time.monotonic()
        give_up_at = math.inf if timeout_seconds is None else look_at + timeout_seconds
        left = dict.fromkeys(job_ids)
        # RACE: watch first, then look, so that what ends in between is noticed; see
        # test_a_job_that_ends_before_the_sleep_is_not_missed.
        watch = Watch(*(os.path.join(self._core.directory.location, state) for state in FINISHED))
        try:
            arrived: Collection[str] = tuple(left)
            while True:
                ended = self._ended(arrived)
                for job in ended:
                    left.pop(job.id)
                    yield job
                if not left:
                    return
                now = time.monotonic()
                # What arrived and is gone again was sent back, or purged.
                if now >= look_at or len(ended) < len(arrived):
                    found = self._require(left)
                    if looked is not None:
                        looked(found)
                    look_at = now + max(_LOOK_SECONDS, (time.monotonic() - now) * _LOOK_SHARE)
                if now >= give_up_at:
                    return
                arrived = self._arrived(watch, left, min(look_at, give_up_at))
        finally:
            watch.close()

    def _ended(self, job_ids: Collection[str]) -> list[Job]:
        jobs = []
        for job_id in job_ids:
            state = self._core.index.end_of(job_id)
            if state is None:
                continue
            job = self._core.documents.read(state, filed_name(job_id), job_id)
            if job is not None:
                jobs.append(job)
        return sorted(jobs, key=attrgetter("updated_at"))

    def _require(self, job_ids: Collection[str]) -> Collection[Entry]:
        """Return where the jobs are. Raises: JobNotFound if one of them is nowhere."""
        try:
            found = self._core.lookup.find(job_ids)
        except StoreBusy:
            return ()  # the next look may tell
        for job_id in job_ids:
            if job_id not in found:
                raise JobNotFound(f"no such job: {job_id}; it was deleted while it was waited for")
        return [found[job_id] for job_id in job_ids]

    def _arrived(self, watch: Watch, job_ids: Collection[str], until: float) -> Collection[str]:
        """Sleep until one of the jobs may have ended or it is time; return which may have."""
        while (left_seconds := until - time.monotonic()) > 0:
            if watch.fd is None:
                names = None
                time.sleep(min(left_seconds, POLL_SECONDS))
            else:
                names = watch.wait(left_seconds)
            if names is None:
                return [job_id for job_id in job_ids if self._core.index.end_of(job_id)]
            arrived = {job_id for job_id in map(parse_filed, names) if job_id in job_ids}
            if arrived:
                return [job_id for job_id in arrived if job_id is not None]
            time.sleep(TOGETHER_SECONDS)
        return ()

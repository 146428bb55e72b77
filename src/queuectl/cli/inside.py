"""Refuse what a job's own command would wait for in vain: itself."""

import os
from collections.abc import Collection

from queuectl.errors import WrongState
from queuectl.job import State
from queuectl.store.base import Store


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
    """Return the job whose command started this process, None where that has ended."""
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
    """Return whether a job is another, or is blocked until that has ended."""
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

"""Make jobs, and ends of attempts, as the tests of stores need them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from queuectl.clock import later
from queuectl.config import Defaults, Settings
from queuectl.document import job_from_document
from queuectl.job import Attempt, Job, Outcome, log_name
from queuectl.policy import after_attempt
from queuectl.store.protocol import Store
from queuectl.store.worker_protocol import Claim
from queuectl.strict_json import parse_object

NOON = datetime(2026, 1, 2, 12, 0, 0, 250_000, tzinfo=UTC)
LATER = later(NOON, 86400.0)  # whatever waits for a backoff is due by then
SETTINGS = Settings()
DEFAULTS = Defaults(Settings(), "/", NOON)


def decode_job(data: bytes, job_id: str, defaults: Defaults) -> Job:
    """Return the job that a document's bytes hold; ``job_id`` where it names none."""
    return job_from_document(parse_object(data), job_id, defaults)


def make_job(job_id: str, **changes: Any) -> Job:
    """Return a job of noon, changed as is asked for."""
    fields: dict[str, Any] = {
        "id": job_id,
        "command": f"run {job_id}",
        "cwd": "/srv",
        "max_retries": 3,
        "created_at": NOON,
        "updated_at": NOON,
        "run_at": NOON,
    }
    return Job(**(fields | changes))


def make_jobs(*ids: str, **changes: Any) -> list[Job]:
    """Return jobs that are due one microsecond after the other, as one batch makes them."""
    return [
        make_job(job_id, **({"run_at": later(NOON, index / 1_000_000)} | changes))
        for index, job_id in enumerate(ids)
    ]


def attempt(job_id: str, number: int = 1, **changes: Any) -> Attempt:
    """Return the record of a run that took 1.5 s and exited with 3, or what is asked for."""
    started_at = later(NOON, 60 * number)
    fields: dict[str, Any] = {
        "number": number,
        "worker": "w-abcd",
        "started_at": started_at,
        "finished_at": later(started_at, 1.5),
        "duration_seconds": 1.5,
        "exit_code": 3,
        "signal": None,
        "outcome": Outcome.FAILED,
        "log": log_name(job_id, number),
    }
    return Attempt(**(fields | changes))


def attempt_of(claim: Claim, outcome: Outcome = Outcome.SUCCEEDED) -> Attempt:
    """Return the record of a claim's run: at noon, for 1.5 seconds."""
    exit_codes = {Outcome.SUCCEEDED: 0, Outcome.FAILED: 3}
    return attempt(
        claim.job.id,
        claim.attempt,
        started_at=NOON,
        finished_at=later(NOON, 1.5),
        exit_code=exit_codes.get(outcome),
        outcome=outcome,
    )


def ended(claim: Claim, outcome: Outcome = Outcome.SUCCEEDED) -> tuple[Claim, Job]:
    """Return what settles a claim whose run ended so."""
    attempt = attempt_of(claim, outcome)
    return claim, after_attempt(claim.job, attempt, SETTINGS, attempt.finished_at, 0.0)


def settle(store: Store, settlements: Sequence[tuple[Claim, Job]]) -> None:
    """Settle claims at once, waiting for the disk."""
    while settlements:
        settlement = store.queue.begin_settle(settlements)
        settlement.sync()
        settlement.finish()
        settlements = [each for each in settlements if each[0] in settlement.left]


def decide(job: Job, attempt: Attempt) -> Job:
    """Decide about a lost attempt as a worker does, on the tests' clock."""
    attempt = attempt._replace(started_at=NOON, finished_at=NOON)
    return after_attempt(job, attempt, SETTINGS, NOON, 0.0)


def claim_next(store: Store, now: datetime, worker: str = "") -> Claim | None:
    """Claim the next job for one worker; return None where none is due."""
    claims = store.queue.claim(now, [worker])
    return claims[0] if claims else None


def claimed(store: Store, now: datetime = LATER) -> Claim:
    """Return the claim of the next job, which must be there."""
    claim = claim_next(store, now)
    assert claim is not None
    return claim


def drain(store: Store, now: datetime = LATER) -> list[str]:
    """Claim and complete what is due, one after the other; return the ids in that order."""
    ids = []
    while (claim := claim_next(store, now)) is not None:
        ids.append(claim.job.id)
        settle(store, [ended(claim)])
    return ids


def named_parents(store: Store) -> set[str]:
    """Return the ids of all jobs that blocked jobs wait for, or have waited for."""
    parents = store.purging.named_parents()
    for _ in parents.look():
        pass
    return set(parents.ids)


def fail_for_good(store: Store) -> None:
    """Run the next job until it is dead."""
    for _ in range(100):
        claim, job = ended(claimed(store), Outcome.FAILED)
        settle(store, [(claim, job)])
        if job.state == "dead":
            return
    raise AssertionError("the job does not die")

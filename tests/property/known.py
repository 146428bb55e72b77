"""What is known of one job, and what follows for it when its attempt ends."""

import re
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from queuectl.config import Settings
from queuectl.job import DEFAULT_PRIORITY, Job, Outcome, State

ENDS = (State.COMPLETED, State.DEAD, State.CANCELLED)
_BACKOFF_MAX_SECONDS = Settings().backoff_max
_PROOF = timedelta(seconds=10)  # what was written so much later than now was by another clock
AT_ONCE = timedelta(seconds=2)
_NUMBERS = re.compile("(-[0-9]+)+$")  # what an id is given that was taken


@dataclass(frozen=True, kw_only=True)
class Known:
    """Say what is known of one job, wherever it is; what is not compared cannot be seen.

    ``run_at`` is None for a job that is due since it was put there by a hand. ``parent`` is the one
    under which a blocked job waits, ``attempt`` the one that runs. One that is ``ahead`` has been
    recorded while it still lies where it ran; ``then`` is where it goes. ``written_at`` is when its
    document was written, of one that can still run. ``document`` holds the priority and due time
    that are written down, which a hand or a clock may have overruled. ``wanted`` is the id under
    which one that a hand has put there wants to be adopted; until then its own begins with a plus,
    since there may be another of the same name.
    """

    id: str
    state: State
    command: str = ""
    priority: int = DEFAULT_PRIORITY
    run_at: datetime | None = None
    attempts: int = 0
    max_retries: int = 0
    outcomes: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    after_any: tuple[str, ...] = ()
    parent: str | None = None
    attempt: int | None = None
    torn: bool = False
    written_at: datetime | None = None
    then: State = field(default=State.PENDING, compare=False)
    document: tuple[int, datetime | None] = field(default=(0, None), compare=False)
    wanted: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        """Forget when it was written, where nothing comes of that."""
        if self.state in ENDS or self.dropped:
            object.__setattr__(self, "written_at", None)

    @property
    def ahead(self) -> bool:
        """Return whether the attempt that lies where it ran has been recorded."""
        return self.attempt is not None and len(self.outcomes) >= self.attempt

    @property
    def dropped(self) -> bool:
        """Return whether it was put there by a hand, and waits to be adopted."""
        return self.state is State.PENDING and self.run_at is None

    def is_rival_of(self, other: "Known") -> bool:
        """Tell whether two that wait to be adopted may want one id, plain or with a number."""
        mine, others = (
            {_NUMBERS.sub("", each) for each in (known.id[1:], known.wanted) if each}
            for known in (self, other)
        )
        return self.id != other.id and bool(mine & others)

    @property
    def filed(self) -> str:
        """Return what ends its name, which sorts a-2 before a, since a dot comes after a dash."""
        return f"{self.id}.json"

    @property
    def order(self) -> tuple[int, datetime, str]:
        """Return what jobs that are due are sorted by."""
        assert self.run_at is not None
        return self.priority, self.run_at, self.filed

    def is_due(self, now: datetime) -> bool:
        """Tell whether it can be claimed."""
        return self.state is State.PENDING and (self.run_at is None or self.run_at <= now)

    @property
    def waits(self) -> timedelta | None:
        """Return how long it was to wait when it was written down; None if its time was past."""
        if self.run_at is None or self.written_at is None or self.run_at < self.written_at:
            return None
        return self.run_at - self.written_at

    def is_put_off(self, now: datetime) -> bool:
        """Tell whether it waits for no other reason than that the clock was set back since.

        That is so where nobody asked for the wait: it was to run at once, or after a failure.
        """
        return (
            self.state is State.PENDING
            and self.waits is not None
            and self.written_at is not None
            and self.written_at - _PROOF > now
            and (self.attempts > 0 or self.waits <= AT_ONCE)
        )


def known_job(job: Job) -> Known:
    """Return what is known of a job as it is written down."""
    return Known(
        id=job.id,
        state=job.state,
        command=job.command,
        priority=job.priority,
        run_at=job.run_at,
        attempts=job.attempts,
        max_retries=job.max_retries,
        outcomes=tuple(attempt.outcome for attempt in job.history),
        after=job.after,
        after_any=job.after_any,
        written_at=job.updated_at,
        document=(job.priority, job.run_at),
    )


def recorded(known: Known, outcome: Outcome, now: datetime) -> Known:
    """Return a running job whose attempt has been recorded, and not moved on."""
    known = replace(known, outcomes=(*known.outcomes, outcome), written_at=now)
    if outcome is Outcome.SUCCEEDED:
        known = replace(known, then=State.COMPLETED)
    elif outcome is Outcome.CANCELLED:
        known = replace(known, then=State.CANCELLED)
    else:
        attempts = known.attempts + 1
        known = replace(known, attempts=attempts, then=State.DEAD)
        if attempts < known.max_retries:
            wait = timedelta(seconds=min(2.0**attempts, _BACKOFF_MAX_SECONDS))
            known = replace(known, then=State.PENDING, run_at=now + wait)
    return replace(known, document=(known.priority, known.run_at))


def claimed(known: Known) -> Known:
    """Return a job that runs: its document is as it was."""
    priority, run_at = known.document
    attempt = len(known.outcomes) + 1
    return replace(known, state=State.PROCESSING, attempt=attempt, priority=priority, run_at=run_at)


Jobs = dict[str, Known]


Place = tuple[int, datetime, str]


def place_of(known: Known | None) -> Place | None:
    """Return the place of a job in the order, None for no job."""
    return None if known is None else known.order

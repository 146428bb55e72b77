"""The values that a store takes and returns."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

from queuectl.job import Attempt, Job, Outcome, State


class Entry(NamedTuple):
    """What a store knows of a job without reading its document.

    ``changed_at`` is when it came to its state (None if that is not known cheaply);
    ``run_at`` and ``priority`` are those of a pending job; ``attempt`` that of one in progress;
    ``parent`` is a job that a blocked one waits for, and ``parent_state`` how that has ended.
    ``token`` is what the store itself needs to find the document again.
    """

    id: str
    state: State
    priority: int | None = None
    run_at: datetime | None = None
    attempt: int | None = None
    parent: str | None = None
    parent_state: State | None = None
    changed_at: datetime | None = None
    token: str = ""


class Counts(NamedTuple):
    """How many jobs are in each state; the instants are of pending jobs, None if there are none.

    ``oldest_due`` is when the due job that has waited longest became due, ``next_due`` when the
    first job that is not due yet will be.
    """

    by_state: dict[State, int]
    due: int = 0
    oldest_due: datetime | None = None
    next_due: datetime | None = None
    unreadable: int = 0


class WorkerRecord(NamedTuple):
    """A live worker: its name, and what it has been running since when (job None: it is idle).

    ``settled`` counts the attempts that it has settled.
    ``pool`` is the same for all workers of a pool, and for no others.
    """

    name: str
    pid: int
    host: str
    since: datetime
    job: str | None = None
    attempt: int | None = None
    settled: int = 0
    pool: str = ""


# The lengths, in seconds, up to which attempts are counted apart.
LENGTH_BOUNDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)


class Recent(NamedTuple):
    """Counts of attempts that ended lately, in slots of ten seconds, the oldest first.

    ``slot`` is the number of the newest; the first began in 1970. A reader leaves out slots
    that are too old by its own clock, so that counts expire although nobody writes.
    """

    slot: int = 0
    counts: tuple[int, ...] = (0,) * 7


class Tally(NamedTuple):
    """Counts of attempts by outcome and by length.

    An outcome that is only a text is one that a newer version knows.
    ``by_length`` holds, for each of LENGTH_BOUNDS, the attempts that took that long at most and
    longer than the bound before, and last the attempts that took longer; ``seconds`` is the sum.
    """

    by_outcome: Mapping[Outcome | str, int] = MappingProxyType({})
    by_length: tuple[int, ...] = (0,) * (len(LENGTH_BOUNDS) + 1)
    seconds: float = 0.0
    recent: Recent = Recent()


class Recovered(NamedTuple):
    """One job that belonged to nobody, as it is after its recovery."""

    job: Job
    attempt: int
    lost: bool


class RecoveryReport(NamedTuple):
    """The result of a recovery; ``running`` counts the claims that somebody holds.

    ``unowned`` counts claims held by a command whose worker is gone, and claims that could not be
    settled, for the reasons in ``problems``. ``overdue`` are attempts, by job and number, whose
    commands outlived their timeout as well and got SIGTERM just now.
    """

    recovered: Sequence[Recovered] = ()
    running: int = 0
    unowned: int = 0
    overdue: Sequence[tuple[str, int]] = ()
    problems: Sequence[str] = ()


# Called with a job that does not end soon after its cancellation, and its worker if it is known.
Slow = Callable[[str, WorkerRecord | None], object]
# What follows an attempt that was cut off: takes the job and the attempt, returns the new job.
Decide = Callable[[Job, Attempt], Job]
# Called with how many more of the jobs are added.
Progress = Callable[[int], None]
# Called with where the jobs are that are waited for.
Looked = Callable[[Collection[Entry]], object]

"""A job, its attempts and its id, as values."""

import os
import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from queuectl.errors import BadId, shorten

MAX_PRIORITY = 9
DEFAULT_PRIORITY = 5
MAX_MAX_RETRIES = 1_000_000
# Linux lets one argument of a program be 32 pages long, its final NUL included (MAX_ARG_STRLEN).
MAX_COMMAND_BYTES = 131_071
# All of a program's environment may be three quarters of 8 MiB at most (_STK_LIM).
MAX_ENVIRONMENT_BYTES = 6 * 1024 * 1024
MAX_PATH_BYTES = 4096
# How many attempts a history keeps: the first show how it began, the last how it is now.
FIRST_ATTEMPTS = 10
LAST_ATTEMPTS = 40
# So that the next one, too, is a number of nine digits, as the names of running jobs and logs hold.
MAX_ATTEMPT = 999_999_998

ID_PATTERN = "[A-Za-z0-9_][A-Za-z0-9._-]{0,99}"
_ID = re.compile(ID_PATTERN)
_OUTCOME = re.compile("[a-z_]{1,30}")
_ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # no i, l, o, u: they are misread
NOTHING: Mapping[str, Any] = MappingProxyType({})


class State(StrEnum):
    """Where a job is; each is a subdirectory of the store."""

    BLOCKED = "blocked"
    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    DEAD = "dead"
    CANCELLED = "cancelled"


WAITING = (State.BLOCKED, State.PENDING)
FINISHED = (State.COMPLETED, State.DEAD, State.CANCELLED)
# The order in which a job moves: looking at one state after another finds it (rule 7).
IN_ORDER = (State.BLOCKED, State.PENDING, State.PROCESSING, *FINISHED)


class Outcome(StrEnum):
    """How an attempt ended. An older version keeps one that it does not know: see outcome_from."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    NOT_FOUND = "not_found"
    NOT_STARTED = "not_started"
    SIGNALLED = "signalled"
    TIMED_OUT = "timed_out"
    LOST = "lost"
    CANCELLED = "cancelled"


class Meaning(NamedTuple):
    """What an outcome means.

    ``shell_code`` is the exit status that a shell would report, None for the command's own.
    ``state`` is the one that the job ends in; None: the attempt counts as failed, and the policy
    decides. With ``cause_says_it`` the exit code or the signal alone serves in a table.
    """

    label: str
    shell_code: int | None = None
    state: State | None = None
    cause_says_it: bool = False


OUTCOMES = {
    Outcome.SUCCEEDED: Meaning("succeeded", 0, State.COMPLETED),
    Outcome.FAILED: Meaning("failed", cause_says_it=True),
    Outcome.NOT_FOUND: Meaning("not found"),
    Outcome.NOT_STARTED: Meaning("not started", 126),
    Outcome.SIGNALLED: Meaning("killed", cause_says_it=True),
    Outcome.TIMED_OUT: Meaning("timed out", 124),  # as timeout(1) does
    Outcome.LOST: Meaning("lost", 1),
    Outcome.CANCELLED: Meaning("cancelled", 1, State.CANCELLED),
}


def outcome_from(text: str) -> Outcome | str:
    """Return an outcome, or the name of one that a newer version may know. Raises: ValueError."""
    if text in OUTCOMES:
        return Outcome(text)
    if _OUTCOME.fullmatch(text):
        return text
    raise ValueError(f"{shorten(text)} is no outcome")


class Attempt(NamedTuple):
    """One run of a job's command.

    Units: duration_seconds is a length on the monotonic clock, None if nobody saw the end.
    An outcome that is only a text is one that a newer version knows.
    """

    number: int
    worker: str
    started_at: datetime
    finished_at: datetime
    duration_seconds: float | None
    exit_code: int | None
    signal: int | None
    outcome: Outcome | str
    log: str
    extra: Mapping[str, Any] = NOTHING

    @property
    def meaning(self) -> Meaning:
        """Return what the outcome means; one that is not known counted as a failure."""
        known = OUTCOMES.get(self.outcome)  # type: ignore[call-overload]
        return known or Meaning(self.outcome.replace("_", " "))


def describe(attempt: Attempt, *, short: bool = False) -> str:
    """Return how an attempt ended: ``failed (exit code 1)``, or, for a table, ``exit 1``."""
    label = attempt.meaning.label
    if attempt.signal is not None:
        status = _signal_name(attempt.signal)
    elif attempt.exit_code is not None and attempt.outcome is not Outcome.SUCCEEDED:
        status = f"exit {attempt.exit_code}" if short else f"exit code {attempt.exit_code}"
    else:
        return label
    if short:
        return status if attempt.meaning.cause_says_it else label
    return f"{label} ({status})"


def _signal_name(number: int) -> str:
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # a real-time signal has no name


def shell_code(attempt: Attempt) -> int:
    """Return the exit status that a shell would report of an attempt: 128+N for signal N."""
    code = attempt.meaning.shell_code
    if code is None:
        code = (attempt.exit_code if attempt.signal is None else 128 + attempt.signal) or 1
    return code


def log_name(job_id: str, attempt: int) -> str:
    """Return the file name of an attempt's log."""
    return f"{job_id}.{attempt}.log"


class Job(NamedTuple):
    """A job; a change returns a new one.

    ``state`` is what was last recorded; the store says where the job is.
    ``retry_on`` and ``no_retry_on`` are exit codes as ``codes`` reads them, None for no such rule.
    ``attempts`` counts the failed attempts since the last retry by a person. ``history`` holds
    those of the job's whole life, except ``history_omitted`` between the first and the last ones.
    Units: timeout_seconds of one attempt, None for no limit.
    """

    id: str
    command: str
    max_retries: int
    cwd: str
    created_at: datetime
    updated_at: datetime
    run_at: datetime
    state: State = State.PENDING
    priority: int = DEFAULT_PRIORITY
    attempts: int = 0
    timeout_seconds: float | None = None
    retry_on: str | None = None
    no_retry_on: str | None = None
    env: Mapping[str, str] = NOTHING
    after: tuple[str, ...] = ()
    after_any: tuple[str, ...] = ()
    history: tuple[Attempt, ...] = ()
    history_omitted: int = 0
    extra: Mapping[str, Any] = NOTHING

    def ended_attempt(
        self,
        number: int,
        outcome: Outcome,
        *,
        worker: str,
        started_at: datetime,
        finished_at: datetime,
        duration_seconds: float | None = None,
        exit_code: int | None = None,
        signal: int | None = None,
    ) -> Attempt:
        """Return the record of an attempt of this job that is over."""
        return Attempt(
            number, worker, started_at, finished_at, duration_seconds, exit_code, signal, outcome,
            log=log_name(self.id, number),
        )  # fmt: skip

    def with_attempt(self, attempt: Attempt, **changes: Any) -> "Job":
        """Return the job with one more attempt in its history, and other changes."""
        return self._replace(history=(*self.history, attempt), **changes).shortened()

    def shortened(self) -> "Job":
        """Return the job with a history that is not too long to be written again and again."""
        history = self.history
        if len(history) <= FIRST_ATTEMPTS + LAST_ATTEMPTS:
            return self
        kept = history[:FIRST_ATTEMPTS] + history[-LAST_ATTEMPTS:]
        omitted = self.history_omitted + len(history) - len(kept)
        return self._replace(history=kept, history_omitted=omitted)

    @property
    def parents(self) -> tuple[str, ...]:
        """Return the ids of all jobs that this one waits for, or has waited for."""
        return (*self.after, *self.after_any)

    @property
    def next_attempt(self) -> int:
        """Return the number of the next attempt, counted over the job's whole life."""
        return self.history[-1].number + 1 if self.history else 1


def new_id(now: datetime) -> str:
    """Return an id of 18 characters: 35 random bits, then the microsecond.

    Random bits come first, so that a few characters are a unique prefix. Each job of a batch has a
    microsecond of its own, so ids of one batch cannot collide; two that other processes make in the
    same microsecond collide once in 2**35 times, and the store refuses the second.
    """
    random_bits = int.from_bytes(os.urandom(5)) >> 5
    value = random_bits << 55 | int(now.timestamp() * 1_000_000)
    return "".join(_ID_ALPHABET[value >> shift & 31] for shift in range(85, -1, -5))


def is_id(text: str) -> bool:
    """Return whether a text can be the id of a job."""
    return _ID.fullmatch(text) is not None


def check_id(text: str) -> str:
    """Return an id unchanged. Raises: BadId."""
    if not is_id(text):
        raise BadId(
            f"{shorten(text)} is not an id; use 1 to 100 of A-Z a-z 0-9 . _ -,"
            " not starting with a dot or a dash"
        )
    return text

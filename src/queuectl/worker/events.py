"""The event log on stderr: one line for each thing that happens to a job, a worker or a pool."""

import math
import sys
from contextlib import redirect_stderr
from datetime import datetime
from io import StringIO

from queuectl.clock import format_duration, format_instant, utc_now
from queuectl.job import Job, State, describe
from queuectl.nonblocking import NonBlockingWriter
from queuectl.store.values import RecoveryReport
from queuectl.text import encoded, printable

_RETRY_SECONDS = 1.0
_MAX_REPORTED = 100  # of one kind: each may name another job


class EventLog:
    """The lines that one worker, or the supervisor, writes on stderr.

    Nothing depends on whether they arrive: lines that nobody reads are dropped and counted.
    """

    def __init__(self, name: str, writer: NonBlockingWriter, *, quiet: bool) -> None:
        """Write lines that begin with ``name``; only errors if ``quiet``.

        All logs of a process share the ``writer``, which counts what it has dropped.
        """
        self.name = name
        self.is_quiet = quiet
        self._writer = writer

    def event(self, text: str) -> None:
        """Log something that is no error."""
        if not self.is_quiet:
            self.error(text)

    def error(self, text: str) -> None:
        """Log an error."""
        self._write(self._line(printable(text)))  # the name of a directory may hold anything

    def exception(self) -> None:
        """Log the exception that is being handled, with its traceback."""
        # Python itself formats it, which needs no descriptor to import anything.
        with redirect_stderr(StringIO()) as text:
            sys.excepthook(*sys.exc_info())
        self._write(text.getvalue())

    def job_event(self, job_id: str, attempt: int, text: str) -> None:
        """Log something that happened to an attempt of a job."""
        if not self.is_quiet:
            self.job_error(job_id, attempt, text)

    def job_error(self, job_id: str, attempt: int, text: str) -> None:
        """Log an error about an attempt of a job."""
        self.error(f"{job_id} attempt {attempt} {text}")

    def attempt_ended(self, job: Job, now: datetime) -> None:
        """Log how the last attempt of a job ended, and what follows."""
        if not self.is_quiet:
            attempt = job.history[-1]
            length = format_duration(attempt.duration_seconds or 0.0)
            text = f"{describe(attempt)} after {length}{_next_state_text(job, now)}"
            self.job_error(job.id, attempt.number, text)

    def recovery(self, report: RecoveryReport) -> None:
        """Log which jobs without a worker were recovered, and which commands were ended."""
        for job_id, attempt in report.overdue:
            self.job_event(job_id, attempt, "outlived its worker and its timeout; ending it")
        for found in report.recovered:
            how = "lost: its worker died" if found.lost else "recovered: it ended before its worker"
            text = how + _next_state_text(found.job, utc_now())
            self.job_event(found.job.id, found.attempt, text)

    def report_dropped(self) -> float:
        """Log how many lines were dropped, if any; return in how many seconds to try again."""
        return math.inf if self._writer.report_dropped(self._dropped_line) else _RETRY_SECONDS

    def _line(self, text: str) -> str:
        return f"{format_instant(utc_now())[:-4]}Z {self.name} {text}\n"

    def _dropped_line(self, count: int) -> bytes:
        were = "1 line was" if count == 1 else f"{count} lines were"
        return self._line(f"{were} dropped: nobody read them, or the disk was full").encode()

    def _write(self, text: str) -> None:
        """Write by a single call: others write to the same place."""
        self._writer.write(encoded(text), self._dropped_line)


class ReportedProblems:
    """The problems that last, each logged once until it is resolved."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._reported: dict[str, set[str]] = {}

    def report(self, kind: str, text: str) -> None:
        """Log a problem, unless it was logged already, or a hundred others of its kind were."""
        reported = self._reported.setdefault(kind, set())
        if text not in reported and len(reported) < _MAX_REPORTED:
            reported.add(text)
            self._log.error(text)
            if len(reported) == _MAX_REPORTED:
                self._log.error("not logging more of this kind until it is resolved")

    def has(self, kind: str) -> bool:
        """Return whether a problem of this kind was reported and is not resolved."""
        return kind in self._reported

    def resolve(self, kind: str) -> None:
        """Note that a kind of problem is gone, and log when no other is left.

        A worker that can settle again, say, may still be unable to claim a job.
        """
        if self._reported.pop(kind, None) is not None and not self._reported:
            self._log.error("recovered")


def _next_state_text(job: Job, now: datetime) -> str:
    if job.state is State.COMPLETED:
        return ""
    if job.state is State.PENDING:
        wait = format_duration(max(0.0, (job.run_at - now).total_seconds()))
        return f"; retrying in {wait} (attempt {job.attempts} of {job.max_retries})"
    return f"; now {job.state}"

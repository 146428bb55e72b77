"""Print the output of a job."""

import os
import sys
from time import monotonic, sleep
from typing import TYPE_CHECKING

import click

from queuectl.cli.app import App, examples, load_all, pass_app
from queuectl.cli.params import id_argument, whole
from queuectl.errors import JobNotFound, LogNotFound, StoreBusy
from queuectl.job import FINISHED, WAITING, Job
from queuectl.query import find_job
from queuectl.store.logs import LogDir, logs_of
from queuectl.store.protocol import Store

if TYPE_CHECKING:
    from queuectl.cli.replay import Replay

_BLOCK = 65536
_POLL_SECONDS = 0.2


@click.command(
    epilog=examples(
        "queuectl logs sleepy-job",
        "queuectl logs sleepy-job --follow --tail 20",
        "queuectl logs flaky-1 --attempt 2 | grep -i error",
    )
)
@id_argument()
@click.option("--attempt", type=whole(1), metavar="N", help="Attempt N  [default: the last]")
@click.option("--follow", "-f", is_flag=True, help="Keep printing while the job runs.")
@click.option("--tail", type=whole(0), metavar="N", help="Start at the last N lines.")
@click.option("--raw", is_flag=True, help="Do not escape control characters on a terminal.")
@pass_app
def logs(
    app: App, *, job_id: str, attempt: int | None, follow: bool, tail: int | None, raw: bool
) -> None:
    r"""Print the output of a job: stdout and stderr of its last attempt, as they were written.

    The beginning of an ID is enough if no other ID starts with it. --follow waits for the job to
    start, continues with the next attempt after a failed one, and ends when the job has finished,
    or with --attempt when that attempt has. On a terminal, colours and styles are kept (not with
    NO_COLOR), a line that was overwritten, as by a progress bar, shows its last state, and other
    control characters are escaped, as \x1b.
    """
    store = app.open()
    job = find_job(store, job_id)
    log_dir = logs_of(store)
    printer = _Printer(log_dir, _output(raw=raw), tail)
    number = attempt or _last_attempt(log_dir, job)
    if follow:
        from queuectl.cli.waiting import refuse_inside

        if os.environ.get("QUEUECTL_JOB_ID") == job.id:
            refuse_inside(store, "and would write into the log that it follows")
        load_all()
        _follow(store, job, number, printer, only_this=attempt is not None)
    elif not printer.copy(job, number):
        raise _no_log(job, number)
    printer.end()


def _last_attempt(log_dir: LogDir, job: Job) -> int:
    """Return the number of the last attempt with a log, also if it is not in the history yet."""
    fd = _open_log(log_dir, job, job.next_attempt)
    if fd is None:
        return job.history[-1].number if job.history else job.next_attempt
    os.close(fd)
    return job.next_attempt


def _open_log(log_dir: LogDir, job: Job, number: int) -> int | None:
    # A recorded attempt is this job's, whatever the clock said.
    created_at = None if number < job.next_attempt else job.created_at
    return log_dir.open_for_reading(job.id, number, created_at=created_at)


def _no_log(job: Job, number: int) -> LogNotFound:
    if number < job.next_attempt:
        return LogNotFound(f"the log of attempt {number} of job {job.id} is gone")
    hint = "" if job.state in FINISHED else "; --follow waits for it"
    return LogNotFound(f"job {job.id} is {job.state} and has no log of attempt {number}{hint}")


def _follow(store: Store, job: Job, number: int, printer: "_Printer", *, only_this: bool) -> None:
    """Print the log of an attempt and, unless ``only_this``, of later ones, as they grow."""
    from queuectl.cli.waiting import Notices

    notices = Notices(store)
    look_at = 0.0
    while True:
        # The job is read before its log: when an attempt is over, its log is complete.
        if (begin := monotonic()) >= look_at:
            try:
                job = store.get(job.id)
            except JobNotFound:  # purged meanwhile
                return
            except StoreBusy:
                pass  # the next look may find it
            # In a long queue a job takes a while to find: spend a tenth of the time on it at most.
            look_at = begin + 11 * (monotonic() - begin)
        has_finished = job.state in FINISHED
        is_over = number < job.next_attempt
        has_log = printer.copy(job, number)
        is_last = has_finished and number + 1 >= job.next_attempt
        if (has_finished or is_over) if only_this else is_last:
            if not has_log:
                raise _no_log(job, number)
            return
        if is_over:
            printer.end()
            number += 1
        else:
            if not has_log and job.state in WAITING:
                notices.look_for(job.id)
            sleep(_POLL_SECONDS)


class _Printer:
    """Prints the logs of attempts, one after the other, as they grow."""

    def __init__(self, log_dir: LogDir, output: "Replay | _Plain", tail: int | None) -> None:
        self._log_dir = log_dir
        self._output = output
        self._tail = tail
        self._fd: int | None = None
        self._offset = 0

    def copy(self, job: Job, number: int) -> bool:
        """Print the new part of an attempt's log; return whether there is a log."""
        if self._fd is None:
            self._fd = _open_log(self._log_dir, job, number)
            if self._fd is None:
                return False
            self._offset = 0 if self._tail is None else _tail_offset(self._fd, self._tail)
            self._tail = None
            self._output.begin()
        size = os.fstat(self._fd).st_size  # no more than there is now: it may grow for ever
        if size < self._offset:  # emptied by hand: start again, as tail -F does
            self._offset = 0
            self._output.begin()
        while self._offset < size:
            data = os.pread(self._fd, min(_BLOCK, size - self._offset), self._offset)
            if not data:
                break
            self._output.feed(data)
            self._offset += len(data)
        self._output.draw()
        return True

    def end(self) -> None:
        """Print all that is left at the end of a log, and close it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
            self._output.finish()


def _tail_offset(fd: int, lines: int) -> int:
    """Return the offset of the last lines of a file, reading backwards."""
    end = os.fstat(fd).st_size
    if lines == 0 or end == 0:
        return end
    newlines = lines + (os.pread(fd, 1, end - 1) == b"\n")
    while end > 0:
        start = max(0, end - _BLOCK)
        block = os.pread(fd, end - start, start)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            newlines -= 1
            if newlines == 0:
                return start + at + 1
        end = start
    return 0


class _Plain:
    """Output to stdout, byte for byte."""

    def feed(self, data: bytes) -> None:
        sys.stdout.buffer.write(data)

    def draw(self) -> None:
        sys.stdout.flush()

    finish = draw

    def begin(self) -> None:
        """Start another log behind the last one."""


def _output(*, raw: bool) -> "Replay | _Plain":
    """Return an output to stdout: bytes as they are or, on a terminal, as they were meant."""
    if raw or not sys.stdout.isatty():
        return _Plain()
    from queuectl.cli.replay import replay_on

    return replay_on(sys.stdout)

"""Print what a job wrote."""

import os
import sys
from collections.abc import Callable
from functools import partial
from time import monotonic, sleep
from typing import Protocol

import click

from queuectl.cli.app import App, examples, load_all, pass_app
from queuectl.cli.params import id_argument, whole
from queuectl.errors import JobNotFound, LogNotFound, StoreBusy, StoreError
from queuectl.job import FINISHED, WAITING, Job
from queuectl.logs import LogDir
from queuectl.query import find_job
from queuectl.store.base import Store

_BLOCK = 65536
POLL_SECONDS = 0.2


@click.command(
    epilog=examples(
        "queuectl logs sleepy-job",
        "queuectl logs sleepy-job --follow --tail 20",
        "queuectl logs flaky-1 --attempt 2 | grep -i error",
    )
)
@id_argument()
@click.option(
    "--attempt",
    type=whole(1),
    metavar="N",
    help="The output of attempt N; by default that of the last.",
)
@click.option("--follow", "-f", is_flag=True, help="Go on printing while the job writes.")
@click.option("--tail", type=whole(0), metavar="N", help="Only the last N lines, then go on.")
@click.option("--raw", is_flag=True, help="Let control characters through to a terminal.")
@pass_app
def logs(
    app: App, *, job_id: str, attempt: int | None, follow: bool, tail: int | None, raw: bool
) -> None:
    r"""Print what a job wrote: stdout and stderr of its last attempt, as they came.

    The beginning of an ID is enough where no other ID starts with it. With --follow, it waits for
    the job to start, goes on with the next attempt where one fails, and ends when the job is
    finished; with --attempt as well, when that attempt is. On a terminal, colours and styles are
    kept (not with NO_COLOR), a line that was written over, as progress bars do, shows its last
    state, and other control characters are shown as \x1b and the like.
    """
    store = app.open()
    job = find_job(store, job_id)
    log_dir = LogDir.of(store.location)
    output = _output(raw=raw)
    open_log = partial(_Log.open, log_dir, output)
    number = attempt or _last_attempt(log_dir, job)
    if follow:
        if os.environ.get("QUEUECTL_JOB_ID") == job.id:
            from queuectl.cli.inside import refuse_inside

            refuse_inside(store, "and would write into the log that it follows")
        load_all()
        _follow(store, job, number, open_log, output, tail=tail, only_this=attempt is not None)
    else:
        log = open_log(job, number, tail)
        if log is None:
            raise _no_log(job, number)
        log.copy()
        log.close()
        output.finish()


def _last_attempt(log_dir: LogDir, job: Job) -> int:
    """Return the number of the attempt that wrote last, or will be the first to write.

    The attempt that is not yet in the history has a log where it runs, or was given back.
    """
    fd = _open_log(log_dir, job, job.next_attempt)
    if fd is None:
        return job.history[-1].number if job.history else job.next_attempt
    os.close(fd)
    return job.next_attempt


def _open_log(log_dir: LogDir, job: Job, number: int) -> int | None:
    # What is recorded was run by this job, whatever the clock said.
    created_at = None if number < job.next_attempt else job.created_at
    return log_dir.open_for_reading(job.id, number, created_at=created_at)


def _no_log(job: Job, number: int) -> LogNotFound:
    if number < job.next_attempt:
        return LogNotFound(f"the log of attempt {number} of job {job.id} is gone")
    hint = "" if job.state in FINISHED else "; --follow waits for it"
    return LogNotFound(f"job {job.id} is {job.state} and has no log of attempt {number}{hint}")


def _follow(
    store: Store,
    job: Job,
    number: int,
    open_log: "Callable[[Job, int, int | None], _Log | None]",
    output: "_Output",
    *,
    tail: int | None,
    only_this: bool,
) -> None:
    """Copy the log of an attempt, and (but for ``only_this``) of those after it, as they grow."""
    from queuectl.cli.notices import Notices

    notices = Notices(store)
    log: _Log | None = None
    look_at = 0.0
    while True:
        # The job is looked at before its log: once an attempt is over, its log is whole.
        if (begin := monotonic()) >= look_at:
            try:
                job = store.get(job.id)
            except JobNotFound:  # purged meanwhile
                if log is not None:
                    log.close()
                return
            except StoreBusy:
                pass  # the next look may tell
            # In a long queue a job takes a while to find: spend a tenth of the time on it at most.
            look_at = begin + 11 * (monotonic() - begin)
        finished = job.state in FINISHED
        over = number < job.next_attempt
        log = log or open_log(job, number, tail)
        if log is not None:
            log.copy()
            output.draw()
            tail = None
        if (finished or over) if only_this else (finished and number + 1 >= job.next_attempt):
            if log is None:
                raise _no_log(job, number)
            log.close()
            output.finish()
            return
        if over and not only_this:
            if log is not None:
                log.close()
                output.finish()
                output.begin()
            number, log = number + 1, None
        else:
            if log is None and job.state in WAITING:
                notices.look_for(job.id)
            sleep(POLL_SECONDS)


class _Log:
    """Copy one attempt's log as it grows."""

    def __init__(self, fd: int, offset: int, output: "_Output") -> None:
        self._fd = fd
        self._offset = offset
        self._output = output

    @classmethod
    def open(
        cls,
        log_dir: LogDir,
        output: "_Output",
        job: Job,
        number: int,
        tail: int | None,
    ) -> "_Log | None":
        """Open a log at its start, or at its last ``tail`` lines; None where there is none."""
        fd = _open_log(log_dir, job, number)
        if fd is None:
            return None
        return cls(fd, 0 if tail is None else _tail_offset(fd, tail), output)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def copy(self) -> None:
        """Write what has come since the last time; not more than is there now, it may grow."""
        size = os.fstat(self._fd).st_size
        if size < self._offset:  # emptied by hand: start again, as tail -F does
            self._offset = 0
            self._output.begin()
        while self._offset < size:
            data = os.pread(self._fd, min(_BLOCK, size - self._offset), self._offset)
            if not data:
                break
            self._output.feed(data)
            self._offset += len(data)


def _tail_offset(fd: int, lines: int) -> int:
    """Return where the last lines of a file begin; reads backwards, no more than it has to."""
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


class _Output(Protocol):
    """Where a log is printed."""

    def feed(self, data: bytes) -> None:
        """Print what has come."""

    def draw(self) -> None:
        """Print what has come of a line that has not ended."""

    def finish(self) -> None:
        """Print what is left, there being no more to come."""

    def begin(self) -> None:
        """Begin another log."""


class _AsItCame:
    """What prints a log byte for byte."""

    def feed(self, data: bytes) -> None:
        """Print what has come; it may wait for more until ``draw``."""
        sys.stdout.buffer.write(data)

    def draw(self) -> None:
        """Print what was left waiting."""
        sys.stdout.flush()

    finish = draw

    def begin(self) -> None:
        """Go on just behind the log before."""


def _output(*, raw: bool) -> _Output:
    """Return what prints to stdout: bytes as they are, or as a terminal would have shown them."""
    if sys.stdout is None:
        raise StoreError("stdout is closed: open it, or send it to /dev/null")
    if raw or not sys.stdout.isatty():
        return _AsItCame()
    from queuectl.cli.replay import replay_on

    return replay_on(sys.stdout)

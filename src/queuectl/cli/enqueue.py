"""Add jobs: one from the words of the command line, or a batch from the lines of a file."""

import os
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO, cast

import click

from queuectl.cli.common import (
    DURATION,
    DURATION_OR_ZERO,
    INSTANT,
    App,
    Whole,
    complete_ids,
    echo,
    examples,
    pass_app,
)
from queuectl.clock import utc_now
from queuectl.codes import check_codes
from queuectl.errors import (
    BadDocument,
    CircularWait,
    DuplicateId,
    StoreError,
    UnknownParent,
    UsageError,
)
from queuectl.job import MAX_DOCUMENT_BYTES, MAX_MAX_RETRIES, MAX_PRIORITY, Job, check_env
from queuectl.submit import Options, Submitter

if TYPE_CHECKING:
    from queuectl.store.base import Adder, Store
    from queuectl.when import When

_IDS_AT_ONCE = 1000
_PAST_SECONDS = 1.0


class _Codes(click.ParamType[str]):
    """Take ``1,64-78``."""

    name = "codes"

    def __init__(self, rule: str) -> None:
        self.rule = rule

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return check_codes(value, self.rule)
        except UsageError as error:
            self.fail(f"{value!r} {error}", param, ctx)


class _Variable(click.ParamType[str]):
    """Take ``NAME=VALUE``; several in one variable of the environment stand on a line each."""

    name = "variable"

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        return [line for line in rv.split("\n") if line.strip()]


class _BatchFile(click.File):
    """Take the path of a file, or - for stdin."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value != "-":
            return super().convert(value, param, ctx)
        from queuectl.cli.stdin import open_stdin

        return open_stdin("the batch")


class _Enqueue(click.Command):
    """Say how a word that looks like an option is given to the job's command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.possibilities:
                raise
            raise click.NoSuchOption(
                error.option_name,
                f"No such option {error.option_name!r}; if it belongs to the command, quote the"
                " command or put -- before it.",
                ctx=ctx,
            ) from error


def _environment(
    ctx: click.Context, param: click.Parameter, values: Sequence[str]
) -> dict[str, str]:
    env: dict[str, str] = {}
    for each in values:
        name, separator, value = each.partition("=")
        if not separator:
            if name not in os.environ:
                raise click.BadParameter(f"{name} is not set; write NAME=VALUE", ctx, param)
            value = os.environ[name]
        try:
            check_env(name, value)
        except BadDocument as error:
            raise click.BadParameter(str(error), ctx, param) from error
        env[name] = value
    return env


@click.command(
    cls=_Enqueue,
    epilog=examples(
        """queuectl enqueue "sleep 3; echo 'job done'" --id sleepy-job""",
        """queuectl enqueue --id sync -- rsync -a "my files/" backup:""",
        """queuectl enqueue '{"id": "job1", "command": "sleep 2"}'""",
        "queuectl enqueue --batch jobs.txt --delay 1h30m",
        "queuectl enqueue - < script.sh",
    ),
)
@click.option("--id", "job_id", metavar="ID", help="The job's id; one is made where none is given.")
@click.option(
    "--priority",
    metavar=f"0-{MAX_PRIORITY}",
    type=Whole(0, MAX_PRIORITY),
    help="0 runs first.",
)
@click.option("--delay", metavar="D", type=DURATION_OR_ZERO, help="Run it after this long.")
@click.option(
    "--run-at",
    metavar="T",
    type=INSTANT,
    help="Run it at this local time: 02:30, 2pm, 'tomorrow 06:00', 'sat 03:00',"
    " '2026-12-01 02:30', 'now + 2 hours', or ISO 8601.",
)
@click.option(
    "--max-retries",
    metavar="N",
    type=Whole(0, MAX_MAX_RETRIES),
    help="How many times it runs at most.",
)
@click.option(
    "--timeout", metavar="D", type=DURATION, help="End an attempt that takes longer: 90s, 15m, 2h."
)
@click.option(
    "--retry-on",
    metavar="CODES",
    type=_Codes("retry_on"),
    help="Retry only after these exit codes: 75 or 1,64-78, or after any.",
)
@click.option(
    "--no-retry-on",
    metavar="CODES",
    type=_Codes("no_retry_on"),
    help="Give up at once after these exit codes, or none.",
)
@click.option(
    "--cwd",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="Where it runs; by default here.",
)
@click.option(
    "--env",
    metavar="NAME[=VALUE]",
    type=_Variable(),
    multiple=True,
    callback=_environment,
    help="Set a variable, by default to its value now; can be repeated.",
)
@click.option(
    "--after",
    metavar="ID",
    multiple=True,
    shell_complete=complete_ids(),
    help="Run it when this job has completed; can be repeated.",
)
@click.option(
    "--after-any",
    metavar="ID",
    multiple=True,
    shell_complete=complete_ids(),
    help="Run it when this job has ended, even dead or cancelled; can be repeated.",
)
@click.option(
    "--if-exists",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="What to do where a job has the id already.",
)
@click.option(
    "--batch",
    metavar="FILE|-",
    type=_BatchFile("rb"),
    help="Add a job for each line: a JSON object, or else a shell command. Lines that begin with #"
    " are comments; JSON may span lines, as list --json prints it.",
)
@click.argument("command", nargs=-1)
@pass_app
def enqueue(
    app: App,
    *,
    command: tuple[str, ...],
    job_id: str | None,
    priority: int | None,
    delay: float | None,
    run_at: "When | None",
    max_retries: int | None,
    timeout: float | None,
    retry_on: str | None,
    no_retry_on: str | None,
    cwd: str | None,
    env: dict[str, str],
    after: tuple[str, ...],
    after_any: tuple[str, ...],
    if_exists: str,
    batch: BinaryIO | None,
) -> None:
    """Add a job, or a batch of them, and print its id.

    COMMAND is one string for the shell, words that are quoted for it (put -- before them), or a
    JSON object with any of the keys id, command, priority, max_retries, timeout, retry_on,
    no_retry_on, cwd, env, after, after_any, run_at, and your own that begin with x_. A lone - reads
    the string, which may be a script of several lines, or the JSON object from stdin.
    """
    _check_usage(command, job_id, delay, run_at, batch)
    cwd = None if cwd is None else _absolute(cwd)
    options = Options(
        here=cwd or _here(),
        id=job_id,
        priority=priority,
        delay_seconds=delay,
        run_at=run_at.instant if run_at else None,
        max_retries=max_retries,
        timeout_seconds=timeout,
        cwd=cwd,
        env=env,
        retry_on=retry_on,
        no_retry_on=no_retry_on,
        after=after,
        after_any=after_any,
    )
    # A store is made only for jobs that are known to be good. To open it for more than plain jobs
    # loads twice as much.
    store = app.open() if job_id or after or after_any else None
    adder = store or app.open_to_add()
    now = utc_now()
    submitter = Submitter(options, adder.settings(), now)
    if batch is None:
        if command == ("-",):
            from queuectl.cli.stdin import read_command

            command = (read_command(),)
        submitter.one(command)
    else:
        # No more of a line than can be refused: what has no end of a line may have no end at all.
        submitter.batch(iter(lambda: batch.readline(MAX_DOCUMENT_BYTES + 1), b""))
    if submitter.jobs:
        if submitter.chosen or submitter.dependent:
            adder = store = store or app.open()
        adder.make()
        _add(adder, store, submitter, skip_existing=if_exists == "skip", is_batch=batch is not None)
        _tell_ignored(submitter)
        if run_at is not None:
            _tell_time(run_at, now, len(submitter.jobs))
        _print_ids(submitter.jobs)


def _check_usage(
    command: Sequence[str],
    job_id: str | None,
    delay: float | None,
    run_at: "When | None",
    batch: BinaryIO | None,
) -> None:
    if delay is not None and run_at is not None:
        raise click.UsageError("--delay and --run-at exclude each other.")
    if batch is None:
        if not command:
            raise click.UsageError("Missing command: give one, - for stdin, or --batch FILE.")
        if command[0] == "-" and len(command) > 1:
            raise click.UsageError("- reads the command from stdin, and takes no other words.")
    elif command:
        raise click.UsageError("--batch and a command exclude each other.")
    elif job_id is not None:
        raise click.UsageError("--id is for one job; in a batch, write it into each line.")


def _here() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError as error:
        raise click.UsageError("The current directory is gone; give --cwd.") from error


def _absolute(path: str) -> str:
    """Return where a directory is, keeping a symbolic link, which may be pointed elsewhere."""
    # Not by its text alone: link/.. is where the link leads to.
    return os.path.realpath(path) if ".." in path.split("/") else os.path.abspath(path)


def _add(
    adder: "Adder",
    store: "Store | None",
    submitter: Submitter,
    *,
    skip_existing: bool,
    is_batch: bool,
) -> None:
    """Add the jobs; a whole store is needed for some whose ids were chosen, or that wait."""

    def add(progress: Callable[[int], None] | None = None) -> None:
        if store is None:
            adder.add_new(submitter.jobs, progress)
            return
        try:
            jobs: Collection[Job] = submitter.jobs
            if submitter.waited_for:
                jobs = submitter.forgotten(store.find(submitter.waited_for))
            store.add(
                jobs,
                chosen=submitter.chosen,
                skip_existing=skip_existing,
                progress=progress,
            )
        except (CircularWait, DuplicateId, UnknownParent) as error:
            if is_batch:
                lines = submitter.chosen | submitter.dependent
                error.args = (f"line {lines[error.job_id]}: {error}",)
            raise

    if is_batch and sys.stderr is not None and sys.stderr.isatty():
        from queuectl.cli.progress import Screen

        screen = cast("TextIO", Screen(sys.stderr))
        count = len(submitter.jobs)
        with click.progressbar(length=count, label="Adding jobs", file=screen) as bar:
            add(bar.update)
    else:
        add()


def _tell_ignored(submitter: Submitter) -> None:
    """Say once on stderr what was not taken from documents that were printed."""
    if not submitter.ignored:
        return
    *first, last = submitter.ignored
    keys = f"{', '.join(first)} and {last} are" if first else f"{last} is"
    one = len(submitter.jobs) == 1
    again = f", and {submitter.ended} that had ended will run again" if submitter.ended else ""
    if one and again:
        again = ", and it will run again"
    whose = "the job is a new one: its" if one else "the jobs are new ones: their"
    click.echo(f"{whose} {keys} not taken over{again}", err=True)


def _tell_time(run_at: "When", now: datetime, jobs: int) -> None:
    """Say on stderr what whoever wrote a time may not have had in mind."""
    if run_at.note:
        click.echo(f"--run-at {run_at.text}: {run_at.note}", err=True)
    # Not of "now", which was a moment ago.
    if (now - run_at.instant).total_seconds() >= _PAST_SECONDS:
        due = "the job is" if jobs == 1 else "the jobs are"
        click.echo(f"--run-at {run_at.text} is in the past: {due} due now", err=True)


def _print_ids(jobs: Iterable[Job]) -> None:
    ids = (job.id for job in jobs)
    try:
        while some := list(islice(ids, _IDS_AT_ONCE)):
            echo("\n".join(some))
    except (OSError, StoreError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        all_ids = [job.id for job in jobs]
        one = len(all_ids) == 1
        these, are = ("the id", "the job is") if one else ("the ids", "the jobs are")
        raise StoreError(
            f"{these} cannot be printed ({reason}), but {are} in the queue: {' '.join(all_ids)}"
        ) from error

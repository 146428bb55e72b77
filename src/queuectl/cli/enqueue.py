"""Add jobs: one from the words of the command line, or a batch from the lines of a file."""

import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO, cast

import click

from queuectl.cli.app import App, examples, pass_app
from queuectl.cli.params import DURATION, DURATION_OR_ZERO, INSTANT, Parsed, complete_ids, whole
from queuectl.codes import check_codes
from queuectl.document import MAX_DOCUMENT_BYTES, check_env
from queuectl.errors import BadDocument, CircularWait, DuplicateId, StoreError, UnknownParent
from queuectl.job import MAX_MAX_RETRIES, MAX_PRIORITY, Job
from queuectl.submit import Options, Submitter

if TYPE_CHECKING:
    from queuectl.store.protocol import Adder, Store
    from queuectl.when import When

_IDS_AT_ONCE = 1000
_PAST_SECONDS = 1.0


class _Variable(click.ParamType[tuple[str, str]]):
    """``NAME=VALUE``, or ``NAME`` alone for its current value."""

    name = "variable"

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        return [line for line in rv.split("\n") if line.strip()]  # a value may contain spaces

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        name, separator, text = value.partition("=")
        if not separator and name not in os.environ:
            self.fail(f"{name} is not set; write NAME=VALUE", param, ctx)
        text = text if separator else os.environ[name]
        try:
            check_env(name, text)
        except BadDocument as error:
            self.fail(str(error), param, ctx)
        return name, text


class _BatchFile(click.File):
    """The path of a file, or - for stdin."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value != "-":
            return super().convert(value, param, ctx)
        from queuectl.cli.streams import open_stdin

        return open_stdin("the batch")


class _Enqueue(click.Command):
    """The command, which explains how to pass on an option that is not its own."""

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


def _codes(rule: str) -> Parsed[str]:
    return Parsed("codes", lambda text: check_codes(text, rule), quote=True)


def _option(
    names: str, metavar: str, text: str, kind: Any = None, **more: Any
) -> Callable[..., Any]:
    """Return an option; its parameter may have a name of its own, after a space."""
    return click.option(*names.split(), metavar=metavar, help=text, type=kind, **more)


def _parents_option(name: str, end: str) -> Callable[..., Any]:
    """Return an option for the ids of jobs to wait for."""
    text = f"Wait until this job {end}; can be repeated."
    return _option(name, "ID", text, multiple=True, shell_complete=complete_ids())


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
@_option("--id", "ID", "Job id  [default: generated]")
@_option(
    "--priority",
    f"0-{MAX_PRIORITY}",
    f"Priority, from 0 (first) to {MAX_PRIORITY} (last)  [default: the setting]",
    whole(0, MAX_PRIORITY),
)
@_option(
    "--delay delay_seconds", "D", "Earliest start, from now: 90s, 15m, 1h30m.", DURATION_OR_ZERO
)
@_option(
    "--run-at",
    "T",
    "Earliest start, in local time: 02:30, 2pm, 'tomorrow 06:00', 'sat 03:00',"
    " '2026-12-01 02:30', 'now + 2 hours', or ISO 8601.",
    INSTANT,
)
@_option(
    "--max-retries",
    "N",
    "Maximum number of runs, the first included  [default: the setting]",
    whole(0, MAX_MAX_RETRIES),
)
@_option(
    "--timeout timeout_seconds",
    "D",
    "End an attempt that takes longer  [default: the setting]",
    DURATION,
)
@_option(
    "--retry-on",
    "CODES",
    "Retry only after these exit codes, such as 75 or 1,64-78, or after any.",
    _codes("retry_on"),
)
@_option(
    "--no-retry-on", "CODES", "Do not retry after these exit codes, or none.", _codes("no_retry_on")
)
@_option(
    "--cwd",
    "DIR",
    "Working directory  [default: the current one]",
    click.Path(exists=True, file_okay=False),
    callback=lambda _ctx, _param, path: None if path is None else _absolute(path),
)
@_option(
    "--env",
    "NAME[=VALUE]",
    "Set a variable; NAME alone copies its current value. Can be repeated.",
    _Variable(),
    multiple=True,
    callback=lambda _ctx, _param, variables: dict(variables),
)
@_parents_option("--after", "has completed")
@_parents_option("--after-any", "has ended, also dead or cancelled")
@click.option(
    "--if-exists",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="What to do if a job has the id already.",
)
@_option(
    "--batch",
    "FILE|-",
    "Add a job for each line: a JSON object, or else a shell command. Lines that begin with # are"
    " comments; JSON may span lines, as list --json prints it.",
    _BatchFile("rb"),
)
@click.argument("command", nargs=-1)
@pass_app
def enqueue(
    app: App,
    /,
    *,
    command: tuple[str, ...],
    batch: BinaryIO | None,
    if_exists: str,
    run_at: "When | None",
    **given: Any,
) -> None:
    """Add a job, or a batch of jobs, and print its id.

    COMMAND is one string for the shell, or a program and its arguments (put -- before them), or a
    JSON object with any of the keys id, command, priority, max_retries, timeout, retry_on,
    no_retry_on, cwd, env, after, after_any, run_at, and keys of your own that begin with x_. A
    single - reads the string or the JSON object from stdin; the string may be a script of several
    lines.
    """
    _check_usage(command, batch, run_at, given)
    instant = run_at.instant if run_at else None
    options = Options(here=given["cwd"] or _here(), run_at=instant, **given)
    # A missing store is made only for jobs that are known to be good. Opening it for more than
    # plain jobs imports twice as much.
    store = app.open() if options.id or options.after or options.after_any else None
    adder = store or app.open_to_add()
    now = adder.now()
    submitter = Submitter(options, adder.settings(), now)
    _read(submitter, command, batch)
    if not submitter.jobs:
        return
    if submitter.chosen or submitter.dependent:
        adder = store = store or app.open()
    adder.make()
    _add(adder, store, submitter, skip_existing=if_exists == "skip", is_batch=batch is not None)
    _report(submitter, run_at, now)
    _print_ids(submitter.jobs)


def _check_usage(
    command: Sequence[str], batch: BinaryIO | None, run_at: "When | None", given: Mapping[str, Any]
) -> None:
    if run_at is not None and given["delay_seconds"] is not None:
        raise click.UsageError("--delay and --run-at exclude each other.")
    if batch is None:
        if not command:
            raise click.UsageError("Missing command: give one, - for stdin, or --batch FILE.")
        if command[0] == "-" and len(command) > 1:
            raise click.UsageError("- reads the command from stdin, and takes no other words.")
    elif command:
        raise click.UsageError("--batch and a command exclude each other.")
    elif given["id"] is not None:
        raise click.UsageError("--id is for one job; in a batch, write it into each line.")


def _here() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError as error:
        raise click.UsageError("The current directory is gone; give --cwd.") from error


def _absolute(path: str) -> str:
    """Return the absolute path of a directory, keeping a symbolic link, which may be changed."""
    # Not by its text alone: link/.. is the parent of the link's target.
    return os.path.realpath(path) if ".." in path.split("/") else os.path.abspath(path)


def _read(submitter: Submitter, command: tuple[str, ...], batch: BinaryIO | None) -> None:
    if batch is not None:
        # No more of a line than is refused anyway: input without newlines may have no end.
        submitter.batch(iter(lambda: batch.readline(MAX_DOCUMENT_BYTES + 1), b""))
        return
    if command == ("-",):
        from queuectl.cli.streams import read_command

        command = (read_command(),)
    submitter.one(command)


def _add(
    adder: "Adder",
    store: "Store | None",
    submitter: Submitter,
    *,
    skip_existing: bool,
    is_batch: bool,
) -> None:
    """Add the jobs; jobs with chosen ids, or that wait for others, need the whole store."""

    def add(progress: Callable[[int], None] | None = None) -> None:
        if store is None:
            adder.add(submitter.jobs, progress=progress)
            return
        try:
            jobs: Collection[Job] = submitter.jobs
            if submitter.waited_for:
                jobs = submitter.forgotten(store.find(submitter.waited_for))
            store.add(jobs, chosen=submitter.chosen, skip_existing=skip_existing, progress=progress)
        except (CircularWait, DuplicateId, UnknownParent) as error:
            if is_batch:
                lines = submitter.chosen | submitter.dependent
                error.args = (f"line {lines[error.job_id]}: {error}",)
            raise

    if is_batch and sys.stderr is not None and sys.stderr.isatty():
        from queuectl.cli.streams import ProgressStream

        screen = cast("TextIO", ProgressStream(sys.stderr))
        count = len(submitter.jobs)
        with click.progressbar(length=count, label="Adding jobs", file=screen) as bar:
            add(bar.update)
    else:
        add()


def _report(submitter: Submitter, run_at: "When | None", now: datetime) -> None:
    """Report on stderr what was ignored in printed documents, and a surprising time."""
    if submitter.ignored:
        again = f"; {submitter.ended} had ended and will run again" if submitter.ended else ""
        click.echo(f"ignored in new jobs: {', '.join(submitter.ignored)}{again}", err=True)
    if run_at is None:
        return
    if run_at.note:
        click.echo(f"--run-at {run_at.text}: {run_at.note}", err=True)
    # Not of "now", which was a moment ago.
    if (now - run_at.instant).total_seconds() >= _PAST_SECONDS:
        click.echo(f"--run-at {run_at.text} is in the past, and so due now", err=True)


def _print_ids(jobs: Iterable[Job]) -> None:
    ids = (job.id for job in jobs)
    try:
        while some := list(islice(ids, _IDS_AT_ONCE)):
            click.echo("\n".join(some))
    except (OSError, StoreError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        added = " ".join(job.id for job in jobs)
        raise StoreError(
            f"stdout cannot be written ({reason}), but added to the queue: {added}"
        ) from error

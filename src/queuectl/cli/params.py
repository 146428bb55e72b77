"""The types of options and arguments, and the options that several commands take."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import click

from queuectl.cli.app import App
from queuectl.clock import parse_duration, utc_now
from queuectl.config import whole_number
from queuectl.errors import JobNotFound, QueuectlError, UsageError
from queuectl.job import IN_ORDER, State
from queuectl.store import open_store

if TYPE_CHECKING:
    from queuectl.store.protocol import Store
    from queuectl.when import When

T = TypeVar("T")
_MOST_IDS = 1000  # a longer list helps nobody to choose, and takes a shell long to lay out
_MOST_NAMED = 3


class Parsed(click.ParamType[T]):
    """Text that a function parses or refuses by UsageError; ``quote`` puts the text before that."""

    def __init__(self, name: str, parse: Callable[[str], T], *, quote: bool = False) -> None:
        self.name = name
        self._parse = parse
        self._quote = quote

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> T:
        """Return the value of a text; a default is one already."""
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]
        try:
            return self._parse(value)
        except UsageError as error:
            self.fail(f"{value!r} {error}" if self._quote else str(error), param, ctx)


def _parse_when(text: str) -> "When":
    from queuectl.when import parse_when

    return parse_when(text, utc_now())


def _parse_regex(text: str) -> "re.Pattern[str]":
    import warnings

    try:
        with warnings.catch_warnings():
            # A later Python may read "[[" otherwise, which does not concern the user of this one.
            warnings.simplefilter("ignore", FutureWarning)
            return re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(f"{text!r} is not a regular expression: {error}") from error


def whole(least: int, most: int | None = None) -> Parsed[int]:
    """Return the type of a whole number within bounds."""
    parse = whole_number(least, most)
    return Parsed("number", lambda text: parse(text.strip()), quote=True)


DURATION = Parsed("duration", parse_duration)
DURATION_OR_ZERO = Parsed("duration", lambda text: parse_duration(text, allow_zero=True))
INSTANT = Parsed("instant", _parse_when)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
limit_option = click.option(
    "--limit",
    type=whole(1),
    metavar="N",
    help="Show at most N jobs  [default: 100 in a table, all with --json]",
)
older_than_option = click.option(
    "--older-than",
    "age_seconds",
    type=DURATION,
    metavar="DURATION",
    help="Only jobs that ended longer ago than this.",
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Delete nothing; print the ids of the jobs to delete."
)
give_up_option = click.option(
    "--timeout",
    "timeout_seconds",
    type=DURATION,
    metavar="DURATION",
    help="Give up after this long (exit code 75).",
)


def pattern_option(name: str, text: str) -> Callable[..., Any]:
    """Return the option for a regular expression that a job has to match."""
    kind = Parsed("regex", _parse_regex)
    return click.option(name, "pattern", type=kind, metavar="REGEX", help=text)


def id_argument(*states: State) -> Callable[..., Any]:
    """Return the argument for one id, completed from the jobs in the states, or in any."""
    return click.argument("job_id", metavar="ID", shell_complete=complete_ids(*states))


def ids_argument(*states: State, required: bool = True) -> Callable[..., Any]:
    """Return the argument for ids, each taken once."""
    return click.argument(
        "job_ids",
        metavar="ID..." if required else "[ID]...",
        nargs=-1,
        required=required,
        callback=lambda _ctx, _param, job_ids: tuple(dict.fromkeys(job_ids)),
        shell_complete=complete_ids(*states),
    )


def complete_ids(*states: State) -> Callable[..., Any]:
    """Return a completion of the ids of jobs in the states, or in any, that are not typed yet."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> Any:
        from click.shell_completion import CompletionItem

        given = ctx.params.get(param.name or "")
        known = set(given) if isinstance(given, (list, tuple)) else set()
        try:
            with closing(open_store(App(ctx.find_root().params["store"]).location)) as store:
                some = dict(islice(_starting_with(store, incomplete, states), _MOST_IDS))
        except (QueuectlError, click.ClickException, OSError):
            return []  # the command itself reports why
        return [
            CompletionItem(job_id, help=state)
            for job_id, state in sorted(some.items())
            if job_id not in known
        ]

    return complete


@contextmanager
def whole_ids(store: "Store", job_ids: Sequence[str]) -> Iterator[None]:
    """Name the whole id in the error of a command that was given the beginning of one."""
    try:
        yield
    except JobNotFound as error:
        for job_id in job_ids:
            near = dict(islice(_starting_with(store, job_id), _MOST_NAMED)) if job_id else {}
            if near and job_id not in near:
                whole = " or ".join(sorted(near))
                raise JobNotFound(f"no such job: {job_id}; give the whole id: {whole}") from error
        raise


def _starting_with(
    store: "Store", prefix: str, states: Sequence[State] = ()
) -> Iterator[tuple[str, State]]:
    """Yield the ids that start with a prefix, in the states or in any, each with its state."""
    for state in IN_ORDER:
        if not states or state in states:
            for job_id in store.ids(state, prefix):
                yield job_id, state

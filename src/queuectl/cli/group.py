"""The command line: its groups and commands, and how errors become a line and an exit code.

Each command has a file of its own, imported when it runs, so that no command pays for what another
needs; what ``queuectl --help`` says of them is in the table below.
"""

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO, cast

import click

from queuectl import __version__
from queuectl.cli.app import App, examples
from queuectl.errors import QueuectlError, StoreError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# The section of the help that a command is listed in, and what it does. The command NAME is in the
# module queuectl.cli.NAME.
COMMANDS = {
    "enqueue": ("Jobs", "Add a job, or a batch of jobs."),
    "list": ("Jobs", "List jobs."),
    "show": ("Jobs", "Show a job and its attempts."),
    "logs": ("Jobs", "Print a job's output."),
    "wait": ("Jobs", "Wait for jobs to end."),
    "cancel": ("Jobs", "Cancel waiting or running jobs."),
    "retry": ("Jobs", "Run completed or cancelled jobs again."),
    "worker": ("Workers", "Start, stop and list workers."),
    "status": ("The queue", "Count jobs and workers."),
    "dlq": ("The queue", "Inspect, retry and delete dead jobs."),
    "purge": ("The queue", "Delete finished jobs and their logs."),
    "doctor": ("The queue", "Check the store for damage, and repair it."),
    "config": ("The queue", "Read and change the settings."),
    "metrics": ("The queue", "Print metrics for Prometheus."),
    "completion": ("Help", "Print a shell completion script."),
    "help": ("Help", "Show the help of a command."),
}

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _name_variables(command: click.Command, prefix: str) -> None:
    """Name the environment variable of each option after the option, not after its parameter."""
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            _name_variables(each, f"{prefix}_{name}")
    for option in command.params:
        if isinstance(option, click.Option):
            long = max(option.opts, key=len).lstrip("-")
            option.envvar = f"{prefix}_{long}".replace("-", "_").upper()


def _restore_help(command: click.Command) -> None:
    if sys.flags.optimize > 1:
        from queuectl.cli.help import restore_help

        restore_help(command)


class _LazyGroup(click.Group):
    """The commands in the table above, each imported when it is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        from importlib import import_module

        found = vars(import_module(f"queuectl.cli.{cmd_name}")).values()
        (command,) = (each for each in found if getattr(each, "name", None) == cmd_name)
        assert isinstance(command, click.Command)
        _name_variables(command, f"QUEUECTL_{cmd_name}")
        _restore_help(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not ctx.resilient_parsing:
            raise click.NoSuchCommand(args[0], possibilities=COMMANDS, ctx=ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem[str]]":
        from click.shell_completion import CompletionItem

        return [
            CompletionItem(name, help=summary)
            for name, (_, summary) in COMMANDS.items()
            if name.startswith(incomplete)
        ] + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, (section, summary) in COMMANDS.items():
            sections.setdefault(section, []).append((name, summary))
        for section, rows in sections.items():
            with formatter.section(section):
                formatter.write_dl(rows)


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "QUEUECTL"},
    epilog=examples(
        """queuectl enqueue "sleep 3; echo 'job done'" --id sleepy-job""",
        "queuectl worker start --count 2 --drain",
        "queuectl logs sleepy-job",
    ),
)
@click.option(
    "--store",
    metavar="DIR",
    default="~/.queuectl",
    show_default=True,
    help="Directory of the queue; also $QUEUECTL_STORE.",
)
@click.version_option(
    __version__,
    prog_name="queuectl",
    message="%(prog)s %(version)s",
    allow_from_autoenv=False,  # $QUEUECTL_VERSION may well be some deployment's own
)
@click.pass_context
def cli(ctx: click.Context, store: str) -> None:
    """Queue shell commands and run them in the background, with retries.

    A queue is a directory. Jobs wait in it until a worker runs them; a job that keeps failing ends
    in the dead letter queue. Each command has a manual page, such as 'man queuectl-enqueue'.
    """
    ctx.obj = App(store)


def run(args: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name, report its error, and return the exit code."""
    _open_standard_streams()
    try:
        code = _invoke(sys.argv[1:] if args is None else list(args))
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = error.exit_code
    except click.ClickException as error:
        code = _report(_with_hint(error), error.exit_code)
    except QueuectlError as error:
        code = _report(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        code = EXIT_BROKEN_PIPE
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        # An error of the store names the file.
        what = "" if where or error.errno not in _NO_ROOM else "stdout cannot be written: "
        code = _report(f"{what}{error.strerror or error}{where}", StoreError.exit_code)
    except Exception:  # noqa: BLE001  (a bug: shown in full, with an exit code of its own)
        sys.excepthook(*sys.exc_info())
        code = QueuectlError.exit_code
    with suppress(OSError):  # whatever was printed before an error
        sys.stdout.flush()
    return code


def _invoke(args: list[str]) -> int:
    if instruction := os.environ.get("_QUEUECTL_COMPLETE"):
        from queuectl.cli.completion import complete

        return complete(cli, instruction)
    _restore_help(cli)
    try:
        with cli.make_context("queuectl", args) as ctx:
            cli.invoke(ctx)
    except click.exceptions.Exit as request:
        return request.exit_code
    return 0


def _open_standard_streams() -> None:
    """Open /dev/null for closed standard streams: no file of the store may get their numbers."""
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(descriptor)
    if sys.stdout is None:
        from queuectl.cli.streams import ClosedStdout

        sys.stdout = cast("TextIO", ClosedStdout())


def _report(message: str, exit_code: int) -> int:
    from queuectl.text import one_line

    with suppress(OSError):  # the exit code still reports it
        click.echo(f"Error: {one_line(message)}", err=True)
    return exit_code


def _with_hint(error: click.ClickException) -> str:
    """Return the message of an error and, for wrong usage, how to see the help."""
    if isinstance(error, click.BadParameter):
        _name_variable(error)
    message = error.format_message()
    if not isinstance(error, click.UsageError) or error.ctx is None:
        return message
    end = "" if message.endswith((".", "?", "?)")) else "."
    return f"{message}{end} Try '{error.ctx.command_path} --help'."


def _name_variable(error: click.BadParameter) -> None:
    """Name in an error the variable of the environment that a bad value came from."""
    param, ctx = error.param, error.ctx
    if param is None or ctx is None or not param.envvar:
        return
    if ctx.get_parameter_source(param.name) is click.core.ParameterSource.ENVIRONMENT:
        error.param_hint = f"${param.envvar}"

"""Find the command, run it, and turn what it raises into one line on stderr and an exit code.

The commands live in a file each and are imported when they are run, so that none pays for what
another needs; what ``--help`` says of them stands here.
"""

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from queuectl import __version__
from queuectl.cli.common import App, examples
from queuectl.errors import QueuectlError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# Name: where it is, the section of the help that it is listed in, and what it does.
COMMANDS = {
    "enqueue": ("queuectl.cli.enqueue:enqueue", "Jobs", "Add a job, or a batch of them."),
    "list": ("queuectl.cli.list:list_jobs", "Jobs", "List the jobs."),
    "show": ("queuectl.cli.show:show", "Jobs", "Show a job and its attempts."),
    "logs": ("queuectl.cli.logs:logs", "Jobs", "Print what a job wrote."),
    "wait": ("queuectl.cli.wait:wait", "Jobs", "Wait for jobs to end."),
    "cancel": ("queuectl.cli.cancel:cancel", "Jobs", "Cancel jobs that wait or run."),
    "retry": ("queuectl.cli.retry:retry", "Jobs", "Run finished jobs again."),
    "worker": ("queuectl.cli.worker:worker", "Workers", "Start, stop and list workers."),
    "status": ("queuectl.cli.status:status", "The queue", "Count the jobs and the workers."),
    "dlq": ("queuectl.cli.dlq:dlq", "The queue", "Look after the jobs that failed for good."),
    "purge": ("queuectl.cli.purge:purge", "The queue", "Delete jobs that have ended."),
    "doctor": (
        "queuectl.cli.doctor:doctor",
        "The queue",
        "Check the store for damage, and repair it.",
    ),
    "config": ("queuectl.cli.config:config", "The queue", "Read and change the settings."),
    "metrics": ("queuectl.cli.metrics:metrics", "The queue", "Print metrics for Prometheus."),
    "completion": ("queuectl.cli.completion:completion", "Help", "Let your shell complete words."),
    "help": ("queuectl.cli.help:help_command", "Help", "Show the help of a command."),
}

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE
EXIT_IO_ERROR = 74
EXIT_BUG = 70
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _name_variables(command: click.Command, prefix: str) -> None:
    """Let the environment name each option as the command line does, whatever we call it inside."""
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            _name_variables(each, f"{prefix}_{name}")
    for option in command.params:
        if isinstance(option, click.Option):
            long = max(option.opts, key=len).lstrip("-")
            option.envvar = f"{prefix}_{long}".replace("-", "_").upper()


def _restore_help(command: click.Command) -> None:
    if sys.flags.optimize > 1:
        from queuectl.cli.stripped import restore_help

        restore_help(command)


class _LazyGroup(click.Group):
    """Import a command when it is run, and answer all else from the table above."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        from importlib import import_module

        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
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
            for name, (_, _, summary) in COMMANDS.items()
            if name.startswith(incomplete)
        ] + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, (_, section, summary) in COMMANDS.items():
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
    metavar="DIR|URL",
    default="~/.queuectl",
    show_default=True,
    help="Where the queue is; also $QUEUECTL_STORE.",
)
@click.version_option(
    __version__,
    prog_name="queuectl",
    message="%(prog)s %(version)s",
    allow_from_autoenv=False,  # $QUEUECTL_VERSION may well be some deployment's own
)
@click.pass_context
def cli(ctx: click.Context, store: str) -> None:
    """Run shell commands in the background, again when they fail."""
    ctx.obj = App(store)
    if os.environ.get("NO_COLOR"):
        ctx.color = False


def run(args: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name and return its exit code."""
    _open_standard_streams()
    try:
        code = _invoke(sys.argv[1:] if args is None else list(args))
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = error.exit_code
    except click.ClickException as error:
        code = _complain(_with_hint(error), error.exit_code)
    except QueuectlError as error:
        code = _complain(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        code = EXIT_BROKEN_PIPE
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        # A store says which of its files it is.
        what = "" if where or error.errno not in _NO_ROOM else "stdout cannot be written: "
        code = _complain(f"{what}{error.strerror or error}{where}", EXIT_IO_ERROR)
    except Exception:  # noqa: BLE001  (a bug: shown whole, and told apart by its exit code)
        sys.excepthook(*sys.exc_info())
        code = EXIT_BUG
    _flush_stdout()
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
    """Fill the place of a standard stream that is closed, so that no file of the store gets it."""
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(descriptor)


def _complain(message: str, exit_code: int) -> int:
    from queuectl.text import one_line

    with suppress(OSError):  # where nobody can be told, the exit code still says it
        click.echo(f"Error: {one_line(message)}", err=True)
    return exit_code


def _with_hint(error: click.ClickException) -> str:
    """Return a message and, where the command line was wrong, how to see what is right."""
    message = error.format_message()
    if not isinstance(error, click.UsageError) or error.ctx is None:
        return message
    end = "" if message.endswith((".", "?", "?)")) else "."
    return f"{message}{end} Try '{error.ctx.command_path} --help'."


def _flush_stdout() -> None:
    """Write what there is before an error, to whoever reads it still."""
    with suppress(OSError):
        if sys.stdout is not None:
            sys.stdout.flush()

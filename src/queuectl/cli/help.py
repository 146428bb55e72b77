"""Show the help of a command."""

import click

from queuectl.cli.app import echo, examples


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the commands that can come next."""
    at = _context_of(ctx, ctx.params.get(param.name or "") or ())
    if not isinstance(at.command, click.Group):
        return []
    return [name for name in at.command.list_commands(at) if name.startswith(incomplete)]


@click.command(epilog=examples("queuectl help enqueue", "queuectl help dlq retry"))
@click.argument("words", metavar="[COMMAND]...", nargs=-1, shell_complete=_complete)
@click.pass_context
def help_command(ctx: click.Context, *, words: tuple[str, ...]) -> None:
    """Show the help of COMMAND, or of all.

    The same as COMMAND --help. The manual says it, too: man queuectl, man queuectl-enqueue.
    """
    at = _context_of(ctx, words)
    echo(at.command.get_help(at))


def _context_of(ctx: click.Context, words: tuple[str, ...]) -> click.Context:
    """Return the context of the command that the words name. Raises: click.UsageError."""
    at = ctx.find_root()
    for word in words:
        if not isinstance(at.command, click.Group):
            raise click.UsageError(f"'{at.command_path}' has no commands of its own", ctx)
        command = at.command.get_command(at, word)
        if command is None:
            raise click.NoSuchCommand(word, possibilities=at.command.list_commands(at), ctx=ctx)
        at = command.make_context(word, [], parent=at, resilient_parsing=True)
    return at

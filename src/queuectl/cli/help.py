"""Show the help of a command, and restore it under ``python -OO``."""

import ast
import sys

import click

from queuectl.cli.app import examples


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of commands that can come next."""
    at = _context_of(ctx, ctx.params.get(param.name or "") or ())
    if not isinstance(at.command, click.Group):
        return []
    return [name for name in at.command.list_commands(at) if name.startswith(incomplete)]


@click.command(epilog=examples("queuectl help enqueue", "queuectl help dlq retry"))
@click.argument("words", metavar="[COMMAND]...", nargs=-1, shell_complete=_complete)
@click.pass_context
def help_command(ctx: click.Context, *, words: tuple[str, ...]) -> None:
    """Show the help of COMMAND, or of queuectl.

    It is the same as COMMAND --help, and as the manual: man queuectl, man queuectl-enqueue.
    """
    at = _context_of(ctx, words)
    click.echo(at.command.get_help(at))


def _context_of(ctx: click.Context, words: tuple[str, ...]) -> click.Context:
    """Return the context of the command with these names. Raises: click.UsageError."""
    at = ctx.find_root()
    for word in words:
        if not isinstance(at.command, click.Group):
            raise click.UsageError(f"'{at.command_path}' has no commands of its own", ctx)
        command = at.command.get_command(at, word)
        if command is None:
            raise click.NoSuchCommand(word, possibilities=at.command.list_commands(at), ctx=ctx)
        at = command.make_context(word, [], parent=at, resilient_parsing=True)
    return at


def restore_help(command: click.Command) -> None:
    """Take the help of commands from the source, since ``python -OO`` drops docstrings."""
    if command.callback is not None and not command.help:
        command.help = _docstrings(command.callback.__module__).get(command.callback.__name__)
    if isinstance(command, click.Group):
        for each in command.commands.values():
            restore_help(each)


def _docstrings(module: str) -> dict[str, str | None]:
    """Return the docstrings of a module's functions, none if its source is missing."""
    try:
        with open(str(sys.modules[module].__file__), "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError):
        return {}
    return {
        node.name: ast.get_docstring(node)
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }

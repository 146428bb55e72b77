"""Put the help of every command into a page, between two marks; the rest of it is a person's."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from queuectl.cli.group import cli

BEGIN = "<!-- From here on scripts/reference writes what --help prints. -->\n"
END = "<!-- Until here. -->\n"
WIDTH = 80


def walk(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[tuple[click.Context, click.Command]]:
    """Yield a command, and all those below it, each with the context that its help needs."""
    settings = {**command.context_settings, "terminal_width": WIDTH}
    ctx = click.Context(command, info_name=name, parent=parent, **settings)
    yield ctx, command
    if isinstance(command, click.Group):
        for each in command.list_commands(ctx):
            below = command.get_command(ctx, each)
            assert below is not None, each
            yield from walk(below, each, ctx)


def reference() -> str:
    """Return a section for each command, with its help as a terminal of 80 columns shows it."""
    return "\n".join(
        f"### {ctx.command_path}\n\n```text\n{command.get_help(ctx).rstrip()}\n```\n"
        for ctx, command in walk(cli, "queuectl")
    )


def renewed(page: str) -> str:
    """Return a page with what stands between its marks written anew."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError("the page has lost the marks between which the help stands")
    return f"{head}{BEGIN}\n{reference()}\n{END}{tail}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(renewed(path.read_text()))

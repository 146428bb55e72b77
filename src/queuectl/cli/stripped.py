"""Give the commands the help that Python has taken from them.

The help of a command is the docstring of its function, and ``python -OO`` (PYTHONOPTIMIZE=2) loads
none; the source still has them.
"""

import ast
import sys

import click


def restore_help(command: click.Command) -> None:
    """Set the help of a command, and of those below it, to what its source says."""
    if command.callback is not None and not command.help:
        command.help = _docstrings(command.callback.__module__).get(command.callback.__name__)
    if isinstance(command, click.Group):
        for each in command.commands.values():
            restore_help(each)


def _docstrings(module: str) -> dict[str, str | None]:
    """Return the docstrings of a module's functions, none where its source is not there."""
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

#!/usr/bin/env python3
"""Write the manual pages in man/ from the commands themselves: python scripts/manpages.py.

click-man does not see commands that are loaded late, nor keep examples apart from text.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from inspect import cleandoc
from pathlib import Path

import click

from queuectl import __version__
from queuectl.cli.group import COMMANDS, cli

MAN_DIR = Path(__file__).resolve().parents[1] / "man"

EXIT_CODES = (
    ("0", "Done, or stopped gracefully."),
    ("1", "The answer is no: doctor found damage."),
    ("2", "Wrong usage: a bad value of an option, a missing or empty command."),
    ("65", "A bad id or document, an ambiguous prefix, or a move that is not allowed."),
    ("66", "No such job."),
    ("69, 74", "The store cannot be reached, the disk is full, or an I/O error occurred."),
    ("70", "A bug: the traceback is on stderr."),
    ("75", "A timeout ran out, or another process kept the store locked: try again."),
    ("77, 78", "A store that is not safe to use; bad configuration, or a missing extra."),
)
FILES = (
    ("~/.queuectl", "The store, unless --store or $QUEUECTL_STORE names another."),
    ("~/.queuectl/STATE", "The jobs in a state, each a JSON file."),
    ("~/.queuectl/logs/ID.N.log", "The output of attempt N of job ID."),
)
ENVIRONMENT = (
    ("QUEUECTL_STORE", "Directory of the queue."),
    ("QUEUECTL_COMMAND_OPTION", "Any option: QUEUECTL_ENQUEUE_PRIORITY is --priority of enqueue."),
    (
        "QUEUECTL_JOB_ID, QUEUECTL_ATTEMPT, QUEUECTL_MAX_RETRIES, QUEUECTL_STORE",
        "Set for a running command.",
    ),
    ("NO_COLOR", "Print no colours."),
)


def escaped(text: str) -> str:
    """Return text as roff prints it literally."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.'])", r"\\&", text, flags=re.MULTILINE)


def paragraphs(text: str) -> Iterator[str]:
    """Yield the roff of a help text; a paragraph after a backspace keeps its lines."""
    for paragraph in re.split(r"\n\s*\n", cleandoc(text)):
        if paragraph.startswith("\b"):
            yield f".PP\n.nf\n{escaped(paragraph[2:])}\n.fi"
        else:
            yield f".PP\n{escaped(' '.join(paragraph.split()))}"


def terms(pairs: Iterable[tuple[str, str]]) -> str:
    """Return the roff of a list of words and what they mean."""
    return "\n".join(f".TP\n.B {escaped(term)}\n{escaped(text)}" for term, text in pairs)


def synopsis(ctx: click.Context) -> str:
    """Return how a command is called, its name in bold."""
    pieces = " ".join(ctx.command.collect_usage_pieces(ctx))
    return f".B {escaped(ctx.command_path)}\n{escaped(pieces)}"


def options(ctx: click.Context) -> str:
    """Return the roff of the options of a command."""
    of_this = (param for param in ctx.command.get_params(ctx) if isinstance(param, click.Option))
    records = (option.get_help_record(ctx) for option in of_this)
    return terms(record for record in records if record is not None)


def examples(command: click.Command) -> list[str]:
    """Return the lines of the examples in a command's epilog."""
    return [line.strip() for line in (command.epilog or "").split("\n")[2:]]


def section(title: str, body: str) -> str:
    """Return a section, or nothing where there is nothing in it."""
    return f".SH {title}\n{body}\n" if body else ""


def context(parent: click.Context, name: str) -> click.Context:
    """Return the context of a command in a group."""
    assert isinstance(parent.command, click.Group)
    command = parent.command.get_command(parent, name)
    assert command is not None, name
    return command.make_context(name, [], parent=parent, resilient_parsing=True)


def inner(ctx: click.Context) -> str:
    """Return a subsection for each command of a group."""
    if not isinstance(ctx.command, click.Group):
        return ""
    parts = []
    for name in ctx.command.list_commands(ctx):
        at = context(ctx, name)
        parts += [f".SS {escaped(at.command_path)}", synopsis(at)]
        parts += [*paragraphs(at.command.help or ""), options(at)]
    return "\n".join(part for part in parts if part)


def page(name: str, title: str, *sections: str) -> str:
    """Return a page: its header, which names the program's version, and its sections."""
    head = (
        f'.\\" Written by scripts/manpages.py from the commands: do not edit.\n.TH {name.upper()}'
    )
    return (
        f'{head} 1 "" "queuectl {__version__}" "queuectl manual"\n'
        + section("NAME", f"{escaped(name)} \\- {escaped(title)}")
        + "".join(sections)
    )


def in_words(summary: str) -> str:
    """Return a summary as the NAME section has it: lower case, no stop."""
    return summary[0].lower() + summary[1:].rstrip(".")


def command_page(root: click.Context, name: str) -> str:
    """Return the page of one command, those of a group included."""
    ctx = context(root, name)
    shown = examples(ctx.command)
    if isinstance(ctx.command, click.Group):
        for each in ctx.command.list_commands(ctx):
            shown += examples(context(ctx, each).command)
    return page(
        f"queuectl-{name}",
        in_words(COMMANDS[name][1]),
        section("SYNOPSIS", synopsis(ctx)),
        section("DESCRIPTION", "\n".join(paragraphs(ctx.command.help or ""))),
        section("OPTIONS", options(ctx)),
        section("COMMANDS", inner(ctx)),
        section("EXAMPLES", example_lines(shown)),
        section("SEE ALSO", ".BR queuectl (1)"),
    )


def example_lines(lines: list[str]) -> str:
    """Return the roff of commands as they are typed, each once."""
    return ".nf\n" + "\n".join(map(escaped, dict.fromkeys(lines))) + "\n.fi"


def root_page(root: click.Context) -> str:
    """Return the page of the program."""
    by_section: dict[str, list[tuple[str, str]]] = {}
    for name, (where, summary) in COMMANDS.items():
        by_section.setdefault(where, []).append((f"queuectl-{name}(1)", summary))
    commands = "\n".join(f".SS {title}\n{terms(pairs)}" for title, pairs in by_section.items())
    return page(
        "queuectl",
        "queue shell commands and run them in the background, with retries",
        section("SYNOPSIS", synopsis(root)),
        section("DESCRIPTION", "\n".join(paragraphs(root.command.help or ""))),
        section("OPTIONS", options(root)),
        section("COMMANDS", commands),
        section("EXIT STATUS", terms(EXIT_CODES)),
        section("ENVIRONMENT", terms(ENVIRONMENT)),
        section("FILES", terms(FILES)),
        section("EXAMPLES", example_lines(examples(root.command))),
        section("SEE ALSO", ".BR at (1),\n.BR batch (1),\n.BR crontab (5)"),
    )


def pages() -> dict[str, str]:
    """Return the text of each page by the name of its file."""
    root = cli.make_context("queuectl", [], resilient_parsing=True, auto_envvar_prefix=None)
    texts = {"queuectl.1": root_page(root)}
    for name in COMMANDS:
        texts[f"queuectl-{name}.1"] = command_page(root, name)
    return texts


def main() -> None:
    """Write what has changed, and remove the pages of commands that are gone."""
    MAN_DIR.mkdir(exist_ok=True)
    texts = pages()
    for path in MAN_DIR.glob("*.1"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        (MAN_DIR / name).write_text(text, encoding="utf-8")
    sys.stderr.write(f"{len(texts)} pages written to {MAN_DIR}\n")


if __name__ == "__main__":
    main()

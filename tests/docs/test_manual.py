"""What ``man queuectl`` and the help of each command say."""

import runpy
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from queuectl.cli.group import COMMANDS, cli, run

ROOT = Path(__file__).resolve().parents[2]
GROFF = shutil.which("groff")
PAGES = sorted((ROOT / "man").glob("*.1"))


def every_command() -> Iterator[tuple[str, ...]]:
    """Yield the words of each command, those of groups included."""
    root = cli.make_context("queuectl", [], resilient_parsing=True)
    yield ()
    for name in COMMANDS:
        yield (name,)
        command = cli.get_command(root, name)
        if isinstance(command, click.Group):
            for inner in command.list_commands(root):
                yield name, inner


def test_the_pages_are_those_of_the_commands() -> None:
    """A change of a command comes with its page: python scripts/manpages.py writes them."""
    pages = runpy.run_path(str(ROOT / "scripts" / "manpages.py"))["pages"]()
    assert {path.name: path.read_text(encoding="utf-8") for path in PAGES} == pages
    assert {"queuectl.1", *(f"queuectl-{name}.1" for name in COMMANDS)} == set(pages)


@pytest.mark.skipif(GROFF is None, reason="groff is not installed")
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_can_be_set(path: Path) -> None:
    """Groff finds nothing to warn of, and prints the text with its dashes as they are typed."""
    assert GROFF is not None
    words = [GROFF, "-man", "-ww", "-Tascii", "-P-cbou", "-rLL=80n", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=20)
    assert done.stderr == ""
    assert "--help" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("words", tuple(every_command()), ids=" ".join)
def test_help_is_the_same_both_ways_and_fits_in_80_columns(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command has an example, and no line of its help is longer than a terminal is wide."""
    monkeypatch.setenv("COLUMNS", "80")
    assert run(("help", *words)) == 0
    by_command = capsys.readouterr().out
    assert run((*words, "--help")) == 0
    assert by_command == capsys.readouterr().out
    lines = by_command.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    assert "  Example:" in lines
    assert "\\b" not in by_command
    assert lines[0].startswith(" ".join(("Usage: queuectl", *words)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("enqeue",), "No such command 'enqeue'. Did you mean 'enqueue'?"),
        (("dlq", "retyr"), "No such command 'retyr'. Did you mean 'retry'?"),
        (("show", "job-1"), "'queuectl show' has no commands of its own."),
    ],
)
def test_help_for_what_is_no_command(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped one is answered with the nearest."""
    assert run(("help", *words)) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"Error: {message} Try 'queuectl help --help'.\n")
